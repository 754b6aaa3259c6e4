import onnx.parser
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import many_boxes

from course_lib import onnx_graphs, ssd
from course_lib.detect import detect_one


@settings(max_examples=30)
@given(many_boxes(), st.integers(0, 2**20), st.sampled_from([1.0, 4.0, 30.0]), st.sampled_from([1, 7, 400]))
def test_nms_in_the_file_is_the_nms_of_detect_ties_and_all(boxes, seed, steps, top_k):
    g = torch.Generator().manual_seed(seed)
    boxes = torch.stack([boxes, boxes.flip(0)])
    scores = (torch.rand(*boxes.shape[:2], 3, generator=g) * steps).round() / steps
    limits = {"score_threshold": 0.2, "iou_threshold": 0.45, "top_k": top_k, "max_detections": 25}
    graph = onnx_graphs.nms_graph(len(boxes[0]), 3, **limits)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"prior_boxes": boxes.numpy(), "prior_scores": scores.numpy()})
    outputs = [torch.from_numpy(output) for output in outputs]
    assert outputs[1].shape == (2, min(25, 3 * len(boxes[0])))
    for image in range(2):
        found_boxes, found_scores, found_labels = (output[image] for output in outputs)
        expected = detect_one(boxes[image], torch.nn.functional.pad(scores[image], (1, 0)), **limits)
        count = len(expected.labels)
        assert torch.equal(found_labels[:count], expected.labels)
        assert torch.equal(found_scores[:count], expected.scores)
        assert torch.equal(found_boxes[:count], expected.boxes)
        assert not found_boxes[count:].any() and not found_scores[count:].any() and not found_labels[count:].any()


def test_int8_takes_what_follows_from_convolutions_and_no_step_of_the_decoding():
    text = """<ir_version: 10, opset_import: ["" : 20]>
    net (float[1, 1, 4, 4] images) => (float[1, 1, 4, 4] boxes) <float[1, 1, 1, 1] w = {2.0}, float six = {6.0}> {
        [first] a = Conv(images, w)
        [relu6] b = Clip(a, six)
        [second] c = Conv(b, w)
        [residual] d = Add(c, b)
        [exp] e = Exp(d)
        [shift] f = Add(e, w)
        [clamp] boxes = Clip(f, six)
    }"""
    assert onnx_graphs.convolutional(onnx.parser.parse_model(text)) == ["first", "relu6", "second", "residual"]


def test_nms_in_the_file_takes_a_batch_without_a_picture():
    graph = onnx_graphs.nms_graph(5, 3, 0.1, 0.5, 10, 10)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {"prior_boxes": torch.zeros(0, 5, 4).numpy(), "prior_scores": torch.zeros(0, 5, 3).numpy()}
    assert [output.shape for output in session.run(None, inputs)] == [(0, 10, 4), (0, 10), (0, 10)]


def test_int8_without_a_picture_is_refused():
    with pytest.raises(ValueError, match="no picture to calibrate with"):
        onnx_graphs.quantised(onnx_graphs.nms_graph(5, 3, 0.1, 0.5, 10, 10), [])


@pytest.mark.slow
def test_a_file_computes_what_depends_on_no_picture_once():
    """ssd_lite0 scaled its weights by batch norm for every picture, so int8 left them alone: 13.7 MB of 18.9 stayed."""
    graph = onnx_graphs.decoded(ssd.ssd_lite0(3), ("boxes", "scores")).graph
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"ScatterND", "Range", "Sqrt", "Reciprocal"}
    constants = {tensor.name for tensor in graph.initializer}
    assert all(node.input[1] in constants for node in graph.node if node.op_type == "Conv")
