"""The share of stray tiles in both gradients of a Winograd convolution, as the definition says.

1. `mark_tiles`: a tile is a stray where its inputs are, for the gradient of the weights, or its part of dy
   (conv2d_winograd_strays_numba.py); there V and S are set to zero, which adds nothing to any sum.
2. `add_to_input`, `add_to_weight`: what the strays' outputs give, tap by tap.

Parallel over tiles, over images and over filters: every sum has one owner and one order.
Source: alexnet_np/ops/conv2d.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.conv2d_winograd_strays_numba import GRADIENT_SPREAD, SPREAD, mark
from alexnet_np.kernels.conv2d_winograd_tiles_numba import family
from alexnet_np.kernels.conv2d_winograd_tiling_numba import Tiles, corner, place
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.image import Image
from alexnet_np.kernels.cpu.jit import kernel


class Marks(NamedTuple):
    """Where in the workspace tiles are marked, and where each thread has room for magnitudes."""

    tiles: int
    strays_at: int
    map_at: int
    map_share: int


class Real(NamedTuple):
    """The convolution as defined, where Winograd's has groups as one and filters of zeros."""

    images: int
    F: int  # of all groups
    C: int  # of one
    of_group: int  # filters of one


def outputs_of(tiles: Tiles, xi: Image) -> Tiles:
    """What the tiles' inputs see of the outputs, as if those were inputs: r - 1 more of them on every side."""
    reach = tiles.r - 1
    wide = tiles._replace(n=tiles.m + 2 * reach, top=reach, left=reach, first_row=tiles.top, first_col=tiles.left)
    return wide._replace(H=tiles.top + xi.H, W=tiles.left + xi.W)


@block_kernel
def mark_tiles(block, worker, x, xi, tiles, C, limit, spread, seen, marks, work):
    """1 in work for each stray of the tiles of an image; the others stay as they are."""
    of_image, map_at = tiles.rows * tiles.cols, marks.map_at + worker * marks.map_share
    first = block * of_image
    mark(x, xi, tiles, C, first, first + of_image, limit, spread, seen, work, map_at, marks.strays_at)


@kernel
def clear(work, strays_at, tiles, images, first, last, v, channels):
    """Zeros for the strays among the tiles first..last of `images` in v, a Points."""
    for k in range(first, last):
        if work[strays_at + place(tiles, images, k).number] != 0:
            for p in range(tiles.n * tiles.n):
                at = v.at + p * v.point + (k - first) * v.step
                for c in range(channels):
                    work[at + c] = 0


@block_kernel
def add_to_input(n, _, dy, yi, taps, used, real, tiles, strays, dx, di):
    """dx[o + k] += dy[o,f] * taps[f,k] for the outputs o of the tiles `strays`, in their order."""
    C, r, of_image = real.C, tiles.r, tiles.rows * tiles.cols
    for t in strays:
        if t // of_image == n:
            _, h, w, high, wide = corner(tiles, t)
            for i in range(h, h + high):
                for j in range(w, w + wide):
                    given = yi.at + n * yi.image + i * yi.row + j * yi.col
                    for k in range(r * r):
                        a, b = i + k // r - tiles.top, j + k % r - tiles.left
                        if 0 <= a < di.H and 0 <= b < di.W:
                            pixel = di.at + n * di.image + a * di.row + b * di.col
                            for f in range(real.F):
                                into = pixel + f // real.of_group * C
                                at, factor = (f * r * r + k) * C, dy[given + f]
                                for c in range(C):
                                    if used[k * C + c]:
                                        dx[into + c] += factor * taps[at + c]


@block_kernel
def add_to_weight(f, _, x, xi, dy, yi, part, tiles, strays, total):
    """total (F,r,r,C) += x[o + k] * dy[o,f] for the outputs o of the tiles `strays`, in their order."""
    C, r = part.C, tiles.r
    for t in strays:
        n, h, w, high, wide = corner(tiles, t)
        for i in range(h, h + high):
            for j in range(w, w + wide):
                factor = dy[yi.at + n * yi.image + i * yi.row + j * yi.col + f]
                for k in range(r * r):
                    a, b = i + k // r - tiles.top, j + k % r - tiles.left
                    inside, at = 0 <= a < xi.H and 0 <= b < xi.W, (f * r * r + k) * C
                    pixel = xi.at + n * xi.image + a * xi.row + b * xi.col
                    for c in range(C):  # padding is zeros, and zero times infinity is none
                        total[at + c] += factor * (x[pixel + c] if inside else np.float32(0))


def find(
    x: Array | None, xi: Image, dy: Array, yi: Image, part: Any, tiles: Tiles, limit: float, marks: Marks, work: Array
) -> Array:
    """The strays among the tiles, by number; they are marked in `work`. x: None where only dy counts.

    For callers inside threads.parallel().
    """
    found = work[marks.strays_at : marks.strays_at + marks.tiles]
    found[:] = 0
    images = part.images
    if x is not None:
        mark_tiles[images](x, xi, tiles, part.C, limit, SPREAD, family(tiles.r, tiles.m), marks, work)
    mark_tiles[images](
        dy, yi, outputs_of(tiles, xi), part.F, limit, GRADIENT_SPREAD, family(tiles.n, tiles.r), marks, work
    )
    return np.flatnonzero(found) if found.any() else found[:0].astype(np.int64)
