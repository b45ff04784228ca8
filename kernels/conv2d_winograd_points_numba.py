"""Where Winograd keeps V and the products, point by point, and the way of input tiles into V.

Nothing here is parallel. The steps around it: conv2d_winograd_numba.py.
"""

from __future__ import annotations

from typing import NamedTuple

from alexnet_np.kernels.conv2d_winograd_tiles_numba import input_tile, variant
from alexnet_np.kernels.conv2d_winograd_tiling_numba import copy_patch, inside_of, place
from alexnet_np.kernels.cpu.image import Step
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.simd import LANES
from alexnet_np.kernels.gemm_numba import padded_width


class Points(NamedTuple):
    """Where V, S or products lie: channel c of tile t at point p is float at + p*point + t*step + c."""

    at: int
    point: int
    step: int


def points_of(tiles: int, channels: int) -> Points:
    """With a few floats more than the tiles need, so that the points do not all map onto the same cache sets."""
    step = padded_width(channels)
    return Points(0, tiles * step + LANES, step)


@kernel
def transform_tiles(x, xi, tiles, C, images, first, last, work, v, patch_at):
    """The input tiles first..last of `images` into V, a Points; one that leaves the frame is copied first."""
    n, step = tiles.n, Step(xi.row, xi.col)
    for k in range(first, last):
        image, h, w, low, narrow, _ = place(tiles, images, k)
        i, j = h - tiles.top, w - tiles.left
        at = xi.at + image * xi.image + i * xi.row + j * xi.col
        into, kind = v.at + (k - first) * v.step, variant(n, low, narrow)
        bottom, right = i + n - low - xi.H, j + n - narrow - xi.W
        if i >= -xi.before and bottom <= xi.after and j >= -xi.before and right <= xi.after:
            input_tile(kind, x, at, step, work, into, v.point, C)
        else:
            copy_patch(x, at, step, inside_of(xi, i, j), n, C, work, patch_at)
            input_tile(kind, work, patch_at, Step(n * C, C), work, into, v.point, C)
