"""Winograd's convolution of few tiles: each of its three steps by all threads, one step after another.

One image of 13x13 has nine tiles, and U is 20 MB: reading U is most of the work. Cut in blocks of tiles, every thread
would read all of it for the sake of a few rows. So a block is

1. a tile on its way into V; as many of them as there are rows of tiles also look for strays in one row;
2. a point: the products of all tiles there, so that its share of U is read by one thread, once;
3. a tile on its way out, with bias and ReLU.

V and the products go from one thread's cache to another's between the steps, 1 MB beside U. Blocks are so small that a
thread that comes late, as one does that slept, still takes its part. The sums are those of the fused blocks
(conv2d_winograd_numba.py), to the bit.

Source: Lavin and Gray (2015), sec. 4. Measured (EPYC Zen 4, both cores, one image, U coming from memory): conv 3, 4, 5
.63 .81 .59 ms, in fused blocks .68 1.00 .70.
"""

from __future__ import annotations

from typing import NamedTuple

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.conv2d_layer import Layer, each_group
from alexnet_np.kernels.conv2d_winograd_points_numba import (
    Points,
    multiply_tiles,
    points_of,
    transform_tiles,
    write_tile,
)
from alexnet_np.kernels.conv2d_winograd_strays_numba import map_room, mark_outputs
from alexnet_np.kernels.conv2d_winograd_tiling_numba import Images, Tiles
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.image import Image

FEW = 61  # tiles a thread: conv 1 of one image on two has as many, so that no fused block is compiled for one image


class Scratch(NamedTuple):
    """What the workspace holds, in floats: V and the products of all tiles; a share for each thread, a patch and
    magnitudes; a mark a tile."""

    v: Points
    products: Points
    shares_at: int
    share: int
    map_at: int  # from the beginning of a share
    strays_at: int


def plan_scratch(layer: Layer, tiles: Tiles, workers: int) -> Scratch:
    count, points = layer.images * tiles.rows * tiles.cols, tiles.n**2
    v = points_of(count, layer.C)
    products = points_of(count, layer.F)._replace(at=points * v.point)
    shares_at = products.at + points * products.point
    patch = points * layer.C
    share = patch + map_room(tiles)
    return Scratch(v, products, shares_at, share, patch, shares_at + workers * share)


@block_kernel
def transform_inputs(k, worker, x, xi, group, tiles, limit, s, work, found):
    """Tile k into V. Strays are marked, and found[0] is 1 where there are any."""
    mine = s.shares_at + worker * s.share
    if k < group.images * tiles.rows:
        first, last = k * tiles.cols, (k + 1) * tiles.cols
        mark_outputs(x, xi, group, tiles, first, last, limit, work, mine + s.map_at, s.strays_at, found)
    v = Points(s.v.at + k * s.v.step, s.v.point, s.v.step)
    transform_tiles(x, xi, tiles, group.C, Images(0, group.images), k, k + 1, work, v, mine)


@block_kernel
def multiply(p, _, u, group, tiles, s, work):
    """The products of all tiles at point p."""
    images = Images(0, group.images)
    multiply_tiles(p, images, 0, group.images * tiles.rows * tiles.cols, u, group, tiles, s.v, s.products, work)


@block_kernel
def transform_outputs(k, _, bias, y, yi, group, tiles, s, work):
    """Tile k of y = act(conv + bias), out of the products."""
    at, images = s.products.at + k * s.products.step, Images(0, group.images)
    write_tile(k, images, at, s.products.point, bias, y, yi, group, tiles, work)


def forward(
    x: Array,
    xi: Image,
    u: Array,
    bias: Array,
    y: Array,
    yi: Image,
    layer: Layer,
    tiles: Tiles,
    limit: float,
    found: Array,
) -> tuple[int, Array]:
    """One convolution; see conv2d_winograd_numba.forward. Gives where the strays' marks lie, and in what."""
    count = layer.images * tiles.rows * tiles.cols
    with threads.parallel() as workers:
        s = plan_scratch(layer, tiles, workers)
        work = threads.scratch(s.strays_at + count)
        for group, source, target in each_group(layer, xi, yi, u.size):
            transform_inputs[count](x, source, group, tiles, limit, s, work, found)
            multiply[tiles.n**2](u, group, tiles, s, work)
            transform_outputs[count](bias, y, target, group, tiles, s, work)
    return s.strays_at, work
