"""The fully connected layer on packed weights: y (M,N) = act(x (M,K) · weightᵀ + bias).

1. Packed once: panels of WIDTH output units, K rows each, so that the weights are read front to back, once a call.
   With few rows the time is that of reading them; the microkernel with one row is the matrix-vector product.
2. Blocked over K: with many rows, a slice of x and a slice of a panel stay in the second-level cache while all rows
   of x use them.

3. On weights as they are (`compute`, `gradients`): a slice of a panel at a time is packed, transposed where it must be,
   into the cache of the thread that multiplies it at once. Training changes the weights too often to pack them ahead.

Panels are divided among the threads. Source: Goto and van de Geijn (2008), sec. 4.
Measured (EPYC Zen 4, both cores), fc6, packed: batch 1 4.0 ms = 38 GB/s, batch 32 12.1 ms = 200 GFLOP/s, batch 128
43 ms = 225 GFLOP/s; NumPy takes 5.0 ms at batch 1, 20 at batch 16 (ours 5.9), 60 at batch 128.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import prange

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.jit import kernel, parallel_kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, MACHINE, POINTER, Emitter, vector_function
from alexnet_np.kernels.gemm_numba import ROWS, WIDTH, gemm, gemm_transposed, padded_width, tile
from alexnet_np.kernels.problems import Problem
from alexnet_np.ops import linear as array_version
from alexnet_np.ops.linear import Gradients, Needs

BLOCK_K = 256  # rows of a panel in work at a time
BLOCK_PANELS = 8  # panels packed at once where a panel's rows lie far apart: so rows are read in runs of 1 KB


def emit_transpose(e: Emitter, rows: ir.Value, stride: ir.Value, columns: ir.Value) -> None:
    """columns[k*WIDTH + f] = rows[f*stride + k] for LANES x LANES floats, by log2(LANES) perfect shuffles."""
    square = [e.load(rows, e.mul(stride, f)) for f in range(LANES)]
    half = LANES // 2
    for _ in range(LANES.bit_length() - 1):
        pairs = zip(square[:half], square[half:], strict=True)
        square = [e.interleave(a, b, first) for a, b in pairs for first in (0, half)]
    for k in range(LANES):
        e.store(square[k], columns, k * WIDTH)


transpose = vector_function("linear_transpose", (POINTER, INTEGER, POINTER), {0: emit_transpose})


def emit_scatter(e: Emitter, row: ir.Value, count: ir.Value, panels: ir.Value, step: ir.Value) -> None:
    """panels[p*step + f] = row[p*WIDTH + f] for p < count, f < WIDTH."""
    with e.loop(count) as p:
        source, target = e.at(row, e.mul(p, WIDTH)), e.at(panels, e.mul(p, step))
        for f in range(0, WIDTH, LANES):
            e.store(e.load(source, f), target, f)


scatter = vector_function("linear_scatter", (POINTER, INTEGER, POINTER, INTEGER), {0: emit_scatter})


@kernel
def pack_panel(weight, p, first, depth, N, K, packed, at):
    """Columns first..first+depth of the WIDTH rows of `weight` (N,K) from p*WIDTH on, transposed; zeros beyond N."""
    units = min(WIDTH, N - p * WIDTH)
    squares, whole = units // LANES * LANES, depth - depth % LANES
    for k in range(0, whole, LANES):
        for f in range(0, squares, LANES):
            transpose(0, weight, (p * WIDTH + f) * K + first + k, K, packed, at + k * WIDTH + f)
    for f in range(WIDTH):
        for k in range(whole if f < squares else 0, depth):
            value = weight[(p * WIDTH + f) * K + first + k] if f < units else np.float32(0)
            packed[at + k * WIDTH + f] = value


@parallel_kernel
def pack_weight(weight, N, K, packed):
    """weight (N,K), flat, as panels (ceil(N/WIDTH), K, WIDTH), zeros beyond N."""
    for panel in prange((N + WIDTH - 1) // WIDTH):
        p = np.int64(panel)
        pack_panel(weight, p, 0, K, N, K, packed, p * K * WIDTH)


@parallel_kernel
def product_of_rows(x, ldx, weight, y, ldy, M, N, K, work, share, workers):
    """y = x (M,K) · weightᵀ for weight (N,K) as it is; rows of y have room for whole panels."""
    panels = (N + WIDTH - 1) // WIDTH
    for worker in prange(workers):
        w = np.int64(worker)
        for p in range(w * panels // workers, (w + 1) * panels // workers):
            for k in range(0, K, BLOCK_K):
                depth = min(BLOCK_K, K - k)
                pack_panel(weight, p, k, depth, N, K, work, w * share)
                gemm(x, k, ldx, 1, 0, depth, work, w * share, y, p * WIDTH, ldy, M, WIDTH, 1 if k else 0)


@kernel
def pack_columns(b, row, depth, ldb, panel, count, packed, at, step):
    """Rows row..row+depth of b, `count` panels of them from `panel` on, each `step` floats after the one before."""
    for k in range(depth):
        scatter(0, b, (row + k) * ldb + panel * WIDTH, count, packed, at + k * WIDTH, step)


@parallel_kernel
def product_over_rows(dy, ldd, x, ldx, dweight, M, N, K, work, share, workers):
    """dweight = dy (M,N)ᵀ · x (M,K), K in whole panels."""
    panels = K // WIDTH
    for worker in prange(workers):
        w = np.int64(worker)
        for p in range(w * panels // workers, (w + 1) * panels // workers):
            for first in range(0, M, BLOCK_K):
                depth = min(BLOCK_K, M - first)
                pack_columns(x, first, depth, ldx, p, 1, work, w * share, 0)
                gemm_transposed(
                    dy, first * ldd, ldd, depth, work, w * share, WIDTH,
                    dweight, p * WIDTH, K, N, WIDTH, 1 if first else 0,
                )  # fmt: skip


@parallel_kernel
def product_with_columns(dy, ldd, weight, dx, M, N, K, work, share, workers):
    """dx = dy (M,N) · weight (N,K), K in whole panels.

    As fast as BLAS, and it does not leave NumPy's BLAS threads spinning: for tens of milliseconds the next kernels'
    threads would have to share the cores with them.
    """
    panels, step = K // WIDTH, BLOCK_K * WIDTH + LANES
    for worker in prange(workers):
        w = np.int64(worker)
        first, last = w * panels // workers, (w + 1) * panels // workers
        for start in range(first, last, BLOCK_PANELS):
            count = min(BLOCK_PANELS, last - start)
            for n in range(0, N, BLOCK_K):
                depth = min(BLOCK_K, N - n)
                pack_columns(weight, n, depth, K, start, count, work, w * share, step)
                for p in range(count):
                    gemm(
                        dy, n, ldd, 1, 0, depth, work, w * share + p * step,
                        dx, (start + p) * WIDTH, K, M, WIDTH, 1 if n else 0,
                    )  # fmt: skip


@parallel_kernel
def forward(x, ldx, packed, bias, relu, y, ldy, M, N, K, block, workers):
    """y rows lie ldy >= N rounded up to WIDTH apart; bias has as many entries."""
    panels = (N + WIDTH - 1) // WIDTH
    heights = (M + ROWS - 1) // ROWS
    for worker in prange(workers):
        w = np.int64(worker)
        for k in range(0, K, block):
            depth = min(block, K - k)
            for p in range(w * panels // workers, (w + 1) * panels // workers):
                for h in range(heights):
                    i, end = h * M // heights, (h + 1) * M // heights
                    tile(
                        end - i, x, i * ldx + k, ldx, 1, 0, depth, packed, (p * K + k) * WIDTH, WIDTH,
                        y, i * ldy + p * WIDTH, ldy, 1 if k else 0,
                    )  # fmt: skip
                if k + block >= K:
                    for i in range(M):
                        at = i * ldy + p * WIDTH
                        for f in range(WIDTH):
                            value = y[at + f] + bias[p * WIDTH + f]
                            y[at + f] = np.float32(0) if relu and value < 0 else value


def compute(x: Array, weight: Array, bias: Array | None) -> Array:
    if choose(x, weight, "forward").algorithm == "arrays":
        return array_version.compute(x, weight, bias)
    (M, K), N = x.shape, len(weight)
    rows, ldx = _spread(x)
    ldy = -(-N // WIDTH) * WIDTH
    y = memory.empty((M, ldy))
    with threads.parallel() as workers:
        share = BLOCK_K * WIDTH
        work = threads.scratch(share * workers)
        product_of_rows(rows, ldx, weight.reshape(-1), y.reshape(-1), ldy, M, N, K, work, share, workers)
    y = y if ldy == N else y[:, :N].copy()
    if bias is not None:
        y += bias
    return y


def gradients(dy: Array, x: Array, weight: Array, needs: Needs) -> Gradients:
    (M, K), N = x.shape, len(weight)
    if choose(x, weight, "backward").algorithm == "arrays":
        return array_version.gradients(dy, x, weight, needs)
    rows, ldd = _spread(dy)
    dx = memory.empty((M, K)) if needs[0] else None
    if dx is not None:
        with threads.parallel() as workers:
            share = BLOCK_PANELS * (BLOCK_K * WIDTH + LANES)
            work = threads.scratch(share * workers)
            product_with_columns(rows, ldd, weight.reshape(-1), dx.reshape(-1), M, N, K, work, share, workers)
    dweight = memory.empty((N, K)) if needs[1] else None
    if dweight is not None:
        given, ldx = _spread(x)
        with threads.parallel() as workers:
            share = BLOCK_K * WIDTH
            work = threads.scratch(share * workers)
            product_over_rows(rows, ldd, given, ldx, dweight.reshape(-1), M, N, K, work, share, workers)
    return dx, dweight, dy.sum(0) if needs[2] else None


def choose(x: Array, weight: Array, direction: str) -> choices.Choice:
    layout = "C order" if weight.flags.c_contiguous and weight.flags.writeable else "strided"
    (M, K), N, dtype = x.shape, len(weight), str(x.dtype)
    return choices.choose(Problem("linear", "cpu", direction, dtype, M, K, N, layout=layout, machine=MACHINE))


def _spread(x: Array) -> tuple[Array, int]:
    """A copy of x with rows that do not all fall on the same cache sets, flat, and their distance."""
    stride = padded_width(x.shape[1])
    spread = memory.empty((len(x), stride))
    spread[:, : x.shape[1]] = x
    return spread.reshape(-1), stride
