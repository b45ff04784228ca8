"""A network's layers as plain data (weights/steps.py): to be written into a file, or compared with what a file says.

steps_of(model.leaves())     one step a layer that computes something, in the order they run
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from alexnet_np.arguments import pair
from alexnet_np.errors import ArgumentError
from alexnet_np.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Identity,
    Layer,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Tanh,
)
from alexnet_np.ops.avg_pool2d import find_rule
from alexnet_np.ops.conv2d import find_padding
from alexnet_np.weights.steps import Pads, Step, square, step

SIMPLE = {ReLU: "relu", Tanh: "tanh", Sigmoid: "sigmoid", Flatten: "flatten", Linear: "linear"}


def steps_of(leaves: Iterable[tuple[str, Layer]]) -> tuple[Step, ...]:
    """The steps of (name, layer) pairs. Raises ArgumentError for a layer that no file has a word for."""
    return tuple(_step(name, layer) for name, layer in leaves if not isinstance(layer, Identity))


def comparable(leaves: Iterable[tuple[str, Layer]]) -> tuple[Step, ...]:
    """The same, for comparing with a file: none at all where a layer is one that no file could have."""
    try:
        return steps_of(leaves)
    except ArgumentError:
        return ()


def _step(name: str, layer: Layer) -> Step:
    if type(layer) in SIMPLE:
        return step(SIMPLE[type(layer)], name)
    if isinstance(layer, Conv2d) and pair("Conv2d", "dilation", layer.dilation, 1) == (1, 1):
        return step("conv", name, **_window(layer), groups=layer.groups)
    if isinstance(layer, MaxPool2d) and pair("MaxPool2d", "dilation", layer.dilation, 1) == (1, 1):
        return step("max_pool", name, **_window(layer), ceil=layer.ceil_mode)
    if isinstance(layer, AvgPool2d):
        include_pad, divisor = find_rule(layer.count_include_pad, layer.divisor_override)
        rule = {"ceil": layer.ceil_mode, "include_pad": include_pad, "divisor": divisor}
        return step("avg_pool", name, **_window(layer), **rule)
    if isinstance(layer, AdaptiveAvgPool2d):
        return step("adaptive", name, output_size=layer.output_size)
    if isinstance(layer, LocalResponseNorm):
        return step("lrn", name, **layer.arguments())
    if isinstance(layer, Dropout):
        return step("dropout", name, p=layer.p, scaling="training")
    raise ArgumentError(f"{name}: {layer!r} has no counterpart in other programs' files")


def _window(layer: Conv2d | MaxPool2d | AvgPool2d) -> dict[str, Any]:
    """Stride and padding, both as pairs."""
    if isinstance(layer, Conv2d):
        stride = pair("Conv2d", "stride", layer.stride, 1)
        _, _, KH, KW = layer.weight.shape
        top, bottom, left, right = find_padding(layer.padding, (KH, KW), stride, (1, 1))
        return {"stride": stride, "padding": ((top, bottom), (left, right))}
    kernel = pair("pooling", "kernel_size", layer.kernel_size, 1)
    stride = kernel if layer.stride in (None, ()) else pair("pooling", "stride", layer.stride, 1)
    return {"kernel": kernel, "stride": stride, "padding": _pads(layer.padding)}


def _pads(padding: Any) -> Pads:
    """An int, a pair (height, width), or a pair of pairs ((top, bottom), (left, right))."""
    if isinstance(padding, int):
        return square(padding)
    rows, columns = ((side, side) if isinstance(side, int) else tuple(side) for side in padding)
    return rows, columns
