"""The gradients of a Winograd convolution: its exact adjoint, step by step backwards.

1. S = A·dY·Aᵀ for every output tile, which both gradients start from.
2. dU = Vᵀ·S summed over the tiles (n² products as in the forward, tiles where channels were); dweight = Gᵀ·dU·G once at
   the end. V is transformed from x a second time: keeping the forward's (463 MB for AlexNet at batch 128) costs more
   time in memory traffic than its arithmetic.
3. dV = S·Uᵀ, and dx += B·dV·Bᵀ over tiles that overlap. An image's tiles are one thread's, so nobody else adds there.
   As a convolution of dy with the filters turned round, dx would need tiles of dy transformed a second way.
4. dbias is a sum in three stages, over rows, over an image and over images, which keeps float32 from drifting.

Parallel over tiles while transforming, over points while multiplying, over images while dx is added up: every sum has
one owner and one order.
Source: Lavin and Gray (2015), sec. 4; the adjoint: transpose every factor of y = Aᵀ[(G g Gᵀ) ∘ (Bᵀ d B)]A.
Measured (EPYC Zen 4, both cores, batch 128), both gradients with ReLU's and pooling's, in ms: conv 1 (no dx) 75, conv 2
200, conv 3 123, conv 4 154, conv 5 107. Of all of dweight: V 69, S 53, products 242 (at the arithmetic peak 210).
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import prange

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.conv2d_winograd_numba import transform_tiles
from alexnet_np.kernels.conv2d_winograd_tiles_numba import (
    filter_adjoint_tile,
    input_adjoint_tile,
    output_adjoint_tile,
)
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.image import Image
from alexnet_np.kernels.cpu.jit import kernel, parallel_kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, POINTER, Emitter, vector_function
from alexnet_np.kernels.gemm_numba import WIDTH, gemm, gemm_transposed, padded_width


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
def adjoint_tiles(dy, yi, first, last, TH, TW, m, r, F, work, s_at, point, lds, patch_at):
    """The output tiles first..last of dy into S (points, tiles, filters); beyond the edge dy is zero."""
    for t in range(first, last):
        image, i, j = t // (TH * TW), t // TW % TH * m, t % TW * m
        at = yi.at + image * yi.image + i * yi.row + j * yi.col
        into = s_at + (t - first) * lds
        if i + m <= yi.H and j + m <= yi.W:
            output_adjoint_tile(10 * m + r, dy, at, yi.row, yi.col, work, into, point, F)
        else:
            for a in range(m):
                for b in range(m):
                    pixel = patch_at + (a * m + b) * F
                    if i + a < yi.H and j + b < yi.W:
                        source = at + a * yi.row + b * yi.col
                        for f in range(F):
                            work[pixel + f] = dy[source + f]
                    else:
                        for f in range(F):
                            work[pixel + f] = 0
            output_adjoint_tile(10 * m + r, work, patch_at, m * F, F, work, into, point, F)


@kernel
def spread_tiles(work, v_at, point, ldv, images, first, TH, TW, m, n, top, left, dx, xi, channels):
    """dx = sum of B·dV·Bᵀ over the tiles of some images from the image `first` on, whose dV (points, tiles, channels)
    begins at v_at."""
    for image in range(images):
        begin = xi.at + (first + image) * xi.image
        for i in range(xi.H):
            for j in range(xi.W):
                for c in range(channels):
                    dx[begin + i * xi.row + j * xi.col + c] = 0
        for tile in range(TH * TW):
            i, j = tile // TW * m - top, tile % TW * m - left
            input_adjoint_tile(
                n, work, v_at + (image * TH * TW + tile) * ldv, point, dx, begin + i * xi.row + j * xi.col,
                xi.row, xi.col, -i, xi.H - i, -j, xi.W - j, channels,
            )  # fmt: skip


@parallel_kernel
def adjoint_blocks(
    x, xi, dy, yi, images, C, F, m, r, top, left, ldv, lds, du, dweight, add, u, dx, di, channels, work, block, patch,
    workers,
):  # fmt: skip
    """Both gradients' share of some images. `dweight`, `channels`: whether dU, and how many channels of dx, are wanted.

    dU (points, C, lds) (+)= sum over tiles of Vᵀ·S, `add` 0 overwriting what was there; dx, images as `di` has it, is
    overwritten. `work` holds V and S of the tiles of `block` images, and a patch a worker.
    """
    n = m + r - 1
    TH, TW = (yi.H + m - 1) // m, (yi.W + m - 1) // m
    tiles = TH * TW
    point_v, point_s = block * tiles * ldv + LANES, block * tiles * lds + LANES
    point_u = (C + WIDTH - 1) // WIDTH * WIDTH * F
    s_at = n * n * point_v
    patch_at = s_at + n * n * point_s
    for start in range(0, images, block):
        here = min(block, images - start)
        first, count = start * tiles, here * tiles
        for worker in prange(workers):
            w = np.int64(worker)
            low, high = w * count // workers, (w + 1) * count // workers
            mine = patch_at + w * patch
            if dweight:
                transform_tiles(
                    x, xi, first + low, first + high, TH, TW, m, n, top, left, C, work, low * ldv, point_v, ldv, mine
                )  # fmt: skip
            adjoint_tiles(
                dy, yi, first + low, first + high, TH, TW, m, r, F, work, s_at + low * lds, point_s, lds, mine
            )  # fmt: skip
        for point in prange(n * n):
            p = np.int64(point)
            v_at, at = p * point_v, s_at + p * point_s
            if dweight:
                more = 1 if start else add
                gemm_transposed(work, v_at, ldv, count, work, at, lds, du, p * C * lds, lds, C, F, more)
            if channels:  # V of this point has done its work: dV takes its place
                gemm(work, at, lds, 1, 0, F, u, p * point_u, work, v_at, ldv, count, C, 0)
        if channels:
            for worker in prange(workers):
                w = np.int64(worker)
                low, high = w * here // workers, (w + 1) * here // workers
                spread_tiles(
                    work, low * tiles * ldv, point_v, ldv, high - low, start + low, TH, TW, m, n, top, left,
                    dx, di, channels,
                )  # fmt: skip


@parallel_kernel
def untransform_filters(du, ldu, m, r, C, F, dw):
    """dw (F, C, r*r) = Gᵀ·dU·G."""
    for channel in prange(C):
        c = np.int64(channel)
        taps = np.empty(r * r * F, np.float32)
        filter_adjoint_tile(10 * m + r, du, c * ldu, C * ldu, taps, 0, F, F)
        for f in range(F):
            for k in range(r * r):
                dw[(f * C + c) * r * r + k] = taps[k * F + f]


@parallel_kernel
def sum_pixels(dy, yi, first, N, F, sums):
    """sums (images,F) from image `first` on: each of N images' pixels added up, row by row."""
    for image in prange(N):
        n = np.int64(image)
        row = np.empty(F, np.float32)
        sums[first + n] = 0
        for i in range(yi.H):
            column_sums(0, dy, yi.at + n * yi.image + i * yi.row, yi.col, yi.W, row, 0, F)
            for f in range(F):
                sums[first + n, f] += row[f]


