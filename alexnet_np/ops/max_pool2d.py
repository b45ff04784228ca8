"""Max pooling, windows overlapping where the stride is smaller than the kernel.

    y[n,c,i,j] = max over kh,kw of  xp[n, c, i*SH + kh*DH, j*SW + kw*DW]

with xp the input padded by -inf. The switch of an output is the position, in its window, of the pixel that won.

The trap: overlapping windows share pixels, so a pixel may win several times and its gradients add up.
Ties go to the first pixel in row order and NaN wins over everything, as in torch. With ties="all" every pixel that
equals the maximum gets the whole gradient, as in cuda-convnet (akrizhevsky/cuda-convnet2: cudaconv3/src/conv_util.cu,
kLocalMaxUndo): over an even background, where all of a window is equal, that is as many times as much.
Source: Krizhevsky, Sutskever, Hinton (2012), sec. 3.4; switches: Zeiler and Fergus (2014), sec. 2.1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from alexnet_np.arguments import choice, room
from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module
from alexnet_np.ops.checks import batched, brief, cached, float_arrays, gradient
from alexnet_np.ops.pooling import find_output, find_windows

TIES = ("first", "all")


class Geometry(NamedTuple):
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    output: tuple[int, int]  # OH, OW


class Cache(NamedTuple):
    x: Array
    switches: Array
    geometry: Geometry
    unbatched: bool
    y: Array | None = None  # where ties go to all

    def __repr__(self) -> str:
        return brief(self)


def forward(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    ties: str = "first",
) -> tuple[Array, Cache]:
    """Pool x (N,C,H,W) or (C,H,W) to y (N,C,OH,OW); float32 or float64; `stride` defaults to the kernel.

    OH = floor((H + 2*padding - dilation*(KH-1) - 1) / stride) + 1; with `ceil_mode` rounded up, except that the last
    window must start inside the input or its left padding. `ties`: "first" or "all", see above.
    Raises ShapeError, DtypeError, ArgumentError.
    """
    (x,) = float_arrays("max_pool2d", x=x)
    x, unbatched = batched("max_pool2d", x)
    geometry = find_geometry(x, kernel_size, stride, padding, dilation, ceil_mode)
    padded = (*x.shape[:2], *padded_size(x.shape[2], x.shape[3], geometry))
    room("max_pool2d", "the padded x", padded, x.dtype.itemsize)
    is_shared = choice("max_pool2d", "ties", ties, TIES) == "all"
    y, switches = implementation("max_pool2d", x).compute(x, geometry)
    return (y[0] if unbatched else y), Cache(x, switches, geometry, unbatched, y if is_shared else None)


def backward(dy: Any, cache: Cache) -> Array:
    """dx[p] = sum of dy over the outputs whose switch points at pixel p; with ties to all, of which p is a maximum."""
    x, switches, geometry, unbatched, y = cached("max_pool2d", cache, Cache)
    shape = switches.shape
    dy = gradient("max_pool2d", dy, shape[1:] if unbatched else shape, x)
    dy, pool = dy[None] if unbatched else dy, implementation("max_pool2d", x)
    if y is None:
        dx = pool.gradients(dy, switches, x.shape, geometry)
    else:
        dx = pool.gradients_to_all(dy, x, y, switches, geometry)
    return dx[0] if unbatched else dx


def compute(x: Array, geometry: Geometry) -> tuple[Array, Array]:
    xp = array_module(x)
    padded = pad(x, geometry)
    y = xp.full((*x.shape[:2], *geometry.output), -xp.inf, x.dtype)
    # A window of nothing but -inf has no winner: its switch is its first real pixel, as in torch.
    switches = first_pixels(geometry, xp)[None, None].repeat(x.shape[0], 0).repeat(x.shape[1], 1)
    for k, window in enumerate(offsets(geometry)):
        candidate = padded[:, :, *window]
        wins = (candidate > y) | xp.isnan(candidate)
        xp.copyto(y, candidate, where=wins)
        xp.copyto(switches, switches.dtype.type(k), where=wins)
    return y, switches


def gradients(dy: Array, switches: Array, shape: tuple[int, ...], geometry: Geometry) -> Array:
    xp = array_module(dy)
    N, C, H, W = shape
    PH, PW = geometry.padding
    padded = xp.zeros((N, C, *padded_size(H, W, geometry)), dy.dtype)
    for k, window in enumerate(offsets(geometry)):
        padded[:, :, *window] += xp.where(switches == k, dy, dy.dtype.type(0))
    return padded[:, :, PH : PH + H, PW : PW + W]


def gradients_to_all(dy: Array, x: Array, y: Array, switches: Array, geometry: Geometry) -> Array:
    """dy goes to every pixel that equals the maximum, and where that is NaN to the one at the switch."""
    xp = array_module(dy)
    (PH, PW), (H, W) = geometry.padding, x.shape[2:]
    padded = pad(x, geometry)
    dx = xp.zeros(padded.shape, dy.dtype)
    for k, window in enumerate(offsets(geometry)):
        wins = (padded[:, :, *window] == y) | (switches == k)
        dx[:, :, *window] += xp.where(wins, dy, dy.dtype.type(0))
    return dx[:, :, PH : PH + H, PW : PW + W]


def offsets(geometry: Geometry) -> list[tuple[slice, slice]]:
    """For each position in the window, in row order: where all windows have that pixel in the padded input."""
    (KH, KW), (SH, SW), _, (DH, DW), (OH, OW) = geometry
    return [
        (slice(kh * DH, kh * DH + (OH - 1) * SH + 1, SH), slice(kw * DW, kw * DW + (OW - 1) * SW + 1, SW))
        for kh in range(KH)
        for kw in range(KW)
    ]


def padded_size(H: int, W: int, geometry: Geometry) -> tuple[int, int]:
    """The size that the last window reaches to: with ceil_mode it may hang over the bottom and right edge."""
    (KH, KW), (SH, SW), (PH, PW), (DH, DW), (OH, OW) = geometry
    height = max(H + 2 * PH, (OH - 1) * SH + (KH - 1) * DH + 1)
    width = max(W + 2 * PW, (OW - 1) * SW + (KW - 1) * DW + 1)
    return height, width


def pad(x: Array, geometry: Geometry) -> Array:
    H, W = x.shape[2:]
    PH, PW = geometry.padding
    height, width = padded_size(H, W, geometry)
    if (height, width) == (H, W):
        return x
    xp = array_module(x)
    return xp.pad(x, ((0, 0), (0, 0), (PH, height - H - PH), (PW, width - W - PW)), constant_values=-np.inf)


def switch_dtype(geometry: Geometry) -> type[np.generic]:
    return np.uint8 if geometry.kernel[0] * geometry.kernel[1] <= 256 else np.int32


def first_pixels(geometry: Geometry, xp: Any) -> Array:
    """(OH,OW): the position in each window of its first pixel that is not padding."""
    (KH, KW), stride, padding, dilation, output = geometry
    first = []
    for side in (0, 1):
        start = xp.arange(output[side]) * stride[side] - padding[side]
        first.append(xp.maximum(0, -(start // dilation[side])))  # ceil(-start / dilation), where start is negative
    return (first[0][:, None] * KW + first[1][None, :]).astype(switch_dtype(geometry))


def find_geometry(
    x: Array, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: Any = False
) -> Geometry:
    """Check that the arguments fit together and normalise them."""
    windows = find_windows("max_pool2d", kernel_size, stride, padding, dilation, ceil_mode)
    return Geometry(*windows[:4], find_output("max_pool2d", x.shape, windows))
