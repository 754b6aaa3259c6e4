"""VOC's rule beside two that compute COCO's, where both mean the same: no two objects of a class near each other."""

import numpy as np
import pytest
from faster_coco_eval.core.coco import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from hypothesis import given, settings
from scenes import far_apart

from course_lib import metrics

CLASSES = ("one", "two", "three")
SIZES = {"small": [0, 32**2], "medium": [32**2, 96**2], "large": [96**2, 1e10]}


def xywh(boxes_px):
    return np.concatenate([boxes_px[:, :2], boxes_px[:, 2:] - boxes_px[:, :2]], axis=1).tolist()


def as_coco(detections, truths):
    images = [{"id": image, "width": 1024, "height": 1024} for image in range(len(truths))]
    objects, rows = [], []
    for image, (found, truth) in enumerate(zip(detections, truths, strict=True)):
        for box, label in zip(xywh(truth.boxes_px.numpy()), truth.labels.tolist(), strict=True):
            row = {"id": len(objects) + 1, "image_id": image, "category_id": label, "bbox": box, "iscrowd": 0}
            objects.append(row | {"area": box[2] * box[3]})
        columns = xywh(found.boxes.numpy() * 1024), found.labels.tolist(), found.scores.tolist()
        for box, label, score in zip(*columns, strict=True):
            rows.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
    categories = [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)]
    truth = COCO({"images": images, "annotations": objects, "categories": categories})
    return truth, truth.loadRes(rows)


def coco_ap(truth, found, label, area, objects):
    """The whole area, as COCO samples it: the best precision at the recall of each object."""
    measured = COCOeval_faster(truth, found, "bbox")
    measured.params.catIds, measured.params.iouThrs = [label], np.array([0.5])
    measured.params.areaRng, measured.params.areaRngLbl = [area], ["area"]
    measured.params.maxDets = [100]
    measured.params.recThrs = np.arange(1, objects + 1) / objects
    measured.evaluate()
    measured.accumulate()
    return measured.eval["precision"].mean()


@settings(deadline=None, max_examples=60)
@given(far_apart())
def test_ap_by_size_is_that_of_faster_coco_eval(scene):
    detections, truths = scene
    if not any(len(found.labels) for found in detections):
        return
    truth, found = as_coco(detections, truths)
    results = metrics.by_size(detections, truths, classes=CLASSES) | {
        "all": metrics.evaluate_voc(detections, truths, classes=CLASSES)
    }
    for size, result in results.items():
        for label, (name, curve) in enumerate(result.curves.items(), start=1):
            assert (result.ap[name] is None) == (curve.objects == 0)
            if curve.objects:
                area = (SIZES | {"all": [0, 1e10]})[size]
                assert result.ap[name] == pytest.approx(coco_ap(truth, found, label, area, curve.objects), abs=1e-6)


LEVELS = np.linspace(0, 1, 101)


def at_101_recalls(curve):
    """AP as COCO samples it, from VOC's curve."""
    return np.mean([curve.precision[curve.recall >= level].max(initial=0.0) for level in LEVELS])


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(far_apart())
def test_curves_are_those_of_torchmetrics(scene):
    from torchmetrics.detection import MeanAveragePrecision

    detections, truths = scene
    measure = MeanAveragePrecision(
        iou_thresholds=[0.5], rec_thresholds=LEVELS.tolist(), class_metrics=True, backend="faster_coco_eval"
    )
    measure.update(
        [{"boxes": d.boxes * 1024, "scores": d.scores, "labels": d.labels} for d in detections],
        [{"boxes": t.boxes_px, "labels": t.labels} for t in truths],
    )
    measured = measure.compute()
    by_label = dict(
        zip(measured["classes"].reshape(-1).tolist(), measured["map_per_class"].reshape(-1).tolist(), strict=True)
    )
    curves = metrics.evaluate_voc(detections, truths, classes=CLASSES).curves
    for label, curve in enumerate(curves.values(), start=1):
        if curve.objects:
            assert at_101_recalls(curve) == pytest.approx(by_label[label], abs=1e-6)
