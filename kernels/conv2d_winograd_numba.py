"""Convolution with less arithmetic: stride-1 3x3 and 5x5 by Winograd, and 11x11/4 turned into a 3x3.

1. Lavin and Gray's scheme: cut the output in m x m tiles; transform each n x n input tile (n = m + r - 1); n² matrix
   products over the channels, one a point, replace the r² · m² multiplications; transform back.
2. Fused by block: one thread takes some dozens of tiles through all three steps, so that what lies between them stays
   in its cache, and bias and ReLU cost nothing. Blocks run in parallel.
3. Few tiles, as one small image has: all threads take each step together (conv2d_winograd_few_numba.py).
4. A stride S: S x S pixels become channels (space-to-depth), and an 11x11/4 filter a dense 3x3 of 48 channels.

One family of 7x7 tiles, F(5,3) and F(3,5), fits AlexNet: 55 = 11·5, 27 = 9·3, and 13 = 5 + 4 + 4, two tiles of three
being an output shorter (conv2d_winograd_tiling_numba.py): 361 products an image instead of 441. Channels are the vector
lanes, so images lie channels-last (N,H,W,C). A frame of zeros around the input saves copying tiles at the border.
Tiles whose values are not ordinary are computed as the definition says: conv2d_winograd_strays_numba.py.

Blocks of tiles run in parallel. Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015),
sec. 4; points and matrices: winograd_transforms.py.
Measured (EPYC Zen 4, both cores, batch 32), ms and direct-equivalent GFLOP/s, where the machine's peak is 235:
conv 1 9.6 (560), conv 2 17.9 (800), conv 3 13.4 (535), conv 4 16.7 (575), conv 5 11.0 (580).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels import conv2d_winograd_few_numba as few
from alexnet_np.kernels.conv2d_layer import Layer, each_group
from alexnet_np.kernels.conv2d_winograd_points_numba import (
    Points,
    multiply_tiles,
    points_of,
    transform_tiles,
    write_tile,
)
from alexnet_np.kernels.conv2d_winograd_strays_numba import Exact, map_room, mark_outputs, redo
from alexnet_np.kernels.conv2d_winograd_tiles_numba import Filters, family, transform_filters
from alexnet_np.kernels.conv2d_winograd_tiling_numba import Images, Tiles
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.blocks import block_kernel, findings
from alexnet_np.kernels.cpu.image import Image
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.gemm_numba import WIDTH


class Scratch(NamedTuple):
    """What a thread's share of the workspace holds, in floats: V of a block of tiles, products, a patch, magnitudes.

    After the shares lies a mark a tile.
    """

    share: int
    v_point: int  # as Points: from one point to the next
    v_step: int  # and from one tile
    products_at: int
    products_point: int
    products_step: int
    patch_at: int
    map_at: int
    strays_at: int  # from the beginning of the workspace
    groups: int  # of images
    pieces: int  # of the tiles of a group: a block

    @property
    def blocks(self) -> int:
        return self.groups * self.pieces


def plan_scratch(layer: Layer, tiles: Tiles, block: int, workers: int) -> Scratch:
    """For blocks of about `block` tiles, as many for every thread: of whole images, or of parts of one."""
    N, of_image, points = layer.images, tiles.rows * tiles.cols, tiles.n**2
    needed = -(-N * of_image // block)
    groups = min(N, -(-needed // workers) * workers)
    pieces = max(1, needed // groups)
    if groups * pieces % workers:
        pieces = min(of_image, -(-pieces // workers) * workers)
    most = -(-(-(-N // groups) * of_image) // pieces)
    v, products = points_of(most, layer.C), points_of(most, layer.F)
    products_at = points * v.point
    patch_at = products_at + points * products.point
    map_at = patch_at + points * layer.C
    share = map_at + map_room(tiles)
    room = (products_at, products.point, products.step, patch_at, map_at, share * workers)
    return Scratch(share, v.point, v.step, *room, groups, pieces)


@kernel
def share_of(block, s, count, of_image):
    """The images of a block out of `count`, and which of their tiles are its own: the first, and the one after them."""
    group, piece = block // s.pieces, block % s.pieces
    first, end = group * count // s.groups, (group + 1) * count // s.groups
    size = (end - first) * of_image
    return Images(first, end - first), piece * size // s.pieces, (piece + 1) * size // s.pieces


@block_kernel
def forward_blocks(block, worker, x, u, bias, y, images_of, problem, s, work, found):
    """Some tiles of y = act(conv(x, U) + bias); u is packed by transform_filters.

    `images_of`: x's Image and y's; `problem`: the group, the tiles, and the limit beyond which a value is a stray.

    Strays are marked, and found[0] is 1 where there are any.
    """
    (xi, yi), (group, tiles, limit) = images_of, problem
    of_image, mine = tiles.rows * tiles.cols, worker * s.share
    v, products = Points(mine, s.v_point, s.v_step), Points(mine + s.products_at, s.products_point, s.products_step)
    images, first, last = share_of(block, s, group.images, of_image)
    begin = images.first * of_image
    mark_outputs(x, xi, group, tiles, begin + first, begin + last, limit, work, mine + s.map_at, s.strays_at, found)
    transform_tiles(x, xi, tiles, group.C, images, first, last, work, v, mine + s.patch_at)
    for p in range(tiles.n * tiles.n):
        multiply_tiles(p, images, first, last, u, group, tiles, v, products, work)
    for k in range(first, last):
        at = products.at + (k - first) * products.step
        write_tile(k, images, at, products.point, bias, y, yi, group, tiles, work)


def forward(
    x: Array,
    xi: Image,
    u: Array,
    bias: Array,
    y: Array,
    yi: Image,
    layer: Layer,
    tiles: Tiles,
    block: int,
    exact: Exact,
) -> None:
    """One convolution from Image to Image; `block`: the most tiles of a block; `exact`: what u is made of.

    While a program is recorded, strays are left to whoever reads what it has found.
    """
    count, found = layer.images * tiles.rows * tiles.cols, findings()
    if count == 0:
        return
    with threads.parallel() as workers:
        if workers > 1 and count <= few.FEW * workers:
            marks_at, work = few.forward(x, xi, u, bias, y, yi, layer, tiles, exact.limit, found)
        else:
            s = plan_scratch(layer, tiles, block, workers)
            marks_at, work = s.strays_at, threads.scratch(s.strays_at + count)
            for group, source, target in each_group(layer, xi, yi, u.size):
                problem = group, tiles, exact.limit
                forward_blocks[s.blocks](x, u, bias, y, (source, target), problem, s, work, found)
    if found[0]:
        marks = work[marks_at : marks_at + count]
        redo(x, xi, exact, bias, y, yi, layer, tiles, np.flatnonzero(marks))


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
            transform_filters[-(-filters.F // WIDTH)](flat, filters, u[g * size : (g + 1) * size])
    return u
