"""A detector as an ONNX graph: its network and decoding, NMS behind them, convolutions in eight bits.

onnx and onnxruntime are loaded when a function needs them, not before.
"""

import copy
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from course_lib.detect import decode_scores
from course_lib.ssd import SSD

if TYPE_CHECKING:
    import onnx

OPSET = 20
LARGEST = 2**26  # bytes of a tensor that is computed once, when the file is written
CHAINED = ("Relu", "Clip", "MaxPool", "Add")  # what int8 computes too, where all that goes in comes from convolutions

# What NMS adds to a file, in ONNX's own language. Ties go to the lower index in TopK and NonMaxSuppression alike:
# to the lower class, then to the earlier prior, as in `detect.detect`.
NMS = """
<ir_version: 10, opset_import: ["" : {opset}]>
nms (float[batch, {priors}, 4] prior_boxes, float[batch, {priors}, {classes}] prior_scores)
    => (float[batch, {most}, 4] boxes, float[batch, {most}] scores, int64[batch, {most}] labels)
<int64[1] top_k = {{{top_k}}}, int64[1] most = {{{most}}}, float overlap = {{{iou_threshold}}},
 float least = {{{score_threshold}}}, int64 priors = {{{priors}}}, int64[2] row = {{0, {pairs}}}, int64[1] last = {{2}},
 int64 one = {{1}}, float zero = {{0.0}}>
{{
    by_class = Transpose<perm = [0, 2, 1]>(prior_scores)
    best, place_of_best = TopK<axis = 2>(by_class, top_k)
    size = Shape(by_class)
    nothing = ConstantOfShape(size)
    candidates = ScatterElements<axis = 2>(nothing, place_of_best, best)
    kept = NonMaxSuppression(prior_boxes, candidates, most, overlap, least)
    kept_scores = GatherND(by_class, kept)
    survivors = ScatterND(nothing, kept, kept_scores)
    survivors_in_a_row = Reshape(survivors, row)
    scores, place = TopK(survivors_in_a_row, most)
    found = Greater(scores, zero)
    class = Div(place, priors)
    label = Add(class, one)
    found_as_int = Cast<to = 7>(found)
    labels = Mul(label, found_as_int)
    prior = Mod(place, priors)
    prior_index = Unsqueeze(prior, last)
    box = GatherND<batch_dims = 1>(prior_boxes, prior_index)
    found_as_float = Cast<to = 1>(found)
    found_column = Unsqueeze(found_as_float, last)
    boxes = Mul(box, found_column)
}}
"""


class Decoded(nn.Module):
    """A detector with its decoding: what an ONNX file computes, from pixels to what NMS takes."""

    def __init__(self, model: SSD) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: UInt8[Tensor, "B 3 S S"]) -> tuple[Float[Tensor, "B P 4"], Float[Tensor, "B P classes"]]:
        """The box of every prior, and its score for each class; background's is left out."""
        boxes, scores = decode_scores(*self.model(images), self.model.priors, self.model.scoring)
        return boxes, scores[..., 1:]


def decoded(model: SSD, outputs: tuple[str, str]) -> "onnx.ModelProto":
    """A detector and its decoding as an ONNX graph for any number of images, batch norm folded into convolutions."""
    from onnxscript import optimizer

    model = copy.deepcopy(model).cpu().eval()
    for layer in model.modules():
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            layer.inplace = False  # written into a part of a map, it would become a dozen nodes
    images = torch.zeros(2, 3, model.image_size, model.image_size, dtype=torch.uint8)
    program = torch.onnx.export(
        Decoded(model).eval(),
        (images,),
        input_names=["images"],
        output_names=outputs,
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    # The exporter computes only what is small: weights that batch norm scales would be scaled anew for every picture.
    optimizer.optimize(program.model, input_size_limit=LARGEST, output_size_limit=LARGEST)
    graph = program.model_proto
    for part in (graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.initializer):
        del part.metadata_props[:]  # lines of code with the paths of this machine
    return graph


def with_nms(
    graph: "onnx.ModelProto",
    priors: int,
    classes: int,
    score_threshold: float,
    iou_threshold: float,
    top_k: int,
    max_detections: int,
) -> "onnx.ModelProto":
    """A graph with the outputs `prior_boxes` and `prior_scores`, and NMS behind it."""
    import onnx.compose

    merged = onnx.compose.merge_models(
        graph,
        nms_graph(priors, classes, score_threshold, iou_threshold, top_k, max_detections),
        io_map=[(name, name) for name in ("prior_boxes", "prior_scores")],
    )
    merged.producer_name, merged.producer_version = graph.producer_name, graph.producer_version
    return merged


def nms_graph(
    priors: int, classes: int, score_threshold: float, iou_threshold: float, top_k: int, max_detections: int
) -> "onnx.ModelProto":
    """What `detect.detect` does after decoding, as an ONNX graph; see `export.to_onnx`."""
    import onnx.parser

    text = NMS.format(
        opset=OPSET,
        priors=priors,
        classes=classes,
        pairs=priors * classes,
        score_threshold=float(score_threshold),
        iou_threshold=float(iou_threshold),
        top_k=min(top_k, priors),
        most=min(max_detections, priors * classes),
    )
    return onnx.parser.parse_model(text)


class Calibration:
    """Pictures as onnxruntime's quantiser asks for them."""

    def __init__(self, pictures: Iterable[UInt8[Tensor, "B 3 S S"]]) -> None:
        self.pictures = iter(pictures)

    def get_next(self) -> dict[str, Any] | None:
        images = next(self.pictures, None)
        return None if images is None else {"images": images.numpy()}


def quantised(graph: "onnx.ModelProto", pictures: Iterable[UInt8[Tensor, "B 3 S S"]]) -> "onnx.ModelProto":
    """A graph whose convolutions compute with eight bits, by onnxruntime's static quantiser; the rest stays in float.

    Weights get a scale for each output channel, and each map one scale for all of it: from the lowest and highest
    number that the pictures bring there. Weights use 7 of their 8 bits: processors without instructions of their own
    for it (VNNI) add two products in 16 bits, which 8 bits can overflow. Decoding and scores stay as they are: int8 has
    256 steps, and a box's corner wants finer ones.

    Raises:
        ValueError: there is no picture.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 2; onnxruntime's page "Quantize ONNX models".
    """
    import onnx
    from onnxruntime import quantization

    pictures = iter(pictures)
    first = next(pictures, None)
    if first is None:
        raise ValueError("there is no picture to calibrate with: give some such as the detector will see")
    graph.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # batch norm is folded already
    with TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, before)
        quantization.quantize_static(
            before,
            after,
            Calibration(chain([first], pictures)),
            op_types_to_quantize=["Conv", *CHAINED],
            nodes_to_quantize=convolutional(graph),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        graph = onnx.load(after)
    del graph.metadata_props[:]
    return graph


def convolutional(graph: "onnx.ModelProto") -> list[str]:
    """The names of the nodes up to the heads: convolutions, and what follows from convolutions alone."""
    names, computed, constants = [], set(), {tensor.name for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        chained = node.op_type in CHAINED and all(name in computed for name in node.input if name not in constants)
        if node.op_type == "Conv" or chained:
            names.append(node.name)
            computed.update(node.output)
    return names
