"""The gradients of a Winograd convolution: its exact adjoint, step by step backwards.

1. S = A·dY·Aᵀ for every output tile, which both gradients start from.
2. dU = Vᵀ·S summed over the tiles (n² products as in the forward, tiles where channels were); dweight = Gᵀ·dU·G once at
   the end. V is transformed from x a second time: keeping the forward's (463 MB for AlexNet at batch 128) costs more
   time in memory traffic than its arithmetic.
3. dV = S·Uᵀ, and dx += B·dV·Bᵀ over tiles that overlap. A channel's tiles of an image are one thread's, so nobody else
   adds there.
   As a convolution of dy with the filters turned round, dx would need tiles of dy transformed a second way.
4. Tiles of values that are not ordinary add their share as defined: conv2d_winograd_strays_gradients_numba.py.
5. dbias is a sum in three stages, over rows, over an image and over images, which keeps float32 from drifting.

Parallel over tiles while transforming, over points while multiplying, over images and channels while dx is added up.
Where dU is small, two of it are gathered, of every other block of images each, and added up at the end: then a thread
takes blocks through all the steps alone, in memory that no other thread reads (`gather_blocks`). Where two cores do not
share their last cache, what the other one has read lately takes four times as long to write again.
Either way every sum has one owner and one order, which the number of threads does not change.
Source: Lavin and Gray (2015), sec. 4; the adjoint: transpose every factor of y = Aᵀ[(G g Gᵀ) ∘ (Bᵀ d B)]A.
Measured (EPYC Zen 4, both cores, batch 128), both gradients with ReLU's and pooling's, in ms: conv 1 (no dx) 75, conv 2
200, conv 3 123, conv 4 154, conv 5 107. Of all of dweight: V 69, S 53, products 242 (at the arithmetic peak 210).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.conv2d_winograd_points_numba import Points, points_of, transform_tiles
from alexnet_np.kernels.conv2d_winograd_strays_gradients_numba import (
    Marks,
    Real,
    add_to_input,
    add_to_weight,
    clear,
    find,
    outputs_of,
)
from alexnet_np.kernels.conv2d_winograd_strays_numba import Exact, map_room
from alexnet_np.kernels.conv2d_winograd_tiles_numba import (
    Filters,
    family,
    filter_adjoint_tile,
    input_adjoint_tile,
    output_adjoint_tile,
    variant,
)
from alexnet_np.kernels.conv2d_winograd_tiling_numba import (
    Images,
    Tiles,
    copy_patch,
    corner,
    having,
    inside_of,
    order,
    place,
    tiling,
)
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.image import Image, Step
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, POINTER, Emitter, vector_function
from alexnet_np.kernels.gemm_numba import WIDTH, Product, gemm, gemm_transposed, packed_product, padded_width


def emit_column_sums(e: Emitter, x: ir.Value, row: ir.Value, rows: ir.Value, y: ir.Value, channels: ir.Value) -> None:
    """y[c] = sum over i < rows of x[i*row + c]."""

    def body(c: ir.Value) -> None:
        total = e.variable(e.constant(0.0))
        with e.loop(rows) as i:
            e.set(total, e.plus(e.get(total), e.load(x, e.add(e.mul(row, i), c))))
        e.store(e.get(total), y, c)

    e.vectors(channels, body)


column_sums = vector_function("column_sums", (POINTER, INTEGER, INTEGER, POINTER, INTEGER), {0: emit_column_sums})


@kernel
def adjoint_tiles(dy, yi, tiles, F, images, first, last, work, s, patch_at):
    """The output tiles first..last of `images` of dy into S, a Points; beyond the edge dy is zero."""
    m, step = tiles.m, Step(yi.row, yi.col)
    for k in range(first, last):
        image, i, j, low, narrow, _ = place(tiles, images, k)
        at = yi.at + image * yi.image + i * yi.row + j * yi.col
        into, kind = s.at + (k - first) * s.step, variant(tiles.family, low, narrow)
        if i + m - low <= yi.H and j + m - narrow <= yi.W:
            output_adjoint_tile(kind, dy, at, step, work, into, s.point, F)
        else:
            copy_patch(dy, at, step, inside_of(yi, i, j), m, F, work, patch_at)
            output_adjoint_tile(kind, work, patch_at, Step(m * F, F), work, into, s.point, F)


@kernel
def spread_tiles(work, v, tiles, dx, xi, images, image, low, high):
    """dx = sum of B·dV·Bᵀ over the tiles of an image of xi, for `images` dV is v, a Points; the channels low..high."""
    step, begin = Step(xi.row, xi.col), xi.at + (images.first + image) * xi.image + low
    for i in range(xi.H):
        for j in range(xi.W):
            for c in range(high - low):
                dx[begin + i * xi.row + j * xi.col + c] = 0
    for tile in range(tiles.rows * tiles.cols):
        row, col = tile // tiles.cols, tile % tiles.cols
        _, h, w, _, _ = corner(tiles, tile)
        i, j = h - tiles.top, w - tiles.left
        source = v.at + order(tiles, images.size, image, row, col) * v.step + low
        at, kind = begin + i * xi.row + j * xi.col, variant(tiles.n, int(row >= tiles.tall), int(col >= tiles.wide))
        input_adjoint_tile(kind, work, source, v.point, dx, at, step, inside_of(xi, i, j), high - low)


class Part(NamedTuple):
    """Of a group of a convolution's backward, what is wanted."""

    images: int
    C: int
    F: int
    dweight: int  # whether dU is
    add: int  # to what dU holds; 0 overwrites it
    channels: int  # of dx, filled up to whole vectors; 0: it is not wanted


