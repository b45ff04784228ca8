"""Where Winograd keeps V and products, point by point, and the way of tiles into V, from V to products, and out.

Nothing here is parallel. The steps around it: conv2d_winograd_numba.py.
"""

from __future__ import annotations

from typing import NamedTuple

from alexnet_np.kernels.conv2d_winograd_tiles_numba import input_tile, output_tile, variant
from alexnet_np.kernels.conv2d_winograd_tiling_numba import copy_patch, having, inside_of, place
from alexnet_np.kernels.cpu.image import Step
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.simd import LANES
from alexnet_np.kernels.gemm_numba import WIDTH, gemm, packed_product, padded_width


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


@kernel
def multiply_tiles(p, images, first, last, u, group, tiles, v, products, work):
    """At point p, the products of the tiles first..last of `images`, V's and the products' first ones being `first`; u
    is packed by transform_filters."""
    low, high = having(tiles, images.size, p)
    low, high = max(low, first), min(high, last)
    product = packed_product(max(0, high - low), group.F, group.C, v.step, products.step, 0)
    u_at = group.filters_at + p * ((group.F + WIDTH - 1) // WIDTH * WIDTH * group.C)
    a, c = v.at + p * v.point + (low - first) * v.step, products.at + p * products.point + (low - first) * products.step
    gemm(work, a, u, u_at, work, c, product)


@kernel
def write_tile(k, images, products_at, point, bias, y, yi, group, tiles, work):
    """Tile k of `images` of y = act(conv + bias), out of its products: a number a filter from products_at on, the next
    point's `point` floats further."""
    image, i, j, low, narrow, _ = place(tiles, images, k)
    kind, at = variant(tiles.family, low, narrow), yi.at + image * yi.image + i * yi.row + j * yi.col
    step, inside, shift, relu = Step(yi.row, yi.col), inside_of(yi, i, j), group.bias_at, group.relu
    output_tile(kind, work, products_at, point, y, at, step, inside, bias, shift, relu, group.F)
