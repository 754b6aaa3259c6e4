import inspect
import json
import shutil
import subprocess
import sys

import onnx
import pytest
import torch
import yaml
from families import weekly_but
from PIL import Image
from small_backbone import SMALL

from course_lib import export, onnx_graphs, ssd, voc, weights
from course_lib.boxes import box_iou
from course_lib.detect import decode_scores, detect
from course_lib.files import DataError
from course_lib.images import resized

# Issue 13 asks for it. A score is a softmax of logits below 20 in size, which float32 keeps to about 1e-5 of themselves
# after some twenty layers: 20 * 1e-5, a quarter of it at most in the score.
PARITY = {"rtol": 0, "atol": 1e-4}


def pictures(image_set, size, count=6):
    return torch.stack([resized(image_set.image(index), size) for index in range(count)])


def random_pictures(count, size=160):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def small_model(scoring="softmax", classes=("a", "b", "ü c")):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SMALL(len(classes) + 1, classes).eval()
        for head in model.conf_heads:  # sure of something here and there, as a trained one is
            torch.nn.init.normal_(head.weight, std=0.3)
    model.scoring = scoring
    return model


@torch.inference_mode()
def torchs(model, images):
    """What the file should give: boxes and scores of every prior."""
    boxes, scores = decode_scores(*model(images), model.priors, model.scoring)
    return [boxes, scores[..., 1:]]


def run(path, images):
    return [torch.from_numpy(output) for output in export.load_onnx(path).session.run(None, {"images": images.numpy()})]


def assert_same_detections(ours, theirs, above=0.0):
    """Above a score, each of one side has its twin on the other: same class, same place, same score to 1e-4."""
    for one, other in ((ours, theirs), (theirs, ours)):
        for a, b in zip(one, other, strict=True):
            sure = a.scores > above + 2e-4
            twin = (box_iou(a.boxes[sure], b.boxes) > 0.99) & (a.labels[sure, None] == b.labels)
            twin &= (a.scores[sure, None] - b.scores).abs() < 1e-4
            assert twin.any(dim=1).all()


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    """The small model with each scoring, and one with NMS, written once."""
    folder, files = tmp_path_factory.mktemp("small"), {}
    for scoring, nms in (("softmax", False), ("softmax", True), ("sigmoid", False)):
        files[scoring, nms] = folder / f"{scoring}-{nms}.onnx"
        export.to_onnx(small_model(scoring), files[scoring, nms], nms, score_threshold=0.3, max_detections=30)
    return files


