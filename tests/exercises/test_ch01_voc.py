"""The solutions of chapter 1 are what others compute: boxes of VOC and IoU."""

import pytest
import torchvision
from hypothesis import given
from strategies import corner_boxes

from course_lib import voc
from course_lib.check import EXERCISES


@given(corner_boxes(minimum=1, maximum=1), corner_boxes(minimum=1, maximum=1))
def test_the_solution_of_iou_is_torchvisions(a, b):
    value = EXERCISES["iou"].solution(tuple(a[0].tolist()), tuple(b[0].tolist()))
    assert value == pytest.approx(torchvision.ops.box_iou(a, b).item(), abs=1e-5)


def test_the_solution_of_voc_box_is_what_the_reader_of_annotations_does(tmp_path):
    for case in EXERCISES["voc_box"].cases:
        if case[0] < case[2] and case[1] < case[3]:
            tags = ("xmin", "ymin", "xmax", "ymax", "width", "height")
            inner = [f"<{tag}>{number}</{tag}>" for tag, number in zip(tags, case, strict=True)]
            path = tmp_path / "a.xml"
            path.write_text(
                f"<annotation><size>{''.join(inner[4:])}</size><object><name>cat</name>"
                f"<bndbox>{''.join(inner[:4])}</bndbox></object></annotation>"
            )
            expected = voc.read_annotation(path).boxes[0].tolist()
            assert EXERCISES["voc_box"].solution(*case) == pytest.approx(expected)
