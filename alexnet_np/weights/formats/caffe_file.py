""".caffemodel: a NetParameter of Caffe, of any of its three generations, with its layers and their numbers.

An array is called after its layer, `conv1.weight` and `conv1.bias` (Caffe's blobs 0 and 1). Before 2015 a blob had four
axes: a bias was 1x1x1xN, a dense weight 1x1xMxN; the leading ones go. If any of the four numbers is there they are the
shape, else `shape` is. If double_data is not empty it is meant, else data; NVIDIA's raw_data may be halves.

The layers come as steps: what tells bvlc_alexnet from CaffeNet is the order of LRN and pooling, no shape does.

Source: BVLC/caffe, src/caffe/blob.cpp (FromProto), src/caffe/util/upgrade_proto.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.formats.caffe_schema import messages
from alexnet_np.weights.formats.protobuf import Parsed
from alexnet_np.weights.leaves import Contents, Leaf, Run, Shape, numbers
from alexnet_np.weights.source import Source
from alexnet_np.weights.steps import Pads, Step, step

RAW_TYPES = {0: "float64", 1: "float32", 2: "float16"}
V1_TYPES = {
    4: "Convolution",
    6: "Dropout",
    8: "Flatten",
    14: "InnerProduct",
    15: "LRN",
    17: "Pooling",
    18: "ReLU",
    19: "Sigmoid",
    20: "Softmax",
    21: "SoftmaxWithLoss",
    23: "TanH",
}
V0_TYPES = {
    "conv": "Convolution",
    "dropout": "Dropout",
    "flatten": "Flatten",
    "innerproduct": "InnerProduct",
    "lrn": "LRN",
    "padding": "Padding",
    "pool": "Pooling",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "softmax_loss": "SoftmaxWithLoss",
    "tanh": "TanH",
}
ACTIVATIONS = {"ReLU": "relu", "Sigmoid": "sigmoid", "TanH": "tanh", "Flatten": "flatten", "Softmax": "softmax"}
TRAIN = 0


class Layer(NamedTuple):
    """A layer of whatever generation."""

    name: str
    type: str
    message: Any  # with convolution_param and so on; of the first generation with these numbers directly
    generation: int
    bottoms: list[str]


def read(source: Source) -> Contents:
    """What Caffe saved. Raises WeightsError, MissingPackageError."""
    parsed = Parsed(source, messages()["NetParameter"])
    layers = list(_layers(parsed.message))
    tree: dict[str, Leaf] = {}
    for layer in layers:
        for i, blob in enumerate(layer.message.blobs):
            name = f"{layer.name}.{('weight', 'bias')[i] if i < 2 else i}"
            if name in tree:
                raise WeightsError(f"damaged: two layers are called {quoted(layer.name)}")
            tree[name] = _leaf(parsed, layer, i, blob)
    generation = max((layer.generation for layer in layers), default=2)
    metadata = {"name": parsed.message.name} if parsed.message.name else {}
    what = f".caffemodel of Caffe, V{generation} layers"
    return Contents(what, tree, tuple(_steps(layers)), input=_input(parsed.message), metadata=metadata)


def _input(net: Any) -> tuple[int, ...] | None:
    """(C, H, W) as a file for testing has it, in one of three ways; a snapshot of training has none."""
    shapes = [list(net.input_dim[:4]), *(list(shape.dim) for shape in net.input_shape)]
    shapes += [list(shape.dim) for layer in net.layer for shape in layer.input_param.shape]
    return next((tuple(shape[1:]) for shape in shapes if len(shape) == 4 and min(shape) > 0), None)


def _layers(net: Any) -> Iterator[Layer]:
    for message in net.layers:
        if message.HasField("layer"):
            inner = message.layer
            yield Layer(inner.name, V0_TYPES.get(inner.type, inner.type), inner, 0, list(message.bottom))
        else:
            yield Layer(message.name, V1_TYPES.get(message.type, str(message.type)), message, 1, list(message.bottom))
    for message in net.layer:
        yield Layer(message.name, message.type, message, 2, list(message.bottom))


def _leaf(parsed: Parsed, layer: Layer, i: int, blob: Any) -> Leaf:
    run, dtype = _numbers(parsed, blob)
    old = [getattr(blob, axis) for axis in ("num", "channels", "height", "width")]
    is_old = any(blob.HasField(axis) for axis in ("num", "channels", "height", "width"))
    shape = tuple(old if is_old else blob.shape.dim)
    if any(n < 0 for n in shape) or prod(shape) * np.dtype(dtype).itemsize != run.nbytes:
        raise WeightsError(f"damaged: a blob of {quoted(layer.name)} claims shape {shape} and has {run.nbytes} bytes")
    if is_old and (i or layer.type == "InnerProduct"):
        axes = 1 if i else 2
        shape = shape[4 - axes :] if prod(shape[: 4 - axes]) == 1 else shape
    turned = i == 0 and layer.generation == 2 and layer.message.inner_product_param.transpose
    return Leaf(shape[::-1] if turned else shape, dtype, partial(_array, run, dtype, shape, turned))


def _numbers(parsed: Parsed, blob: Any) -> tuple[Run, str]:
    """Where the numbers of a blob are, and of what dtype."""
    if blob.double_data:
        return parsed.run(blob.double_data), "float64"
    if blob.data or not blob.raw_data:
        return parsed.run(blob.data), "float32"
    if blob.raw_data_type not in RAW_TYPES:
        raise WeightsError(f"damaged: raw numbers of type {blob.raw_data_type}")
    return parsed.run(blob.raw_data), RAW_TYPES[blob.raw_data_type]


def _array(run: Run, dtype: str, shape: Shape, turned: bool) -> np.ndarray:
    array = numbers(run.array(), dtype).reshape(shape)
    return array.T if turned else array


def _steps(layers: list[Layer]) -> Iterator[Step]:
    """The layers that compute something in testing. A padding layer of 2013 is the next one's padding."""
    pad, found = 0, list[Step]()
    taken = {bottom for layer in layers if layer.type != "Silence" for bottom in layer.bottoms}
    towers: dict[str, int] = {}  # the blobs that Slice parts the maps into -> how many of them
    for layer in layers:
        if layer.type == "Padding":
            pad = layer.message.pad
            continue
        if layer.type in ACTIVATIONS:
            found.append(step(ACTIVATIONS[layer.type], layer.name))
        elif layer.type == "SoftmaxWithLoss":
            found.append(step("softmax", layer.name))
        elif layer.type == "LRN" and layer.bottoms and layer.bottoms[0] in towers:
            if found[-1].kind != "lrn" or found[-1].settings["groups"] == 1:
                each = _step(layer)
                found.append(each._replace(settings={**each.settings, "groups": towers[layer.bottoms[0]]}))
        elif layer.type in ("Convolution", "Pooling", "LRN", "InnerProduct", "Dropout"):
            found.append(_old_step(layer, pad) if layer.generation == 0 else _step(layer))
        elif layer.type == "Slice" and layer.generation == 2:
            axis, tops = _given(layer.message.slice_param, "axis", 1), list(layer.message.top)
            if axis == 1:
                towers |= dict.fromkeys(tops, len(tops))
            elif found and found[-1].kind in ("conv", "max_pool", "avg_pool") and axis in (2, 3):
                kept = next((i for i, top in enumerate(tops) if top in taken), 0)
                found[-1] = _cropped(found[-1], axis - 2, kept, list(layer.message.slice_param.slice_point))
        pad = 0
    yield from found