@pytest.mark.slow
def test_importing_export_loads_no_onnx_and_no_hub():
    code = (
        "import sys, course_lib.export\n"
        "loaded = {'onnx', 'onnxscript', 'onnxruntime', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("scoring", ssd.SCORINGS)
def test_a_file_takes_any_number_of_pictures_and_computes_what_torch_computes(small_files, scoring):
    model = small_model(scoring)
    for count in (1, 2, 5):
        images = random_pictures(count)
        for ours, theirs in zip(run(small_files[scoring, False], images), torchs(model, images), strict=True):
            torch.testing.assert_close(ours, theirs, **PARITY)
        expected = detect(*model(images), model.priors, 0.3, max_detections=30, scoring=scoring)
        assert any(len(one.labels) for one in expected)
        for path in (path for (name, _), path in small_files.items() if name == scoring):
            assert_same_detections(export.load_onnx(path)(images), expected, above=0.3)


@pytest.mark.slow
def test_a_file_says_what_it_is_and_nothing_of_the_machine(small_files, root):
    for (scoring, nms), path in small_files.items():
        graph = onnx.load(path)
        onnx.checker.check_model(graph, full_check=True)
        about = {entry.key: entry.value for entry in graph.metadata_props}
        assert json.loads(about["classes"]) == ["a", "b", "ü c"]
        assert about["architecture"] == "small" and about["image_size"] == "160" and about["pixels"] == "RGB"
        assert about["scoring"] == scoring and about["nms"] == ("yes" if nms else "no")
        assert float(about["score_threshold"]) == 0.3 and float(about["iou_threshold"]) == 0.45
        assert int(about["top_k"]) == 400 and int(about["max_detections"]) == 30
        detector = export.load_onnx(path)
        assert detector.classes == ("a", "b", "ü c") and detector.image_size == 160 and detector.nms == nms
        priors = len(small_model().priors)
        shapes = {
            value.name: value.shape for value in (*detector.session.get_inputs(), *detector.session.get_outputs())
        }
        expected = {"images": ["batch", 3, 160, 160]}
        if nms:
            expected |= {"boxes": ["batch", 30, 4], "scores": ["batch", 30], "labels": ["batch", 30]}
        else:
            expected |= {"boxes": ["batch", priors, 4], "scores": ["batch", priors, 3]}
        assert shapes == expected
        content = path.read_bytes()
        assert str(root).encode() not in content and b".py" not in content


def test_weights_that_are_not_finite_are_not_exported_and_the_old_file_stays(tmp_path):
    model, path = small_model(), tmp_path / "small.onnx"
    path.write_text("old")
    with torch.no_grad():
        model.backbone.to_16.weight[0] = float("nan")
    with pytest.raises(ValueError, match=r"small\.onnx is not written: backbone\.to_16\.weight hold NaN"):
        export.to_onnx(model, path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_none_of_ours_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"none\.onnx: file is 'missing': write it first"):
        export.load_onnx(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no ONNX file")
    with pytest.raises(DataError, match=r"broken\.onnx: ONNX file is .*export it again"):
        export.load_onnx(tmp_path / "broken.onnx")
    onnx.save(onnx_graphs.nms_graph(5, 3, 0.1, 0.5, 10, 10), tmp_path / "other.onnx")
    with pytest.raises(DataError, match=r"other\.onnx: metadata is .*score_threshold.*as a file of"):
        export.load_onnx(tmp_path / "other.onnx")


def real_pictures(request, size):
    """Photographs of VOC where the machine has them, else EmojiVOC's."""
    try:
        tree = request.getfixturevalue("voc_real") / "VOCdevkit" / "VOC2007"
    except pytest.skip.Exception:
        tree = request.getfixturevalue("small_devkit") / "VOC2007"
    return pictures(voc.ImageSet(tree, "test"), size)


@pytest.fixture(scope="module")
def recorded(root):
    return weights.load(root / "data" / "ssd_mini.safetensors")


@pytest.fixture(scope="module")
def recorded_file(recorded, tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "ssd_mini.onnx"
    export.to_onnx(recorded, path)
    return path


@pytest.mark.slow
def test_the_recorded_detector_finds_the_same_in_onnxruntime(recorded, recorded_file, request):
    images = real_pictures(request, recorded.image_size)
    for ours, theirs in zip(run(recorded_file, images), torchs(recorded, images), strict=True):
        torch.testing.assert_close(ours, theirs, **PARITY)
    with torch.inference_mode():
        expected = detect(*recorded(images), recorded.priors)
    assert_same_detections(export.load_onnx(recorded_file)(images), expected, above=0.3)


@pytest.mark.slow
def test_nms_in_the_file_of_the_recorded_detector_finds_what_detect_finds(recorded, request, tmp_path):
    images = real_pictures(request, recorded.image_size)
    export.to_onnx(recorded, tmp_path / "nms.onnx", nms=True)
    with torch.inference_mode():
        expected = detect(*recorded(images), recorded.priors)
    assert_same_detections(export.load_onnx(tmp_path / "nms.onnx")(images), expected, above=0.1)


@pytest.mark.parametrize(
    "limit", [{"score_threshold": float("nan")}, {"iou_threshold": -0.1}, {"top_k": 0}, {"max_detections": 0}]
)
def test_a_limit_that_means_nothing_is_refused(tmp_path, limit):
    name = next(iter(limit))
    with pytest.raises(ValueError, match=f"{name} is .*: give a number from"):
        export.to_onnx(small_model(), tmp_path / "x.onnx", **limit)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_int8_is_a_quarter_of_the_size_and_finds_what_float_finds(recorded, recorded_file, request, tmp_path):
    """Loosely: processors round differently in int8, with VNNI and without."""
    tree = request.getfixturevalue("small_devkit") / "VOC2007"
    graph = onnx_graphs.quantised(
        onnx.load(recorded_file), export.calibration_pictures(tree, "train", recorded.image_size)
    )
    graph.metadata_props.extend(onnx.load(recorded_file).metadata_props)
    onnx.save(graph, tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < 0.3 * recorded_file.stat().st_size
    kinds = {node.op_type for node in graph.graph.node if node.op_type in ("Exp", "Softmax", "Relu")}
    assert kinds == {"Exp", "Softmax"}  # the decoding is there as it was, and every ReLU is part of a scale
    images = pictures(voc.ImageSet(tree, "test"), recorded.image_size, 12)
    pairs = zip(export.load_onnx(recorded_file)(images), export.load_onnx(tmp_path / "int8.onnx")(images), strict=True)
    found = []
    for one, other in pairs:
        sure = one.scores > 0.5
        twin = (box_iou(one.boxes[sure], other.boxes) > 0.7) & (one.labels[sure, None] == other.labels)
        found.append((twin & (other.scores > 0.3)).any(dim=1))
    assert torch.cat(found).float().mean() > 0.85 and len(torch.cat(found)) > 10


def test_calibration_looks_all_over_a_list_and_at_no_annotation(tree, monkeypatch):
    folder = tree / "VOC2007"
    names = [f"{number:06d}" for number in range(1, 8)]
    (folder / "ImageSets/Main/all.txt").write_text("\n".join(names))
    for number, name in enumerate(names):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(folder / "JPEGImages" / f"{name}.png")
    (folder / "JPEGImages/000001.jpg").unlink()
    shutil.rmtree(folder / "Annotations")
    monkeypatch.setattr(export, "CALIBRATION", 3)
    found = list(export.calibration_pictures(folder, "all", 8))
    assert [one[0, 0, 0, 0].item() for one in found] == [0, 2, 4]
    assert all(one.shape == (1, 3, 8, 8) and one.dtype == torch.uint8 for one in found)
    monkeypatch.setattr(export, "CALIBRATION", 100)
    assert len(list(export.calibration_pictures(folder, "all", 8))) == 7


@torch.inference_mode()
def untrained(architecture, images):
    """Random weights, with heads that say as much as a trained detector's: logits some units apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture(4, ("a", "b", "c")).eval()
    for heads, outputs in zip((model.loc_heads, model.conf_heads), model(images), strict=True):
        for head in heads:
            head.weight.mul_(3 / outputs.std())
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    weekly_but([ssd.ssd_lite0], [ssd.ssd_lite0, ssd.ssd_mobilenet_v2, ssd.ssd300_vgg16]),
    ids=lambda one: one.name,
)
def test_untrained_detectors_give_the_same_in_onnxruntime(architecture, request, tmp_path):
    images = real_pictures(request, architecture.spec.image_size)[:2]
    model = untrained(architecture, images)
    export.to_onnx(model, tmp_path / "detector.onnx")
    for ours, theirs in zip(run(tmp_path / "detector.onnx", images), torchs(model, images), strict=True):
        torch.testing.assert_close(ours, theirs, **PARITY)


def test_what_is_saved_for_a_hub_comes_back_and_its_card_tells_what_the_records_say(a_run, tmp_path):
    model, run = a_run
    export.save_pretrained(model, tmp_path / "hub", run, license="cc-by-4.0")
    back = export.from_pretrained(tmp_path / "hub")
    assert (back.architecture, back.classes, back.scoring) == (model.architecture, model.classes, model.scoring)
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())
    assert {path.name for path in (tmp_path / "hub").iterdir()} == {"model.safetensors", "README.md"}
    card = (tmp_path / "hub" / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "pipeline_tag": "object-detection",
        "tags": ["ssd", "ssd_mini"],
        "license": "cc-by-4.0",
    }
    for said in (
        "cat, a \\| b.",
        "Mean AP at IoU 0.5 (area): **0.1235**, on 31 images.",
        "| cat | 0.1235 |\n| a \\| b | - |",
        "| command | python -m course_lib train --run x |",
        "| learning_rate | 0.005 |",
        f"{sum(one.numel() for one in model.parameters()):,} parameters",
    ):
        assert said in body


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_what_is_in_a_folder_is_not_written_over(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"{name} exists"):
        export.save_pretrained(ssd.ssd_mini(3), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"
    export.save_pretrained(ssd.ssd_mini(3), tmp_path, overwrite=True)
    assert export.from_pretrained(tmp_path).num_classes == 3


class Hub:
    """huggingface_hub as far as `export` uses it: nothing leaves the machine, and every call is kept."""

    def __init__(self, folder):
        self.folder, self.calls = folder, []

    def HfApi(self):
        return self

    def create_repo(self, repo_id, *, private, exist_ok):
        self.calls.append(("create_repo", repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.calls.append(("upload_folder", repo_id, commit_message))
        shutil.copytree(folder_path, self.folder / repo_id)
        return f"https://hub/{repo_id}/commit/1"

    def hf_hub_download(self, repo_id, filename, *, revision):
        self.calls.append(("hf_hub_download", repo_id, filename, revision))
        return str(self.folder / repo_id / filename)


def test_a_model_goes_to_the_hub_and_comes_back(monkeypatch, a_run, tmp_path):
    (model, run), hub = a_run, Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert export.push_to_hub(model, "me/garden-birds", run, license="mit") == "https://hub/me/garden-birds/commit/1"
    assert hub.calls == [
        ("create_repo", "me/garden-birds", True, True),
        ("upload_folder", "me/garden-birds", "Add ssd_mini"),
    ]
    folder = hub.folder / "me" / "garden-birds"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "README.md"}
    back = export.from_pretrained("me/garden-birds", revision="v1")
    assert hub.calls[-1] == ("hf_hub_download", "me/garden-birds", "model.safetensors", "v1")
    assert back.classes == model.classes


def test_the_double_has_the_signatures_of_the_hub():
    import huggingface_hub

    for ours, theirs in (
        (Hub.create_repo, huggingface_hub.HfApi.create_repo),
        (Hub.upload_folder, huggingface_hub.HfApi.upload_folder),
        (Hub.hf_hub_download, huggingface_hub.hf_hub_download),
    ):
        assert inspect.signature(ours).parameters.keys() - {"self"} <= inspect.signature(theirs).parameters.keys()


@pytest.mark.parametrize("source", ["no/such/folder", "./nothing", "nothing", "/nothing/here"])
def test_a_folder_that_is_not_there_is_no_reason_to_ask_the_hub(monkeypatch, tmp_path, source):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # an import would fail
    with pytest.raises(DataError, match="folder is 'missing': give a folder that save_pretrained wrote, or user/name"):
        export.from_pretrained(source)
