"""The same numbers in another order: TensorFlow's and Paddle's layouts, maps flattened before the first dense layer.

    torch         convolution (F, C, KH, KW)    dense (out, in), inputs in the order C, H, W
    tensorflow    convolution (KH, KW, C, F)    dense (in, out), inputs in the order H, W, C (NHWC, flattened)
    paddle        convolution (F, C, KH, KW)    dense (in, out), inputs in the order C, H, W

A dense layer may also be a convolution over the whole map, (out, C, H, W): the same numbers as (out, C·H·W). Arrays are
turned as views where that will do, and else in place, some rows at a time: the largest has most of a file's numbers,
and there is to be no second copy of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from alexnet_np.device import array_module
from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.leaves import Leaf, Shape

LAYOUTS = ("torch", "tensorflow", "paddle")
BLOCK = 64  # rows or columns that are put in order at a time


def torch_shape(shape: Shape, layout: str) -> Shape:
    """The shape that a weight has in torch's layout."""
    if layout == "torch" or (layout == "paddle" and len(shape) == 4):
        return shape
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def in_groups(count: int, name: str, array: Any) -> Any:
    """A dense convolution (F,C,KH,KW) as a grouped one (F,C/count,KH,KW).

    Raises WeightsError where numbers between the groups are not zero, and would be lost.
    """
    F, C = array.shape[:2]
    kept = [array[g * F // count : (g + 1) * F // count, g * C // count : (g + 1) * C // count] for g in range(count)]
    lost = int((array != 0).sum()) - sum(int((part != 0).sum()) for part in kept)
    if lost:
        raise WeightsError(
            f"{quoted(name)} looks across the {count} groups: {lost} numbers that are not zero would be lost"
        )
    return array_module(array).concatenate(kept)


def dense(weight: Any, groups: int) -> Any:
    """The other way: zeros where a group does not look."""
    F, C = weight.shape[:2]
    whole = array_module(weight).zeros((F, C * groups, *weight.shape[2:]), weight.dtype)
    for g in range(groups):
        filters = slice(g * F // groups, (g + 1) * F // groups)
        whole[filters, g * C : (g + 1) * C] = weight[filters]
    return whole


def is_same_layer(have: Shape, want: Shape) -> bool:
    """Whether an array of shape `have`, in torch's layout, holds a weight of shape `want`."""
    return have == want or (len(have) == 4 and len(want) == 2 and (have[0], prod(have[1:])) == want)


def turned(leaf: Leaf, want: Shape, layout: str, maps: int | None = None) -> Leaf:
    """The weight in torch's layout and of shape `want`, still unread.

    `maps`: the filters of the convolution before the first dense layer, where this is that layer.
    """
    if layout == "torch" and leaf.shape == want:
        return leaf

    def read() -> Any:
        array = leaf.read() if leaf.is_owned else leaf.read().copy()
        if layout == "tensorflow":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            if array.ndim == 2 and maps:
                _inputs_to_chw(array, maps)
        elif layout == "paddle" and array.ndim == 2:
            array = array.T
        return _flattened(array) if array.ndim == 4 and len(want) == 2 else array.reshape(want)

    return Leaf(want, leaf.dtype, read)


def layered(layers: Mapping[str, Sequence[Leaf]], layout: str) -> dict[str, Leaf]:
    """NAME.weight and NAME.bias, in torch's layout, of layers that have these two in this order."""
    result: dict[str, Leaf] = {}
    maps = None
    for name, (weight, *rest) in layers.items():
        shape = torch_shape(weight.shape, layout)
        result[f"{name}.weight"] = turned(weight, shape, layout, maps)
        result |= {f"{name}.{'bias' if i == 0 else i + 1}": leaf for i, leaf in enumerate(rest)}
        maps = shape[0] if len(shape) == 4 else None
    return result


def _inputs_to_chw(dense: Any, maps: int) -> None:
    """The columns of (out, H·W·C) from the order H, W, C to C, H, W, in place."""
    if dense.shape[1] == maps:
        return
    order = np.arange(dense.shape[1]).reshape(-1, maps).T.reshape(-1)
    for start in range(0, dense.shape[0], BLOCK):
        dense[start : start + BLOCK] = dense[start : start + BLOCK, order]


def _flattened(array: Any) -> Any:
    """(out, C, H, W) as (out, C·H·W), in place where a layer's numbers lie together, in whatever order."""
    order = np.argsort(array.strides, kind="stable")[::-1].tolist()
    memory = array.transpose(order)  # the axes as they lie in memory
    if memory.flags.c_contiguous and order[0] == 0:  # each output's numbers in one piece
        flat = memory.reshape(len(array), -1)
        for start in range(0, len(array), BLOCK):
            flat[start : start + BLOCK] = array[start : start + BLOCK].reshape(-1, flat.shape[1])
        return flat
    if memory.flags.c_contiguous and order == [2, 3, 1, 0]:  # H, W, C and then the outputs, as TensorFlow has them
        flat = memory.reshape(-1, len(array)).T
        _inputs_to_chw(flat, array.shape[1])
        return flat
    return array.reshape(len(array), -1)
