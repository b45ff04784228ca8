"""How Winograd cuts images into tiles: where each lies, what of it is inside, and a copy of one that is not.

Tiles are numbered row by row, image by image. Where some are short (winograd_transforms.py), the products at a point
are of those tiles that have it. `place` orders the tiles of some images so that these lie side by side, for any point:

    tall and narrow, tall and wide, low and wide, low and narrow

Nothing here is parallel: each function is of one tile. The tiles: conv2d_winograd_numba.py.
"""

from __future__ import annotations

from typing import NamedTuple

from alexnet_np.kernels.conv2d_winograd_tiles_numba import family
from alexnet_np.kernels.conv2d_winograd_transforms import cut
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
    tall: int  # rows of tiles that are m high, the first ones; the others are one less
    wide: int  # columns that are m wide
    first_row: int = -1  # where the tiles are looked at backwards: the first input, those before it being padding
    first_col: int = -1


def tiling(m: int, r: int, padding: tuple[int, int], yi: Image) -> Tiles:
    """The tiles of outputs of yi's size; padding is (top, left)."""
    down, across = cut(yi.H, m, r), cut(yi.W, m, r)
    counts = (down.tiles, across.tiles, yi.H, yi.W, down.full, across.full)
    return Tiles(m, r, m + r - 1, family(m, r), *padding, *counts)


class Images(NamedTuple):
    """Of a block of images, which is the first, and how many."""

    first: int
    size: int


class Tile(NamedTuple):
    image: int
    h: int  # row and column of its first output
    w: int
    low: int  # whether it is short along rows
    narrow: int  # and along columns
    number: int


@kernel
def begin(m, full, k):
    """The first output of the k-th tile, when the first `full` have m and the others m - 1."""
    return k * m - max(0, k - full)


@kernel
def corner(tiles, t):
    """Of tile t its image, the row and column of its first output, and how many rows and columns of outputs it has."""
    row, col = t // tiles.cols % tiles.rows, t % tiles.cols
    h, w = begin(tiles.m, tiles.tall, row), begin(tiles.m, tiles.wide, col)
    end, right = begin(tiles.m, tiles.tall, row + 1), begin(tiles.m, tiles.wide, col + 1)
    return t // (tiles.rows * tiles.cols), h, w, min(end, tiles.H) - h, min(right, tiles.W) - w


@kernel
def place(tiles, images, k):
    """The k-th tile of `images`, a Tile, in the order that is said above."""
    low, narrow = tiles.rows - tiles.tall, tiles.cols - tiles.wide
    row, rows, col, cols = 0, tiles.tall, tiles.wide, narrow
    if k >= images.size * rows * cols:
        k, col, cols = k - images.size * rows * cols, 0, tiles.wide
        if k >= images.size * rows * cols:
            k, row, rows = k - images.size * rows * cols, tiles.tall, low
            if k >= images.size * rows * cols:
                k, col, cols = k - images.size * rows * cols, tiles.wide, narrow
    image, row, col = images.first + k // (rows * cols), row + k // cols % rows, col + k % cols
    h, w = begin(tiles.m, tiles.tall, row), begin(tiles.m, tiles.wide, col)
    number = (image * tiles.rows + row) * tiles.cols + col
    return Tile(image, h, w, 1 if row >= tiles.tall else 0, 1 if col >= tiles.wide else 0, number)


@kernel
def order(tiles, count, image, row, col):
    """Which tile of `count` images the one in this row and column of the image-th is: `place`, backwards."""
    low, narrow = tiles.rows - tiles.tall, tiles.cols - tiles.wide
    if row < tiles.tall:
        if col >= tiles.wide:
            return (image * tiles.tall + row) * narrow + col - tiles.wide
        return count * tiles.tall * narrow + (image * tiles.tall + row) * tiles.wide + col
    before, row = count * tiles.tall * tiles.cols, row - tiles.tall
    if col < tiles.wide:
        return before + (image * low + row) * tiles.wide + col
    return before + count * low * tiles.wide + (image * low + row) * narrow + col - tiles.wide


@kernel
def having(tiles, count, p):
    """The first tile of `count` images, and the one after the last, that have point p."""
    i, j, last = p // tiles.n, p % tiles.n, tiles.n - 2
    everything = count * tiles.rows * tiles.cols
    first = count * tiles.tall * (tiles.cols - tiles.wide) if j == last else 0
    if i == last:
        return first, count * tiles.tall * tiles.cols
    if j == last:
        return first, everything - count * (tiles.rows - tiles.tall) * (tiles.cols - tiles.wide)
    return 0, everything


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
