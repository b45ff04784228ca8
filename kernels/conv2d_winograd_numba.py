"""Convolution with less arithmetic: stride-1 3x3 and 5x5 by Winograd, and 11x11/4 turned into a 3x3.

1. Lavin and Gray's scheme: cut the output in m x m tiles; transform each n x n input tile (n = m + r - 1); n² matrix
   products over the channels, one a point, replace the r² · m² multiplications; transform back.
2. Fused by block: one thread takes some dozens of tiles through all three steps, so that what lies between them stays
   in its cache, and bias and ReLU cost nothing. Blocks run in parallel.
3. A stride S: S x S pixels become channels (space-to-depth), and an 11x11/4 filter a dense 3x3 of 48 channels.

One family of 7x7 tiles, F(5,3) and F(3,5), fits AlexNet: 55 = 11·5, 27 = 9·3, 13 < 3·5. Channels are the vector lanes,
so images lie channels-last (N,H,W,C). A frame of zeros around the input saves the copying of tiles at the border.

Blocks of tiles run in parallel. Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015),
sec. 4; points and matrices: winograd_transforms.py.
Measured (EPYC Zen 4, both cores, batch 32), ms and direct-equivalent GFLOP/s, where the machine's peak is 235:
conv 1 9.6 (560), conv 2 17.9 (800), conv 3 13.4 (535), conv 4 16.7 (575), conv 5 11.0 (580).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.conv2d_layer import Layer, each_group
from alexnet_np.kernels.conv2d_winograd_tiles_numba import Filters, family, input_tile, output_tile, transform_filters
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.image import Image, Inside, Step
from alexnet_np.kernels.cpu.jit import kernel, parallel_kernel
from alexnet_np.kernels.cpu.simd import LANES
from alexnet_np.kernels.gemm_numba import WIDTH, gemm, packed_product, padded_width


class Tiles(NamedTuple):
    """Outputs cut into tiles of m x m, each of n x n inputs: F(m,r) with n = m + r - 1."""

    m: int
    r: int
    n: int
    family: int  # the number that compiled code knows F(m,r) by
    top: int  # padding
    left: int
    rows: int  # of tiles in an image
    cols: int


def tiling(m: int, r: int, padding: tuple[int, int], yi: Image) -> Tiles:
    """The tiles of outputs of yi's size; padding is (top, left)."""
    return Tiles(m, r, m + r - 1, family(m, r), *padding, -(-yi.H // m), -(-yi.W // m))


class Points(NamedTuple):
    """Where V, S or products lie: channel c of tile t at point p is float at + p*point + t*step + c."""

    at: int
    point: int
    step: int


class Scratch(NamedTuple):
    """What a thread's share of the workspace holds, in floats: V of a block of tiles, products, and a patch.

    Flat: Numba takes no tuples of tuples into a parallel loop.
    """

    share: int
    v_point: int  # as Points: from one point to the next
    v_step: int  # and from one tile
    products_at: int
    products_point: int
    products_step: int
    patch_at: int
    blocks: int  # that all tiles are cut into
    workers: int


def plan_scratch(layer: Layer, tiles: Tiles, block: int, workers: int) -> Scratch:
    """For blocks of at most `block` tiles, as many for every thread."""
    count, points = layer.images * tiles.rows * tiles.cols, tiles.n**2
    needed = -(-count // block)
    blocks = min(count, -(-needed // workers) * workers)
    most = -(-count // blocks)
    v, products = points_of(most, layer.C), points_of(most, layer.F)
    products_at = points * v.point
    patch_at = products_at + points * products.point
    share = patch_at + points * layer.C
    return Scratch(share, v.point, v.step, products_at, products.point, products.step, patch_at, blocks, workers)


def points_of(tiles: int, channels: int) -> Points:
    """With a few floats more than the tiles need, so that the points do not all map onto the same cache sets."""
    step = padded_width(channels)
    return Points(0, tiles * step + LANES, step)


@kernel
def corner(tiles, t):
    """Of tile t its image, and the row and column of its first output."""
    return t // (tiles.rows * tiles.cols), t // tiles.cols % tiles.rows * tiles.m, t % tiles.cols * tiles.m


@kernel
def inside_of(image, i, j):
    """Which pixels of a tile that begins at (i,j) lie in an image."""
    return Inside(-i, image.H - i, -j, image.W - j)


@kernel
def copy_patch(x, at, step, inside, side, C, work, patch_at):
    """The side x side pixels at x[at] side by side, with zeros for those outside of the image."""
    for a in range(side):
        for b in range(side):
            pixel = patch_at + (a * side + b) * C
            if inside.top <= a < inside.bottom and inside.left <= b < inside.right:
                source = at + a * step.row + b * step.col
                for c in range(C):
                    work[pixel + c] = x[source + c]
            else:
                for c in range(C):
                    work[pixel + c] = 0


@kernel
def transform_tiles(x, xi, tiles, C, first, last, work, v, patch_at):
    """The input tiles first..last into V, a Points; one that leaves the frame is copied first."""
    n, step = tiles.n, Step(xi.row, xi.col)
    for t in range(first, last):
        image, h, w = corner(tiles, t)
        i, j = h - tiles.top, w - tiles.left
        at = xi.at + image * xi.image + i * xi.row + j * xi.col
        into = v.at + (t - first) * v.step
        if i >= -xi.before and i + n <= xi.H + xi.after and j >= -xi.before and j + n <= xi.W + xi.after:
            input_tile(n, x, at, step, work, into, v.point, C)
        else:
            copy_patch(x, at, step, inside_of(xi, i, j), n, C, work, patch_at)
            input_tile(n, work, patch_at, Step(n * C, C), work, into, v.point, C)


@parallel_kernel
def forward_blocks(x, xi, u, bias, y, yi, group, tiles, s, work):
    """y = act(conv(x, U) + bias), tile block by tile block; u is packed by transform_filters."""
    C, F, shift, relu, kind = group.C, group.F, group.bias_at, group.relu, tiles.family
    count, points = group.images * tiles.rows * tiles.cols, tiles.n * tiles.n
    point_u = (F + WIDTH - 1) // WIDTH * WIDTH * C
    step = Step(yi.row, yi.col)
    for worker in prange(s.workers):
        w = np.int64(worker)
        v = Points(w * s.share, s.v_point, s.v_step)
        products = Points(w * s.share + s.products_at, s.products_point, s.products_step)
        for block in range(w * s.blocks // s.workers, (w + 1) * s.blocks // s.workers):
            first, last = block * count // s.blocks, (block + 1) * count // s.blocks
            transform_tiles(x, xi, tiles, C, first, last, work, v, w * s.share + s.patch_at)
            product = packed_product(last - first, F, C, v.step, products.step, 0)
            for p in range(points):
                into = products.at + p * products.point
                gemm(work, v.at + p * v.point, u, group.filters_at + p * point_u, work, into, product)
            for t in range(first, last):
                image, i, j = corner(tiles, t)
                tile_at = products.at + (t - first) * products.step
                at, inside = yi.at + image * yi.image + i * yi.row + j * yi.col, inside_of(yi, i, j)
                output_tile(kind, work, tile_at, products.point, y, at, step, inside, bias, shift, relu, F)


def forward(
    x: Array, xi: Image, u: Array, bias: Array, y: Array, yi: Image, layer: Layer, tiles: Tiles, block: int
) -> None:
    """One convolution from Image to Image; `block` is the most tiles of a block."""
    if layer.images * tiles.rows * tiles.cols == 0:
        return
    with threads.parallel() as workers:
        s = plan_scratch(layer, tiles, block, workers)
        work = threads.scratch(s.share * workers)
        for group, source, target in each_group(layer, xi, yi, u.size):
            forward_blocks(x, source, u, bias, y, target, group, tiles, s, work)


def packed_filters(weight: np.ndarray, m: int, groups: int = 1, adjoint: bool = False) -> np.ndarray:
    """U for a weight (F,C/groups,r,r): (groups, n², panels, C/groups, WIDTH), flat, the panels being of filters.

    `adjoint`: its transpose for the way back, the panels of channels: (groups, n², panels, F/groups, WIDTH).
    """
    F, C, r, _ = weight.shape
    of_group, taps = F // groups, r * r
    weight = np.require(weight, np.float32, ["C", "W"])
    filters = Filters(of_group, C, C * taps, taps, r, family(m, r))
    if adjoint:
        filters = Filters(C, of_group, taps, C * taps, r, family(m, r))
    size = (m + r - 1) ** 2 * -(-filters.F // WIDTH) * filters.C * WIDTH
    u = memory.empty((groups * size,))
    with threads.parallel():
        for g in range(groups):
            flat = weight[g * of_group : (g + 1) * of_group].reshape(-1)
            transform_filters(flat, filters, u[g * size : (g + 1) * size])
    return u
