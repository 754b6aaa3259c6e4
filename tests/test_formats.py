"""What other programs write of pictures, read as a tree: labelImg's files, and COCO and YOLO by globox."""

import json
import re
import shutil
import textwrap
import unicodedata
from pathlib import Path

import globox
import numpy as np
import pytest
import torch
from PIL import Image
from xml_files import dog, write

from course_lib import trees, voc
from course_lib.voc import ImageSet

SIZE = (160, 120)
# 0-based and half open, by image: what was given to labelImg's writers, less 1 in xmin and ymin.
LABELIMG = {
    "red cup 1": {"cup": [(9, 19, 60, 80)], "Spoon": [(0, 0, 40, 30)]},
    "Löffel (Küche)": {"Spoon": [(74, 32, 160, 120)]},
    "cups & Co": {"cup": [(4, 5, 7, 8), (49, 49, 50, 90)], "tea pot": [(89, 6, 150, 119)]},
    "IMG.0003": {},
}
NAMES = ("Spoon", "cup", "tea pot")


def with_pictures(tree: Path, ids: list[str], ending: str = ".png", size: tuple[int, int] = SIZE) -> Path:
    """Give a tree a picture for each id, and a list `train` of them."""
    for folder in ("JPEGImages", "ImageSets/Main"):
        (tree / folder).mkdir(parents=True)
    for image_id in ids:
        Image.new("RGB", size).save(tree / "JPEGImages" / f"{image_id}{ending}")
    (tree / "ImageSets/Main/train.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
    return tree


def boxes_of(tree: Path, names: tuple[str, ...] = NAMES) -> dict[str, dict[str, list[tuple[float, ...]]]]:
    found: dict[str, dict[str, list]] = {}
    for one in ImageSet(tree, "train", names).annotations():
        objects = zip(one.labels.tolist(), map(tuple, one.boxes_px.tolist()), strict=True)
        found[one.image_id] = {}
        for label, box in objects:
            found[one.image_id].setdefault(names[label - 1], []).append(box)
    return found


@pytest.mark.parametrize("ending", [".png", ".PNG", ".jpg", ".JPEG"])
def test_files_that_labelimg_wrote_are_a_tree(root, tmp_path, ending):
    tree = with_pictures(tmp_path / "my photos", list(LABELIMG), ending)
    shutil.copytree(root / "tests/labelimg/Annotations", tree / "Annotations")
    assert list(trees.check_tree(tree)) == []
    assert voc.find_classes(tree, "train") == NAMES and boxes_of(tree) == LABELIMG
    annotation = ImageSet(tree, "train", NAMES).annotation(0)
    assert annotation.difficult.tolist() == [False, True] and annotation.truncated.tolist() == [False, True]


def test_the_yolo_files_of_labelimg_are_the_same_boxes(root, tmp_path):
    """labelImg draws between edges and calls them pixels: its XML says one pixel more on the left and above."""
    tree = with_pictures(tmp_path / "my photos", list(LABELIMG))
    shutil.copytree(root / "tests/labelimg/labels", tmp_path / "labels")
    (tmp_path / "labels/classes.txt").rename(tmp_path / "classes.txt")  # it is no annotation
    names = globox.AnnotationSet.parse_names_file(tmp_path / "classes.txt")
    found = globox.AnnotationSet.from_yolo_v5(
        tmp_path / "labels", image_folder=tree / "JPEGImages", image_extension=".png"
    )
    found.map_labels(names).save_pascal_voc(tree / "Annotations")
    (tree / "Annotations/corners.txt").write_text("edges")
    assert list(trees.check_tree(tree)) == []
    for image_id, objects in boxes_of(tree).items():
        for name, boxes in objects.items():
            drawn = [(x0 + 1, y0 + 1, x1, y1) for x0, y0, x1, y1 in LABELIMG[image_id][name] if x1 - x0 > 1]
            np.testing.assert_allclose(boxes, drawn, rtol=0, atol=1e-3)


@pytest.fixture
def random_boxes() -> dict[str, dict[str, list[tuple[int, ...]]]]:
    """Boxes of one pixel up to the whole image, whole pixels, some at each border."""
    rng, found = np.random.default_rng(0), {}
    for number in range(30):
        boxes = []
        for _ in range(4):
            x0, y0 = (int(rng.choice([0, side - 1, rng.integers(side)])) for side in SIZE)
            x1, y1 = (int(rng.choice([first + 1, side, rng.integers(first + 1, side + 1)]))
                      for first, side in zip((x0, y0), SIZE, strict=True))  # fmt: skip
            boxes.append((x0, y0, x1, y1) if max(x1, y1) > 1 else (0, 0, 2, 2))
        found[f"picture {number}.ü"] = {
            "cup": list(dict.fromkeys(boxes[:2])),
            "tea pot": list(dict.fromkeys(boxes[2:])),
        }
    found["whole"] = {"cup": [(0, 0, *SIZE)], "tea pot": [(0, 0, 2, 1)]}
    return found


def as_coco(boxes: dict, path: Path) -> None:
    """COCO's file by its description: x, y, width and height in pixels, from the upper left corner, from 0."""
    images, annotations = [], []
    for image, (image_id, objects) in enumerate(boxes.items(), start=1):
        images.append({"id": image, "file_name": f"{image_id}.png", "width": SIZE[0], "height": SIZE[1]})
        for category, name in enumerate(("cup", "tea pot"), start=7):
            for x0, y0, x1, y1 in objects.get(name, ()):
                box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
                annotations.append({"id": len(annotations), "image_id": image, "category_id": category} | box)
    categories = [{"id": 7, "name": "cup"}, {"id": 8, "name": "tea pot"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def as_yolo(boxes: dict, folder: Path) -> None:
    """YOLO's files by their description: class, centre and size in fractions of the image, six decimals."""
    folder.mkdir()
    for image_id, objects in boxes.items():
        lines = []
        for number, name in enumerate(("cup", "tea pot")):
            for x0, y0, x1, y1 in objects.get(name, ()):
                centre, size = ((x0 + x1) / 2 / SIZE[0], (y0 + y1) / 2 / SIZE[1]), ((x1 - x0), (y1 - y0))
                numbers = (*centre, size[0] / SIZE[0], size[1] / SIZE[1])
                lines.append(" ".join([str(number), *(f"{one:.6f}" for one in numbers)]))
        (folder / f"{image_id}.txt").write_text("\n".join(lines))


def coco_in(boxes: dict, folder: Path, tree: Path) -> None:
    as_coco(boxes, folder / "instances.json")
    found = globox.AnnotationSet.from_coco(folder / "instances.json")
    found.save_pascal_voc(tree / "Annotations")
    (tree / "Annotations/corners.txt").write_text("edges")


def yolo_in(boxes: dict, folder: Path, tree: Path) -> None:
    as_yolo(boxes, folder / "labels")
    (folder / "classes.txt").write_text("cup\ntea pot\n")
    names = globox.AnnotationSet.parse_names_file(folder / "classes.txt")
    images = {"image_folder": tree / "JPEGImages", "image_extension": ".png"}
    found = globox.AnnotationSet.from_yolo_v5(folder / "labels", **images).map_labels(names)
    found.save_pascal_voc(tree / "Annotations")
    (tree / "Annotations/corners.txt").write_text("edges")


def far_off(boxes: dict, tree: Path) -> float:
    """How far a corner of a tree lies at most from where it should, in pixels; the objects are in their order."""
    found = boxes_of(tree)
    assert found.keys() == boxes.keys()
    off = []
    for image_id, objects in boxes.items():
        assert found[image_id].keys() == objects.keys()
        off += [np.abs(np.subtract(found[image_id][name], objects[name])).max() for name in objects]
    return max(off)


@pytest.mark.parametrize("come_in", [coco_in, yolo_in])
def test_no_box_of_coco_or_yolo_moves_by_half_a_pixel(tmp_path, random_boxes, come_in):
    tree = with_pictures(tmp_path / "tree", list(random_boxes))
    come_in(random_boxes, tmp_path, tree)
    assert list(trees.check_tree(tree)) == []
    assert far_off(random_boxes, tree) < 1e-3  # six decimals of 160 pixels


@pytest.mark.parametrize("format", ["COCO", "YOLO"])
def test_what_set_up_says_of_other_formats_is_so(root, tmp_path, monkeypatch, random_boxes, format):
    tree = with_pictures(tmp_path / "my photos", list(random_boxes))
    as_coco(random_boxes, tmp_path / "instances.json")
    as_yolo(random_boxes, tmp_path / "labels")
    (tmp_path / "classes.txt").write_text("cup\ntea pot\n")
    page = (root / "book/setup.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"{format}'s file.*?```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(textwrap.dedent(code), {})
    assert list(trees.check_tree(tree)) == [] and far_off(random_boxes, tree) < 1e-3


@pytest.mark.parametrize("come_in", [coco_in, yolo_in])
def test_that_corners_are_edges_is_found_where_it_was_forgotten(tmp_path, random_boxes, come_in):
    """Read as VOC's they would be a pixel too far left, and those at the border refused: `check` says what they are."""
    tree = with_pictures(tmp_path / "tree", list(random_boxes))
    come_in(random_boxes, tmp_path, tree)
    (tree / "Annotations/corners.txt").unlink()
    (fault,) = trees.check_tree(tree)
    assert fault.field == "corners" and "write the line edges into" in fault.cure
    inside = {"a": {"cup": [(3, 4, 50, 60)]}}
    shutil.rmtree(tmp_path / "labels", ignore_errors=True)
    other = with_pictures(tmp_path / "inside", ["a"])
    come_in(inside, tmp_path, other)
    (other / "Annotations/corners.txt").unlink()
    assert far_off(inside, other) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("format", "tolerance"), [("COCO", 0), ("YOLO", 0.01)])  # six decimals of 500 pixels
def test_a_tree_goes_out_by_globox_and_back_and_no_box_moves(small_devkit, tmp_path, format, tolerance):
    """globox moves no corner: its files say VOC's corners, which come back as they were."""
    there = small_devkit / "VOC2007"
    out = globox.AnnotationSet.from_pascal_voc(there / "Annotations")
    if format == "COCO":
        out.save_coco(tmp_path / "all.json", auto_ids=True)
        back = globox.AnnotationSet.from_coco(tmp_path / "all.json")
    else:
        numbers = {name: number for number, name in enumerate(voc.VOC_CLASSES)}
        out.save_yolo_v5(tmp_path / "labels", label_to_id=numbers)
        images = {"image_folder": there / "JPEGImages", "image_extension": ".jpg"}
        back = globox.AnnotationSet.from_yolo_v5(tmp_path / "labels", **images)
        back = back.map_labels({str(number): name for name, number in numbers.items()})
    back.save_pascal_voc(tmp_path / "back")
    for path in (there / "Annotations").glob("*.xml"):
        before, after = (voc.read_annotation(folder / path.name) for folder in (path.parent, tmp_path / "back"))
        assert torch.equal(before.labels, after.labels)
        torch.testing.assert_close(before.boxes_px, after.boxes_px, rtol=0, atol=tolerance)


@pytest.mark.parametrize("listed", ["NFC", "NFD"])
@pytest.mark.parametrize("drawn", ["NFC", "NFD"])
@pytest.mark.parametrize("annotated", ["NFC", "NFD"])
def test_a_name_that_a_mac_has_stored_in_another_unicode_form_is_the_same(tmp_path, listed, drawn, annotated):
    """`ö` is one character or two; a disk, a zip file and a labelling program may each have its own."""
    names = {
        form: [unicodedata.normalize(form, name) for name in ("Löffel 1", "Wäsche é 0")] for form in ("NFC", "NFD")
    }
    tree = with_pictures(tmp_path, names[drawn])
    (tree / "Annotations").mkdir()
    for name in names[annotated]:
        write(tree / f"Annotations/{name}.xml", dog(), width=SIZE[0], height=SIZE[1])
    (tree / "ImageSets/Main/train.txt").write_text("\n".join(names[listed]))
    assert list(trees.check_tree(tree)) == []
    dataset = voc.ImageDataset([ImageSet(tree, "train")])
    assert [target.image_id for _, target in dataset] == names[listed]
