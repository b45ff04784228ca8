"""The same numbers in another order: TensorFlow's layouts, the maps flattened before the first dense layer.

    torch         convolution (F, C, KH, KW)    dense (out, in), inputs in the order C, H, W
    tensorflow    convolution (KH, KW, C, F)    dense (in, out), inputs in the order H, W, C (NHWC, flattened)

A dense layer may also be a convolution over the whole map, (out, C, H, W): the same numbers as (out, C·H·W).
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from alexnet_np.weights.leaves import Shape

BLOCK = 64  # columns that are put in order at a time


def torch_shape(shape: Shape, layout: str) -> Shape:
    """The shape that a weight has in torch's layout."""
    if layout == "torch":
        return shape
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def is_same_layer(have: Shape, want: Shape) -> bool:
    """Whether an array of shape `have`, in torch's layout, holds a weight of shape `want`."""
    return have == want or (len(have) == 4 and len(want) == 2 and (have[0], prod(have[1:])) == want)


def to_torch(array: Any, want: Shape, layout: str, maps: int | None) -> Any:
    """`array` in torch's layout and of shape `want`; without a copy where a view will do.

    `maps`: the filters of the convolution before a dense layer, None for any other. The array may be written to: its
    rows are put into order in place, so that no second copy of the largest layer is needed.
    """
    if layout == "torch":
        return array.reshape(want)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1).reshape(want)
    if maps and array.shape[0] > maps:
        rows_to_chw(array, maps)
    return array.T.reshape(want)


def rows_to_chw(array: Any, maps: int) -> None:
    """The rows of (H·W·C, out) from the order H, W, C to C, H, W, in place."""
    order = np.arange(array.shape[0]).reshape(-1, maps).T.reshape(-1)
    for start in range(0, array.shape[1], BLOCK):
        array[:, start : start + BLOCK] = array[order, start : start + BLOCK]