def _cropped(each: Step, axis: int, kept: int, points: list[int]) -> Step:
    """A layer from whose maps Slice keeps one piece: it begins later, or has fewer rows or columns."""
    if kept > len(points):
        return each
    settings = dict(each.settings)
    first = points[kept - 1] if kept else 0
    padding, counts = list(settings["padding"]), list(settings.get("counts", (None, None)))
    before, after = padding[axis]
    padding[axis] = (before - first * settings["stride"][axis], after)
    counts[axis] = points[kept] - first if kept < len(points) else None
    return each._replace(settings=settings | {"padding": tuple(padding), "counts": tuple(counts)})


def _step(layer: Layer) -> Step:
    if layer.type == "Convolution":
        p = layer.message.convolution_param
        stride = _pair(p, "stride", 1)
        return step("conv", layer.name, stride=stride, padding=_pads(_pair(p, "pad", 0)), groups=_given(p, "group", 1))
    if layer.type == "Pooling":
        p = layer.message.pooling_param
        kernel, stride, pads = _pair(p, "kernel_size", 1), _pair(p, "stride", 1), _pads(_pair(p, "pad", 0))
        kind = "max_pool" if p.pool == 0 else "avg_pool"
        return step(kind, layer.name, kernel=kernel, stride=stride, padding=pads, ceil=p.round_mode == 0)
    if layer.type == "LRN":
        p = layer.message.lrn_param
        return _lrn(layer.name, p, "within" if p.norm_region == 1 else "across")
    if layer.type == "Dropout":
        return step(
            "dropout", layer.name, p=_given(layer.message.dropout_param, "dropout_ratio", 0.5), scaling="training"
        )
    return step("linear", layer.name)


def _old_step(layer: Layer, pad: int) -> Step:
    """Of the first generation, where a layer has all parameters itself."""
    p = layer.message
    stride = (_given(p, "stride", 1),) * 2
    pads = _pads((p.pad or pad,) * 2)
    if layer.type == "Convolution":
        return step("conv", layer.name, stride=stride, padding=pads, groups=_given(p, "group", 1))
    if layer.type == "Pooling":
        kind = "max_pool" if p.pool == 0 else "avg_pool"
        return step(kind, layer.name, kernel=(p.kernelsize,) * 2, stride=stride, padding=pads, ceil=True)
    if layer.type == "LRN":
        return _lrn(layer.name, p, "across")
    if layer.type == "Dropout":
        return step("dropout", layer.name, p=_given(p, "dropout_ratio", 0.5), scaling="training")
    return step("linear", layer.name)


def _lrn(name: str, p: Any, region: str) -> Step:
    constants = {"alpha": _given(p, "alpha", 1.0), "beta": _given(p, "beta", 0.75), "k": _given(p, "k", 1.0)}
    exact = {key: float(f"{value:.7g}") for key, value in constants.items()}  # float32's digits, as they were written
    if region == "within":
        exact["k"] = 1.0  # which Caffe takes there, whatever is written
    return step("lrn", name, size=_given(p, "local_size", 5), **exact, convention="caffe", region=region, groups=1)


def _given(message: Any, field: str, default: Any) -> Any:
    return getattr(message, field) if message.HasField(field) else default


def _pair(message: Any, field: str, default: int) -> tuple[int, int]:
    """Height and width: one number for both, one each, or under names of their own."""
    short = field.removesuffix("_size")
    if message.HasField(f"{short}_h") or message.HasField(f"{short}_w"):
        return getattr(message, f"{short}_h"), getattr(message, f"{short}_w")
    value = getattr(message, field)
    values = list(value) if not isinstance(value, int) else [value] if message.HasField(field) else []
    return (values[0], values[-1]) if values else (default, default)


def _pads(pair: tuple[int, int]) -> Pads:
    return ((pair[0], pair[0]), (pair[1], pair[1]))
