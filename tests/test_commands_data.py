import json
import unicodedata
from pathlib import Path

import pytest
from PIL import Image
from xml_files import dog, write

from course_lib import terminal


@pytest.mark.slow
def test_emoji_voc_makes_a_tree(run_cli, tmp_path):
    done = run_cli("emoji-voc", tmp_path / "d", "--train", 4, "--test", 2)
    assert done.returncode == 0 and (tmp_path / "d/VOC2007/ImageSets/Main/test.txt").read_text() == "000005\n000006\n"
    refused = run_cli("emoji-voc", tmp_path / "d", "--train", 5, "--test", 2)
    assert refused.returncode == 1 and "choose another devkit" in refused.stderr


@pytest.mark.slow
def test_download_names_a_wrong_archive_on_disk_and_opens_no_connection(run_cli, tmp_path):
    (tmp_path / "VOCtrainval_06-Nov-2007.tar").write_bytes(b"cut off")
    done = run_cli("download", "voc2007", "--devkit", tmp_path / "d", "--archives", tmp_path)
    assert done.returncode == 1 and "MD5 is '" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert run_cli("download", "voc2007", "--mirror", "file:///tmp").returncode == 2
    assert not (tmp_path / "d" / "VOC2007").exists()


@pytest.fixture
def faulty(tmp_path, small_devkit) -> Path:
    """A tree of one's own with four faults in three images, in a folder with odd characters."""
    tree = tmp_path / "dev[red]kit" / "my\ncars"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tree / folder).mkdir(parents=True)
    (tree / "ImageSets/Main/train.txt").write_text("a b\nc\n")
    (tree / "ImageSets/Main/val.txt").write_text("d\n")
    write(tree / "Annotations/a b.xml", dog(name="van"), dog(name="van", xmin=50), dog(name="van", xmin=0))
    write(tree / "Annotations/c.xml", dog(name="Van"))
    for image_id in ("a b", "c"):
        Image.new("RGB", (100, 80)).save(tree / f"JPEGImages/{image_id}.png")
    return tree


def test_check_names_every_fault_in_one_line(call, faulty):
    done = call("check", faulty)
    assert done.returncode == 1
    files = [line.removeprefix(terminal.one_line(faulty)).split(": ")[:2] for line in done.stdout.splitlines()]
    assert files == [
        ["/Annotations/a b.xml", "object[1]/bndbox is (50.0, 2.0, 30.0, 40.0)"],
        ["/Annotations/a b.xml", "object[2]/bndbox is (0.0, 2.0, 30.0, 40.0)"],
        ["/Annotations/c.xml", "object/name is 'Van'"],
        ["/Annotations/d.xml", "file is 'No such file or directory'"],
    ]
    assert done.stderr == "4 faults in 3 images; objects: 3 van, 1 Van\n"
    assert len(call("check", faulty, "--on", "train", "--annotations-only").stdout.splitlines()) == 3
    report = json.loads(call("check", faulty, "--json", "--on", "val").stdout, parse_constant=pytest.fail)
    assert report["tree"] == str(faulty) and report["on"] == "val" and report["images"] == 1
    assert [set(fault) for fault in report["faults"]] == [{"path", "field", "value", "cure"}]


def test_check_of_a_whole_tree_is_exit_code_0(call, small_devkit):
    done = call("check", small_devkit / "VOC2007", "--on", "test")
    assert done.returncode == 0 and done.stdout == "" and done.stderr.startswith("no faults in 12 images; objects: ")
    done = call("check", small_devkit / "VOC2007", "--annotations-only", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and done.stderr == "" and report["images"] == 52 and report["faults"] == []


def test_check_says_how_many_annotations_no_list_has(call, faulty):
    with (faulty / "ImageSets/Main/val.txt").open("a", encoding="utf-8") as listed:
        listed.write(unicodedata.normalize("NFD", "é") + "\n")  # as a Mac may write it
    for name in ("é", "e", "f"):
        write(faulty / f"Annotations/{name}.xml", dog(name="van"))
    told = "2 of the annotations are in no list, such as e"
    assert call("check", faulty).stderr.splitlines()[-1] == told
    assert told not in call("check", faulty, "--on", "val").stderr


@pytest.mark.parametrize(
    ("below", "options", "said"),
    [
        ("", (), "give one of them: {devkit}/VOC2007"),
        ("", ("--json",), "give one of them: {devkit}/VOC2007"),
        ("VOC2007/JPEGImages", (), "give the tree: {devkit}/VOC2007"),
        ("none", (), "give the folder that holds Annotations, JPEGImages, ImageSets"),
        ("VOC2007", ("--on", "../x"), "--on is ../x, and the lists in {devkit}/VOC2007/ImageSets/Main are: val, test"),
    ],
)
def test_check_of_what_is_no_tree_is_wrong_use_and_says_what_to_give(call, small_devkit, below, options, said):
    done = call("check", small_devkit / below, *options)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert said.format(devkit=small_devkit) in done.stderr
