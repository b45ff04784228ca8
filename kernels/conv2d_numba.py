"""conv2d on the `numba` backend: each convolution by the algorithm that choices.py names for it.

Winograd and the direct kernel take float32 and channels-last memory, and hand out channels-last memory: between layers
nothing is rearranged. A vector not quite full of channels is filled up with zeros; what is left (float64, few
channels, odd strides) goes to im2col.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import threads
from alexnet_np.backend import Array
from alexnet_np.kernels import choices, memory
from alexnet_np.kernels import conv2d_direct_numba as direct
from alexnet_np.kernels import conv2d_im2col_numba as im2col
from alexnet_np.kernels import conv2d_winograd_gradients_numba as adjoint
from alexnet_np.kernels import conv2d_winograd_numba as winograd
from alexnet_np.kernels import space_to_depth_numba as depth
from alexnet_np.kernels.gemm_numba import WIDTH
from alexnet_np.kernels.image import Image, channels_last, framed
from alexnet_np.kernels.simd import LANES
from alexnet_np.ops.conv2d import Geometry, Gradients, Needs


class Fast(NamedTuple):
    """A Winograd convolution: F(m,r) with stride 1, of x itself or (S > 1) of x with S x S pixels in the channels."""

    m: int
    r: int
    S: int
    C: int  # channels and filters of a group
    F: int
    padding: tuple[int, int]  # top, left; of the folded x: none


def compute(x: Array, weight: Array, bias: Array | None, geometry: Geometry) -> Array:
    N, F = len(x), len(weight)
    if x.dtype != np.float32 or x.size == 0:
        return im2col.compute(x, weight, bias, geometry)
    if widths(weight, geometry) != weight.shape[:2]:
        wide_x, wide_weight, wide_bias = widened(x, weight, bias, geometry)
        return packed(compute(wide_x, wide_weight, wide_bias, geometry)[:, :F])
    y = memory.empty((N, *geometry.output, F))
    padded_bias = np.zeros(F + WIDTH, np.float32)
    padded_bias[:F] = 0 if bias is None else bias
    fast = winograd_for(x, weight, geometry)
    if fast is None:
        _direct(x, weight, padded_bias, geometry, y)
        return y.transpose(0, 3, 1, 2)
    u = transformed(weight, fast, geometry.groups)
    for source, xi, images in sources(x, fast, geometry):
        out = y[images]
        winograd.forward(
            source, xi, u, padded_bias, 0, out.reshape(-1), framed(F, *geometry.output), len(out), fast.C, fast.F,
            fast.m, fast.r, fast.padding, choices.BLOCK_TILES, geometry.groups,
        )  # fmt: skip
    return y.transpose(0, 3, 1, 2)


def gradients(dy: Array, x: Array, weight: Array, geometry: Geometry, needs: Needs) -> Gradients:
    if x.dtype == np.float32 and x.size and dy.size and widths(weight, geometry) != weight.shape[:2]:
        return _narrow_gradients(dy, x, weight, geometry, needs)
    fast = winograd_for(x, weight, geometry) if x.dtype == np.float32 and x.size and dy.size else None
    if fast is None:
        return im2col.gradients(dy, x, weight, geometry, needs)
    _transformed.pop(id(weight), None)  # training: the weights are about to change, and memory is needed
    flat, yi = channels_last(dy)
    dx = _input_gradient(flat, yi, x.shape, weight, geometry, fast) if needs[0] else None
    dweight = _weight_gradient(flat, yi, x, weight, geometry, fast) if needs[1] else None
    return dx, dweight, adjoint.bias_gradient(flat, yi, len(x), len(weight)) if needs[2] else None


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


def filled_up(x: Array, channels: int) -> Array:
    """x (N,C,H,W) with channels of zeros up to `channels`, channels-last."""
    N, C, H, W = x.shape
    if C == channels:
        return x
    wide = memory.empty((N, H, W, channels))
    wide[..., :C] = x.transpose(0, 2, 3, 1)
    wide[..., C:] = 0
    return wide.transpose(0, 3, 1, 2)


def packed(x: Array) -> Array:
    """x (N,C,H,W) as channels-last memory without gaps."""
    if x.transpose(0, 2, 3, 1).flags.c_contiguous:
        return x
    N, C, H, W = x.shape
    last = memory.empty((N, H, W, C))
    last[...] = x.transpose(0, 2, 3, 1)
    return last.transpose(0, 3, 1, 2)


def winograd_for(x: Array, weight: Array, geometry: Geometry) -> Fast | None:
    """How Winograd computes this convolution, or None where the table or its own limits say that it does not."""
    (KH, KW), (SH, SW), G = geometry.kernel, geometry.stride, geometry.groups
    C, F = weight.shape[1] * SH * SW, len(weight) // G
    square = KH == KW and SH == SW and SH in depth.STRIDES and geometry.dilation == (1, 1)
    if not square or min(C, F) < LANES or (SH > 1 and G > 1):
        return None
    conv = choices.Conv(x.shape[1], len(weight), KH, SH, 1, G, geometry.output, len(x))
    choice = choices.choose(conv)
    top, _, left, _ = geometry.padding
    if choice.algorithm != "winograd" or max(top, left) >= choice.r * SH:
        return None
    return Fast(choice.m, choice.r, SH, C, F, (top, left) if SH == 1 else (0, 0))


def folded(weight: Array, fast: Fast) -> Array:
    return depth.filters_to_depth(weight, fast.S) if fast.S > 1 else weight


_transformed: dict[int, tuple[Any, Array, Fast, Array]] = {}  # id of a weight: it, its values then, how, and U


def transformed(weight: Array, fast: Fast, groups: int) -> Array:
    """U, from the last call if the weight still has its values of then: comparing is quicker than transforming.

    An array may be changed in place (an optimizer does), so its identity alone proves nothing.
    """
    reference, values, how, u = _transformed.get(id(weight), (None, None, None, None))
    if reference is not None and reference() is weight and how == fast and np.array_equal(values, weight):
        return u
    u = winograd.packed_filters(folded(weight, fast), fast.m, groups)
    key = id(weight)
    _transformed[key] = (weakref.ref(weight, lambda _: _transformed.pop(key, None)), weight.copy(), fast, u)
    return u


def sources(x: Array, fast: Fast, geometry: Geometry) -> Iterator[tuple[Array, Image, slice]]:
    """(flat channels-last input, its Image, the slice of the batch): all of x, or folded slices that fit the cache."""
    if fast.S == 1:
        flat, image = channels_last(x)
        yield flat, image, slice(0, len(x))
        return
    flat = np.require(x, np.float32, ["C", "W"]).reshape(-1)
    image = framed(fast.C, geometry.output[0] + fast.r - 1, geometry.output[1] + fast.r - 1)
    step = max(1, choices.STAGE_BYTES // (4 * image.image))
    top, _, left, _ = geometry.padding
    d = memory.empty((min(step, len(x)) * image.image,))
    for first in range(0, len(x), step):
        count = min(step, len(x) - first)
        with threads.parallel():
            depth.space_to_depth(flat, first, count, *x.shape[1:], fast.S, top, left, d, image, fast.C)
        yield d, image, slice(first, first + count)


def _direct(x: Array, weight: Array, bias: Array, geometry: Geometry, y: Array) -> None:
    top, bottom, left, right = geometry.padding
    framed_x = np.pad(x.transpose(0, 2, 3, 1), ((0, 0), (top, bottom), (left, right), (0, 0)))
    _, H, W, C = framed_x.shape
    direct.forward(
        framed_x.reshape(-1), framed(C, H, W), direct.packed_filters(weight, geometry.groups), bias, 0,
        y.reshape(-1), framed(len(weight), *geometry.output), len(x), weight.shape[1], len(weight) // geometry.groups,
        geometry.kernel, geometry.stride, geometry.dilation, (0, 0), geometry.groups,
    )  # fmt: skip


def _input_gradient(
    dy: Array, yi: Image, shape: tuple[int, ...], weight: Array, geometry: Geometry, fast: Fast
) -> Array:
    """dx by the forward's code: dy convolved with the filters turned round, channels and filters swapped."""
    N, C, H, W = shape
    inner = (H, W) if fast.S == 1 else (yi.H + fast.r - 1, yi.W + fast.r - 1)
    back = choices.Conv(len(weight), C, fast.r, 1, 1, geometry.groups, inner, N)
    choice = choices.choose(back, direction="backward")
    m = choice.m or fast.m
    u = winograd.packed_filters(folded(weight, fast), m, geometry.groups, turned=True)
    padding = (fast.r - 1 - fast.padding[0], fast.r - 1 - fast.padding[1])
    channels = fast.C * geometry.groups
    bias = np.zeros(channels + WIDTH, np.float32)
    image = framed(channels, *inner)
    step = N if fast.S == 1 else max(1, choices.STAGE_BYTES // (4 * image.image))
    d = memory.empty((min(step, N) * image.image,))
    dx = memory.empty((N, C, H, W)) if fast.S > 1 else None
    top, _, left, _ = geometry.padding
    for first in range(0, N, step):
        count = min(step, N - first)
        winograd.forward(
            dy, yi.skip(first), u, bias, 0, d, image, count, fast.F, fast.C, m, fast.r, padding,
            choices.BLOCK_TILES, geometry.groups,
        )  # fmt: skip
        if dx is not None:
            with threads.parallel():
                depth.depth_to_space(d, image, count, C, H, W, fast.S, top, left, dx[first : first + count].reshape(-1))
    return d.reshape(N, H, W, C).transpose(0, 3, 1, 2) if dx is None else dx


def _weight_gradient(dy: Array, yi: Image, x: Array, weight: Array, geometry: Geometry, fast: Fast) -> Array:
    G = geometry.groups
    total = np.zeros((G * fast.F, fast.C, fast.r, fast.r), np.float32)
    for source, xi, images in sources(x, fast, geometry):
        for g in range(G):
            adjoint.add_weight_gradient(
                source, xi.channels_from(g * fast.C), dy, yi.skip(images.start).channels_from(g * fast.F),
                images.stop - images.start, fast.C, fast.F, fast.m, fast.r, fast.padding, choices.GRADIENT_TILES,
                total[g * fast.F : (g + 1) * fast.F],
            )  # fmt: skip
    return depth.filters_from_depth(total, fast.S, geometry.kernel[0]) if fast.S > 1 else total
