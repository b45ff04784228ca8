"""How Winograd cuts images into tiles: where each lies, what of it is inside, and a copy of one that is not.

Nothing here is parallel: each function is of one tile. The tiles: conv2d_winograd_numba.py.
"""

from __future__ import annotations

from typing import NamedTuple

from alexnet_np.kernels.conv2d_winograd_tiles_numba import family
from alexnet_np.kernels.cpu.image import Image, Inside
from alexnet_np.kernels.cpu.jit import kernel


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
    H: int  # of its outputs
    W: int
    first_row: int = -1  # where the tiles are looked at backwards: the first input, those before it being padding
    first_col: int = -1


def tiling(m: int, r: int, padding: tuple[int, int], yi: Image) -> Tiles:
    """The tiles of outputs of yi's size; padding is (top, left)."""
    return Tiles(m, r, m + r - 1, family(m, r), *padding, -(-yi.H // m), -(-yi.W // m), yi.H, yi.W)


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
