"""The gradients of a Winograd convolution.

1. dx is a convolution itself, of dy with the filters turned round and their channel axes swapped, so it is the
   forward's code with other filters.
2. dweight is the exact adjoint of the forward, step by step: S = A·dY·Aᵀ for every output tile, dU = Vᵀ·S summed over
   the tiles (n² products as in the forward, tiles where channels were), dweight = Gᵀ·dU·G once at the end.
   V is transformed from x a second time: keeping the forward's (463 MB for AlexNet at batch 128) costs more time in
   memory traffic than its arithmetic, 1% of the step.
3. dbias is a sum in two stages, over an image's pixels and then over images, which keeps float32 from drifting.

Parallel over tiles while transforming, over points of dU while multiplying: every sum has one owner and one order.
Source: Lavin and Gray (2015), sec. 4; the adjoint: transpose every factor of y = Aᵀ[(G g Gᵀ) ∘ (Bᵀ d B)]A.
Measured (EPYC Zen 4, both cores, batch 128), dweight in ms: conv 1 54, conv 2 90, conv 3 71, conv 4 90, conv 5 63.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import prange

from alexnet_np import threads
from alexnet_np.backend import Array
from alexnet_np.kernels import memory
from alexnet_np.kernels.conv2d_winograd_numba import transform_tiles
from alexnet_np.kernels.gemm_numba import gemm_transposed, padded_width
from alexnet_np.kernels.image import Image
from alexnet_np.kernels.jit import kernel, parallel_kernel
from alexnet_np.kernels.simd import INTEGER, LANES, POINTER, Emitter, vector_function
from alexnet_np.kernels.winograd_tiles_numba import filter_adjoint_tile, output_adjoint_tile


def emit_column_sums(
    e: Emitter, x: ir.Value, row: ir.Value, rows: ir.Value, y: ir.Value, channels: ir.Value
) -> None:
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


@parallel_kernel
def accumulate(x, xi, dy, yi, N, C, F, m, r, top, left, ldv, lds, du, ldu, add, work, block, patch, workers):
    """dU (points, C, ldu) (+)= sum over tiles of Vᵀ·S; `add` 0 overwrites what was there.

    `work` holds V and S of a block of tiles and a patch a worker.
    """
    n = m + r - 1
    TH, TW = (yi.H + m - 1) // m, (yi.W + m - 1) // m
    tiles = N * TH * TW
    point_v, point_s = block * ldv + LANES, block * lds + LANES
    s_at = n * n * point_v
    patch_at = s_at + n * n * point_s
    for start in range(0, tiles, block):
        count = min(block, tiles - start)
        for worker in prange(workers):
            w = np.int64(worker)
            low, high = w * count // workers, (w + 1) * count // workers
            mine = patch_at + w * patch
            transform_tiles(
                x, xi, start + low, start + high, TH, TW, m, n, top, left, C, work, low * ldv, point_v, ldv, mine
            )  # fmt: skip
            adjoint_tiles(
                dy, yi, start + low, start + high, TH, TW, m, r, F, work, s_at + low * lds, point_s, lds, mine
            )  # fmt: skip
        for point in prange(n * n):
            p = np.int64(point)
            gemm_transposed(
                work, p * point_v, ldv, count, work, s_at + p * point_s, lds, du, p * C * ldu, ldu, C, F,
                1 if start else add,
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


class WeightGradient:
    """dU of one group of a convolution, gathered from a few images at a time, and what it comes to."""

    def __init__(self, C: int, F: int, m: int, r: int, padding: tuple[int, int]) -> None:
        self.C, self.F, self.m, self.r, self.padding = C, F, m, r, padding
        self.ldu = padded_width(F)
        self.du = memory.empty((self.points * C * self.ldu,))
        self.begun = False

    @property
    def points(self) -> int:
        return (self.m + self.r - 1) ** 2

    def add(self, x: Array, xi: Image, dy: Array, yi: Image, N: int, block: int) -> None:
        """Add N images': x and dy are flat, `block` is the most tiles in work at a time."""
        ldv, lds = padded_width(self.C), self.ldu
        tiles = N * -(-yi.H // self.m) * -(-yi.W // self.m)
        if tiles == 0:
            return
        block = -(-tiles // -(-tiles // block))
        with threads.parallel() as workers:
            patch = max(self.points * self.C, self.m**2 * self.F)
            work = threads.scratch(self.points * (block * (ldv + lds) + 2 * LANES) + workers * patch)
            accumulate(
                x, xi, dy, yi, N, self.C, self.F, self.m, self.r, *self.padding, ldv, lds,
                self.du, self.ldu, int(self.begun), work, block, patch, workers,
            )  # fmt: skip
        self.begun = True

    def write(self, dweight: Array) -> None:
        """Into dweight (F,C,r,r)."""
        with threads.parallel():
            untransform_filters(self.du, self.ldu, self.m, self.r, self.C, self.F, dweight.reshape(-1))
