"""conv2d on the `numba` backend: each convolution by the algorithm that choices.py names for it.

Winograd and the direct kernel take float32 and channels-last memory, and hand out channels-last memory: between layers
nothing is rearranged. A vector not quite full of channels is filled up with zeros; what is left (float64, few
channels, odd strides) goes to im2col.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels import conv2d_direct_numba as direct
from alexnet_np.kernels import conv2d_im2col_numba as im2col
from alexnet_np.kernels import conv2d_space_to_depth_numba as depth
from alexnet_np.kernels import conv2d_winograd_batch_numba as batch
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.image import channels_last, filled_up, framed, packed
from alexnet_np.kernels.cpu.simd import LANES
from alexnet_np.ops.conv2d import Geometry, Gradients, Needs


def compute(
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: Geometry,
    relu: bool = False,
    then: Callable[[Array, slice], None] | None = None,
) -> Array:
    """y, rectified if asked for.

    By Winograd, `then(y, images)` is called for one slice of the batch after another, while that is in the cache; y is
    then channels-last memory (N,OH,OW,F).
    """
    fast = batch.fast_form(x, weight, geometry)
    if fast is not None:
        return batch.forward(x, weight, bias, geometry, fast, relu, then)
    y = _without_winograd(x, weight, bias, geometry)
    return np.maximum(y, 0, out=y) if relu else y


def gradients(dy: Array, x: Array, weight: Array, geometry: Geometry, needs: Needs) -> Gradients:
    if x.dtype == np.float32 and x.size and dy.size and widths(weight, geometry) != weight.shape[:2]:
        return _narrow_gradients(dy, x, weight, geometry, needs)
    fast = batch.fast_form(x, weight, geometry) if dy.size else None
    if fast is None:
        return im2col.gradients(dy, x, weight, geometry, needs)
    flat, yi = channels_last(dy)
    backward = batch.Backward(x, weight, geometry, fast, needs)
    for images in batch.cuts(len(x), yi.image):
        backward.add(flat, yi.skip(images.start), images)
    return backward.gradients()


def _without_winograd(x: Array, weight: Array, bias: Array | None, geometry: Geometry) -> Array:
    F = len(weight)
    if x.dtype != np.float32 or x.size == 0:
        return im2col.compute(x, weight, bias, geometry)
    if widths(weight, geometry) != weight.shape[:2]:
        wide_x, wide_weight, wide_bias = widened(x, weight, bias, geometry)
        return packed(compute(wide_x, wide_weight, wide_bias, geometry)[:, :F])
    y = memory.empty((len(x), *geometry.output, F))
    _direct(x, weight, batch.padded_bias(bias, F), geometry, y)
    return y.transpose(0, 3, 1, 2)


def _narrow_gradients(dy: Array, x: Array, weight: Array, geometry: Geometry, needs: Needs) -> Gradients:
    """Those of the convolution with widened operands, cut to the channels and filters that there are."""
    F, C = weight.shape[:2]
    wide_x, wide_weight, _ = widened(x, weight, None, geometry)
    wide_dy = filled_up(dy, len(wide_weight))
    dx, dweight, dbias = gradients(wide_dy, wide_x, wide_weight, geometry, needs)
    return (
        None if dx is None else packed(dx[:, :C]),
        None if dweight is None else np.ascontiguousarray(dweight[:F, :C]),
        None if dbias is None else dbias[:F],
    )


def widths(weight: Array, geometry: Geometry) -> tuple[int, int]:
    """The filters and channels that a convolution is computed with: those it has, or as many as fill a vector.

    It must be more than half full already: else im2col, which wastes no lanes, is as fast and rounds less.
    """
    (F, C), (SH, SW) = weight.shape[:2], geometry.stride
    if geometry.groups > 1 or SH != SW or SH not in depth.STRIDES or 2 * min(F, C * SH * SW) <= LANES:
        return F, C
    return max(F, LANES), max(C, -(-LANES // (SH * SW)))


def widened(x: Array, weight: Array, bias: Array | None, geometry: Geometry) -> tuple[Array, Array, Array | None]:
    """The operands with channels and filters of zeros added: they change no sum."""
    (F, C), (wide_F, wide_C) = weight.shape[:2], widths(weight, geometry)
    wide_weight = np.pad(weight, ((0, wide_F - F), (0, wide_C - C), (0, 0), (0, 0)))
    return filled_up(x, wide_C), wide_weight, None if bias is None else np.pad(bias, (0, wide_F - F))


def _direct(x: Array, weight: Array, bias: Array, geometry: Geometry, y: Array) -> None:
    top, bottom, left, right = geometry.padding
    framed_x = np.pad(x.transpose(0, 2, 3, 1), ((0, 0), (top, bottom), (left, right), (0, 0)))
    _, H, W, C = framed_x.shape
    direct.forward(
        framed_x.reshape(-1), framed(C, H, W), direct.packed_filters(weight, geometry.groups), bias, 0,
        y.reshape(-1), framed(len(weight), *geometry.output), len(x), weight.shape[1], len(weight) // geometry.groups,
        geometry.kernel, geometry.stride, geometry.dilation, (0, 0), geometry.groups,
    )  # fmt: skip
