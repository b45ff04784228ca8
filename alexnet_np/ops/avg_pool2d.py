"""Average pooling: each output the mean of its window, the subsampling of LeNet-5.

    y[n,c,i,j] = 1/divisor[i,j] * sum over kh,kw of  xp[n, c, i*SH + kh, j*SW + kw]

with xp the input padded by 0. The divisor is the pixels of the window that lie in the input or its padding; without
`count_include_pad` those in the input alone; with `divisor_override` that number.

The trap: a window of `ceil_mode` that hangs over the padding does not count what hangs over, so the divisors at the
edge differ. Caffe's average pooling counts as torch does with `count_include_pad`.
Source: LeCun, Bottou, Bengio, Haffner (1998), sec. II.A; there the mean has a trained factor and bias.
torch: aten/src/ATen/native/cpu/AvgPoolKernel.cpp, for the divisors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from alexnet_np.arguments import flag, integer, room
from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module
from alexnet_np.errors import ArgumentError
from alexnet_np.ops.checks import batched, brief, cached, float_arrays, gradient
from alexnet_np.ops.pooling import Pair, find_output, find_windows


class Geometry(NamedTuple):
    kernel: Pair
    stride: Pair
    padding: Pair
    output: Pair  # OH, OW
    include_pad: bool
    divisor: int  # 0: as many as the pixels


class Cache(NamedTuple):
    x: Array
    geometry: Geometry
    unbatched: bool

    def __repr__(self) -> str:
        return brief(self)


def forward(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> tuple[Array, Cache]:
    """Pool x (N,C,H,W) or (C,H,W) to y (N,C,OH,OW); float32 or float64; `stride` defaults to the kernel.

    OH = floor((H + 2*padding - KH) / stride) + 1; with `ceil_mode` rounded up, except that the last window must start
    inside the input or its left padding. Raises ShapeError, DtypeError, ArgumentError.
    """
    (x,) = float_arrays("avg_pool2d", x=x)
    x, unbatched = batched("avg_pool2d", x)
    geometry = find_geometry(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    padded = (*x.shape[:2], *padded_size(x.shape, geometry))
    room("avg_pool2d", "the padded x", padded, x.dtype.itemsize)
    y = implementation("avg_pool2d", x).compute(x, geometry)
    return (y[0] if unbatched else y), Cache(x, geometry, unbatched)


def backward(dy: Any, cache: Cache) -> Array:
    """dx[p] = sum of dy / divisor over the windows that hold pixel p."""
    x, geometry, unbatched = cached("avg_pool2d", cache, Cache)
    shape = (*x.shape[:2], *geometry.output)
    dy = gradient("avg_pool2d", dy, shape[1:] if unbatched else shape, x)
    dx = implementation("avg_pool2d", x).gradients(dy[None] if unbatched else dy, x.shape, geometry)
    return dx[0] if unbatched else dx


def compute(x: Array, geometry: Geometry) -> Array:
    xp = array_module(x)
    (PH, PW), (height, width) = geometry.padding, padded_size(x.shape, geometry)
    H, W = x.shape[2:]
    padded = xp.pad(x, ((0, 0), (0, 0), (PH, height - H - PH), (PW, width - W - PW)))
    y = xp.zeros((*x.shape[:2], *geometry.output), x.dtype)
    for window in offsets(geometry):
        y += padded[:, :, *window]
    y /= xp.asarray(divisors(geometry, x.shape), x.dtype)
    return y


def gradients(dy: Array, shape: tuple[int, ...], geometry: Geometry) -> Array:
    xp = array_module(dy)
    N, C, H, W = shape
    PH, PW = geometry.padding
    share = dy / xp.asarray(divisors(geometry, shape), dy.dtype)
    padded = xp.zeros((N, C, *padded_size(shape, geometry)), dy.dtype)
    for window in offsets(geometry):
        padded[:, :, *window] += share
    return padded[:, :, PH : PH + H, PW : PW + W]


def divisors(geometry: Geometry, shape: tuple[int, ...]) -> np.ndarray:
    """(OH,OW), float64: what each window's sum is divided by, for an input of `shape` (N,C,H,W)."""
    if geometry.divisor:
        return np.full(geometry.output, float(geometry.divisor))
    counts = []
    for side, size in enumerate(shape[2:]):
        before = geometry.padding[side]
        start = np.arange(geometry.output[side]) * geometry.stride[side] - before
        stop = np.minimum(start + geometry.kernel[side], size + (before if geometry.include_pad else 0))
        counts.append(stop - (start if geometry.include_pad else np.maximum(start, 0)))
    return counts[0][:, None] * counts[1][None, :].astype(np.float64)


def offsets(geometry: Geometry) -> list[tuple[slice, slice]]:
    """For each position in the window, in row order: where all windows have that pixel in the padded input."""
    (KH, KW), (SH, SW), _, (OH, OW), *_ = geometry
    return [
        (slice(kh, kh + (OH - 1) * SH + 1, SH), slice(kw, kw + (OW - 1) * SW + 1, SW))
        for kh in range(KH)
        for kw in range(KW)
    ]


def padded_size(shape: tuple[int, ...], geometry: Geometry) -> Pair:
    """The size that the last window reaches to: with ceil_mode it may hang over the bottom and right edge."""
    (KH, KW), (SH, SW), (PH, PW), (OH, OW), *_ = geometry
    return max(shape[2] + 2 * PH, (OH - 1) * SH + KH), max(shape[3] + 2 * PW, (OW - 1) * SW + KW)


def find_geometry(
    x: Array,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: Any = False,
    count_include_pad: Any = True,
    divisor_override: Any = None,
) -> Geometry:
    """Check that the arguments fit together and normalise them."""
    windows = find_windows("avg_pool2d", kernel_size, stride, padding, ceil_mode=ceil_mode)
    rule = find_rule(count_include_pad, divisor_override)
    return Geometry(*windows[:3], find_output("avg_pool2d", x.shape, windows), *rule)


def find_rule(count_include_pad: Any, divisor_override: Any) -> tuple[bool, int]:
    """What a sum is divided by: whether the padding counts, and the number in its stead, 0 where there is none."""
    include = flag("avg_pool2d", "count_include_pad", count_include_pad)
    if divisor_override is None:
        return include, 0
    divisor = integer("avg_pool2d", "divisor_override", divisor_override)
    if divisor == 0:
        raise ArgumentError("avg_pool2d: divisor_override must not be 0; None divides by the pixels of the window")
    return include, divisor