class Adjoint:
    """The gradients of one group of a convolution with its input and its weight, from some images after others.

    `u`: what packed_filters(..., adjoint=True) made of the weight, if dx is wanted.
    """

    def __init__(
        self, C: int, F: int, m: int, r: int, padding: tuple[int, int], u: Array | None, dweight: bool
    ) -> None:
        self.C, self.F, self.m, self.r, self.padding, self.u = C, F, m, r, padding, u
        self.points = (m + r - 1) ** 2
        self.du = memory.empty((self.points * C * padded_width(F),)) if dweight else None
        self.begun = False

    def add(self, x: Array, xi: Image, dy: Array, yi: Image, dx: Array, di: Image, images: int, tiles: int) -> None:
        """The share of as many images. All are flat; dx, if wanted, has its channels filled up to whole vectors.

        `tiles`: about how many to have in work at a time.
        """
        if images == 0:
            return
        nothing = np.empty(0, np.float32)
        ldv, lds = padded_width(self.C), padded_width(self.F)
        of_image = -(-yi.H // self.m) * -(-yi.W // self.m)
        channels = 0 if self.u is None else whole_vectors(self.C)
        with threads.parallel() as workers:
            block = min(images, -(-max(1, tiles // of_image) // workers) * workers)
            patch = max(self.points * self.C, self.m**2 * self.F)
            work = threads.scratch(self.points * (block * of_image * (ldv + lds) + 2 * LANES) + workers * patch)
            adjoint_blocks(
                x, xi, dy, yi, images, self.C, self.F, self.m, self.r, *self.padding, ldv, lds,
                nothing if self.du is None else self.du, int(self.du is not None), int(self.begun),
                nothing if self.u is None else self.u, dx, di, channels, work, block, patch, workers,
            )  # fmt: skip
        self.begun = True

    def write(self, dweight: Array) -> None:
        """Into dweight (F,C,r,r)."""
        with threads.parallel():
            untransform_filters(self.du, padded_width(self.F), self.m, self.r, self.C, self.F, dweight.reshape(-1))


def whole_vectors(channels: int) -> int:
    return -(-channels // LANES) * LANES