SHARES = 4  # tasks a thread, at least
SOME = 16  # tiles that are transformed at a time
EVEN = 2  # images of a block that threads share are a multiple of it: as many for each of two
SUMS = 2  # that are gathered of a small dU
SMALL = 1 << 20  # floats: such a dU, and V and S of a block, stay in the last cache for each of two threads


class Shared(NamedTuple):
    """What the threads' common workspace holds, in floats: V and S of a block of images, a patch a thread, marks."""

    block: int  # images
    v_point: int  # as Points: from one point to the next
    v_step: int  # and from one tile
    s_at: int
    s_point: int
    s_step: int
    patch_at: int
    patch: int  # from one thread's to the next
    share: int  # of a thread that has all this for itself; 0 where they share it
    strays_at: int


def plan_shared(part: Part, tiles: Tiles, most: int, workers: int, even: int) -> Shared:
    """For blocks of about `most` tiles: of whole images, as many for any number of threads, because dweight is summed
    block by block."""
    of_image, points = tiles.rows * tiles.cols, tiles.n**2
    block = min(part.images, -(-max(1, most // of_image) // even) * even)
    v, s = points_of(block * of_image, part.C), points_of(block * of_image, part.F)
    s_at = points * v.point
    patch_at, patch = s_at + points * s.point, max(points * part.C, tiles.m**2 * part.F)
    return Shared(block, v.point, v.step, s_at, s.point, s.step, patch_at, patch, 0, patch_at + workers * patch)


def slice_of(batch: int, most: int) -> int:
    """How many images of a batch to add at a time, of which about `most` stay in the cache: SUMS parts of even ones, or
    all."""
    return batch if batch <= most else most // (2 * SUMS) * 2 * SUMS or max(1, most)


@kernel
def transform_block(low, high, worker, x, xi, dy, yi, part, tiles, shared, images, work):
    """V and S, in the worker's share, of the tiles low..high of `images`, zeros for strays."""
    at = worker * shared.share
    patch_at = at + shared.patch_at + worker * shared.patch
    if part.dweight:
        v = Points(at + low * shared.v_step, shared.v_point, shared.v_step)
        transform_tiles(x, xi, tiles, part.C, images, low, high, work, v, patch_at)
        clear(work, shared.strays_at, tiles, images, low, high, v, part.C)
    s = Points(at + shared.s_at + low * shared.s_step, shared.s_point, shared.s_step)
    adjoint_tiles(dy, yi, tiles, part.F, images, low, high, work, s, patch_at)
    clear(work, shared.strays_at, tiles, images, low, high, s, part.F)


@block_kernel
def to_points(task, worker, x, xi, dy, yi, part, tiles, shared, images, work):
    """V and S of SOME of the tiles of `images`."""
    low = task * SOME
    high = min(low + SOME, images.size * tiles.rows * tiles.cols)
    transform_block(low, high, worker, x, xi, dy, yi, part, tiles, shared, images, work)


@kernel
def multiply_point(p, at, more, du, du_at, u, part, tiles, shared, images, work):
    """At point p, dU (points, C, s_step), from du_at on, (+)= sum over the tiles of `images` of Vᵀ·S, and dV = S·Uᵀ.

    V and S begin at `at`; `more`: 0 overwrites dU.
    """
    C, F = part.C, part.F
    low, high = having(tiles, images.size, p)
    v_at = at + p * shared.v_point + low * shared.v_step
    s_at = at + shared.s_at + p * shared.s_point + low * shared.s_step
    if part.dweight:
        sums = Product(C, F, high - low, shared.v_step, shared.s_step, shared.s_step, more, 1, 0)
        gemm_transposed(work, v_at, work, s_at, du, du_at + p * C * shared.s_step, sums)
    if part.channels:  # V of this point has done its work: dV takes its place
        product = packed_product(high - low, C, F, shared.s_step, shared.v_step, 0)
        gemm(work, s_at, u, p * ((C + WIDTH - 1) // WIDTH * WIDTH * F), work, v_at, product)


@block_kernel
def multiply(p, _, more, du, du_at, u, part, tiles, shared, images, work):
    """The products at point p; see multiply_point."""
    multiply_point(p, 0, more, du, du_at, u, part, tiles, shared, images, work)


@block_kernel
def gather_blocks(which, worker, x, dy, dx, images_of, du, u, part, tiles, shared, work):
    """All steps of every SUMS-th block of images from `which` on, by one thread in its own share of the workspace: dx,
    and the dU of that number. `images_of`: the Images of x, dy and dx."""
    xi, yi, di = images_of
    at, of_image, du_at = worker * shared.share, tiles.rows * tiles.cols, which * (len(du) // SUMS)
    v = Points(at, shared.v_point, shared.v_step)
    for first in range(which * shared.block, part.images, SUMS * shared.block):
        images = Images(first, min(shared.block, part.images - first))
        count = images.size * of_image
        transform_block(0, count, worker, x, xi, dy, yi, part, tiles, shared, images, work)
        more = part.add if first == which * shared.block else 1
        for p in range(tiles.n * tiles.n):
            multiply_point(p, at, more, du, du_at, u, part, tiles, shared, images, work)
        if part.channels:
            for image in range(images.size):
                spread_tiles(work, v, tiles, dx, di, images, image, 0, part.channels)


@block_kernel
def from_tiles(unit, _, dx, di, part, tiles, shared, images, pieces, work):
    """dx of one of `images`, in one of `pieces` of its channels; images as `di` has it, which are overwritten."""
    vectors, image, piece = part.channels // LANES, unit // pieces, unit % pieces
    low, high = piece * vectors // pieces * LANES, (piece + 1) * vectors // pieces * LANES
    spread_tiles(work, Points(0, shared.v_point, shared.v_step), tiles, dx, di, images, image, low, high)


@block_kernel
def untransform_filters(c, _, du, ldu, filters, dw):
    """dw (F, C, r*r) = Gᵀ·dU·G; the filters are as `dw` has them."""
    F, C, taps_of_one = filters.F, filters.C, filters.r * filters.r
    taps = np.empty(taps_of_one * F, np.float32)
    filter_adjoint_tile(filters.family, du, c * ldu, C * ldu, taps, 0, F, F)
    for f in range(F):
        for k in range(taps_of_one):
            dw[f * filters.step_f + c * filters.step_c + k] = taps[k * F + f]


@block_kernel
def sum_pixels(n, _, dy, yi, first, F, sums):
    """sums (images,F) from image `first` on: each of N images' pixels added up, row by row."""
    row = np.empty(F, np.float32)
    sums[first + n] = 0
    for i in range(yi.H):
        column_sums(0, dy, yi.at + n * yi.image + i * yi.row, yi.col, yi.W, row, 0, F)
        for f in range(F):
            sums[first + n, f] += row[f]


class Call(NamedTuple):
    """Of one call of `Adjoint.add`: where images lie, what is wanted, and the workspace."""

    xi: Image
    yi: Image
    di: Image
    part: Part
    tiles: Tiles
    shared: Shared
    work: Array
    workers: int


class Adjoint:
    """The gradients of one group of a convolution with its input and its weight, from some images after others.

    `u`: what packed_filters(..., adjoint=True) made of the weight, if dx is wanted.
    """

    def __init__(
        self, C: int, F: int, m: int, r: int, padding: tuple[int, int], u: Array | None, dweight: bool
    ) -> None:
        self.C, self.F, self.m, self.r, self.padding, self.u = C, F, m, r, padding, u
        self.size = (m + r - 1) ** 2 * C * padded_width(F)  # of dU
        self.sums = SUMS if self.size <= SMALL else 1
        self.du = memory.empty((self.sums * self.size,)) if dweight else None
        self.begun = False
        self.direct: Array | None = None  # of stray tiles, dweight (F,r,r,C)

    def add(
        self, x: Array, xi: Image, dy: Array, yi: Image, dx: Array, di: Image, images: int, most: int, exact: Exact
    ) -> None:
        """The share of as many images. All are flat; dx, if wanted, has its channels filled up to whole vectors.

        `most`: about how many tiles to have in work at a time. `exact`: its filters as defined.
        """
        if images == 0:
            return
        nothing = np.empty(0, np.float32)
        channels = 0 if self.u is None else whole_vectors(self.C)
        part = Part(images, self.C, self.F, int(self.du is not None), int(self.begun), channels)
        tiles = tiling(self.m, self.r, self.padding, yi)
        du, u = (nothing if array is None else array for array in (self.du, self.u))
        with threads.parallel() as workers:
            shared = plan_shared(part, tiles, most, workers, EVEN if self.sums == 1 else 1)
            count = images * tiles.rows * tiles.cols
            blocks = -(-images // shared.block)
            alone = self._takes_alone(blocks, shared, workers)
            if alone:
                share = shared.patch_at + shared.patch
                shared = shared._replace(patch=0, share=share, strays_at=workers * share)
            if self.du is not None and not self.begun:  # no block may come that would begin it
                self.du[min(blocks, self.sums) * self.size :] = 0
            marks = Marks(count, shared.strays_at, shared.strays_at + count, map_room(outputs_of(tiles, xi)))
            work = threads.scratch(marks.map_at + workers * marks.map_share)
            strays = find(x if part.dweight else None, xi, dy, yi, part, tiles, exact.limit, marks, work)
            if part.channels and exact.limit < 0:  # a filter is not finite, and zero times that is no zero
                u = np.zeros_like(u)
            if alone:
                gather_blocks[SUMS](x, dy, dx, (xi, yi, di), du, u, part, tiles, shared, work)
            else:
                self._add_together(x, dy, dx, du, u, Call(xi, yi, di, part, tiles, shared, work, workers))
            if strays.size and part.channels:
                F, C = exact.weight.shape[:2]
                real = Real(images, F, C, F // exact.groups)
                add_to_input[images](dy, yi, exact.taps, exact.used, real, tiles, strays, dx, di)
            if strays.size and part.dweight:
                self._add_to_weight(x, xi, dy, yi, part, tiles, strays)
        self.begun = True

    def _takes_alone(self, blocks: int, shared: Shared, workers: int) -> bool:
        """Whether each of few threads has as much to do with blocks of its own."""
        small = self.sums == SUMS and shared.patch_at <= 2 * SMALL
        return small and workers <= SUMS and (blocks % SUMS == 0 or blocks > 4 * SUMS)

    def _add_together(self, x: Array, dy: Array, dx: Array, du: Array, u: Array, call: Call) -> None:
        """All threads take one block of images after another through the three steps."""
        part, tiles, shared, work = call.part, call.tiles, call.shared, call.work
        for number, first in enumerate(range(0, part.images, shared.block)):
            here = Images(first, min(shared.block, part.images - first))
            to_points[-(-here.size * tiles.rows * tiles.cols // SOME)](
                x, call.xi, dy, call.yi, part, tiles, shared, here, work
            )
            more = part.add if number < self.sums else 1
            du_at = number % self.sums * self.size
            multiply[tiles.n**2](more, du, du_at, u, part, tiles, shared, here, work)
            if part.channels:
                pieces = min(part.channels // LANES, -(-SHARES * call.workers // here.size))
                from_tiles[here.size * pieces](dx, call.di, part, tiles, shared, here, pieces, work)

    def _add_to_weight(
        self, x: Array, xi: Image, dy: Array, yi: Image, part: Part, tiles: Tiles, strays: Array
    ) -> None:
        if self.direct is None:
            self.direct = np.zeros(self.F * self.r**2 * self.C, np.float32)
        add_to_weight[part.F](x, xi, dy, yi, part, tiles, strays, self.direct)

    def write(self, dweight: Array) -> None:
        """Into dweight (F,C,r,r)."""
        taps, du = self.r**2, self.du
        assert du is not None
        if self.sums == SUMS:
            du[: self.size] += du[self.size :]
        filters = Filters(self.F, self.C, self.C * taps, taps, self.r, family(self.m, self.r))
        with threads.parallel():
            untransform_filters[self.C](du, padded_width(self.F), filters, dweight.reshape(-1))
        if self.direct is not None:
            dweight += self.direct.reshape(self.F, self.r, self.r, self.C).transpose(0, 3, 1, 2)
            self.direct = None


def whole_vectors(channels: int) -> int:
    return -(-channels // LANES) * LANES
