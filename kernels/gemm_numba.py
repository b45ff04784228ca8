"""The matrix product under every fast kernel: C (M,N) = A (M,K) · B (K,N), float32, for one thread.

1. `gemm_naive`: three loops, to read and to test against.
2. `gemm`: a tile of C stays in registers (12x32 on AVX-512: 24 accumulators) while k runs; each step loads one row of
   B's panel, broadcasts one float from each of A's rows, and does a fused multiply-add per accumulator. A is read where
   it lies, row by row; B is packed in panels as wide as a tile, so that its loads are consecutive. No blocking over K:
   the callers' K is so short that A's tile and B's panel stay in the second-level cache.

A may be given as `taps` windows, `tap_stride` apart, that are summed over: rows of A may overlap, and a convolution
needs no column matrix. It runs in one thread: callers parallelise over blocks whose operands they have just written.

Source: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008); Van Zee and van de Geijn,
"BLIS" (2015); the row-major A: Georganas et al., "High-Performance Deep Learning via a Single Building Block" (2020).
Measured (EPYC Zen 4, both cores, one gemm each): 230 GFLOP/s at 112x256x384, 198-220 on the tile products of
Winograd's layers, where NumPy's OpenBLAS does 210 at 2000x2000x2000. A tile of 14x32 spills: 145. 6x64: 205-230.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from llvmlite import ir

from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, MACHINE, POINTER, Emitter, vector_function

ROWS = MACHINE.rows
WIDTH = MACHINE.vectors * LANES  # columns of a tile, and of a packed panel
UNROLL = 4  # steps of k whose addresses are computed together


def emit_tile(
    e: Emitter,
    a: ir.Value,
    lda: ir.Value,
    taps: ir.Value,
    tap_stride: ir.Value,
    K: ir.Value,
    b: ir.Value,
    row_of_b: ir.Value,
    c: ir.Value,
    ldc: ir.Value,
    accumulate: ir.Value,
    *,
    rows: int,
    transposed: bool,
    ldb: int | None = None,
) -> None:
    """c[i, :WIDTH] (+)= sum over t, k of a[t*tap_stride + i*lda + k] * b[t*K + k, :WIDTH] for i < rows.

    `transposed`: a[t*tap_stride + k*lda + i] instead, for products with Aᵀ. `ldb` is given where B is packed: addresses
    that are constants leave LLVM the registers that it needs.
    """
    vectors = range(MACHINE.vectors)
    starts = [e.mul(e.int(1) if transposed else lda, i) for i in range(rows)]  # where each row of A begins
    step = lda if transposed else e.int(1)  # from one k to the next
    sums = [[e.variable(e.constant(0.0)) for _ in vectors] for _ in range(rows)]
    panel = e.variable(b)

    def steps(a_k: ir.Value, count: int) -> None:
        for u in range(count):
            b_k = e.get(panel)
            columns = [e.load(b_k, v * LANES) for v in vectors]
            for i in range(rows):
                factor = e.broadcast(a_k, e.add(starts[i], e.mul(step, u)))
                for v in vectors:
                    e.set(sums[i][v], e.fma(factor, columns[v], e.get(sums[i][v])))
            e.set(panel, e.at(b_k, row_of_b if ldb is None else ldb))

    with e.loop(taps) as t:
        a_tap = e.at(a, e.mul(t, tap_stride))
        blocks = e.builder.udiv(K, e.int(UNROLL))
        with e.loop(blocks) as block:
            steps(e.at(a_tap, e.mul(e.mul(block, UNROLL), step)), UNROLL)
        done = e.mul(blocks, UNROLL)
        with e.loop(e.sub(K, done)) as k:
            steps(e.at(a_tap, e.mul(e.add(done, k), step)), 1)
    with e.when(e.less(0, accumulate)):  # now, not at the start: a sum of short sums rounds less than one long sum
        for i in range(rows):
            for v in vectors:
                e.set(sums[i][v], e.plus(e.get(sums[i][v]), e.load(c, e.add(e.mul(ldc, i), v * LANES))))
    for i in range(rows):
        for v in vectors:
            e.store(e.get(sums[i][v]), c, e.add(e.mul(ldc, i), v * LANES))


KINDS = (POINTER, INTEGER, INTEGER, INTEGER, INTEGER, POINTER, INTEGER, POINTER, INTEGER, INTEGER)
HEIGHTS = range(1, ROWS + 1)
tile = vector_function(
    "gemm_tile", KINDS, {m: partial(emit_tile, rows=m, transposed=False, ldb=WIDTH) for m in HEIGHTS}
)
tile_transposed = vector_function(
    "gemm_tile_t", KINDS, {m: partial(emit_tile, rows=m, transposed=True) for m in HEIGHTS}
)


@kernel
def gemm(a, a_at, lda, taps, tap_stride, K, b, b_at, c, c_at, ldc, M, N, accumulate):
    """C (+)= A·B for B packed by `pack`; C has N rounded up to a multiple of WIDTH columns.

    a, b, c are 1-D float32 arrays; *_at, lda, ldc, tap_stride count floats. `accumulate` 0 overwrites C, 1 adds.
    """
    for j in range(0, N, WIDTH):
        panel = b_at + j * taps * K
        for i in range(0, M, ROWS):
            m, out = min(ROWS, M - i), c_at + i * ldc + j
            tile(m, a, a_at + i * lda, lda, taps, tap_stride, K, b, panel, WIDTH, c, out, ldc, accumulate)


@kernel
def gemm_transposed(a, a_at, lda, K, b, b_at, ldb, c, c_at, ldc, M, N, accumulate):
    """C (+)= Aᵀ·B for A (K,M) and B (K,N) row by row; B and C have N rounded up to a multiple of WIDTH columns."""
    for j in range(0, N, WIDTH):
        for i in range(0, M, ROWS):
            m = min(ROWS, M - i)
            tile_transposed(m, a, a_at + i, lda, 1, 0, K, b, b_at + j, ldb, c, c_at + i * ldc + j, ldc, accumulate)


def pack(b: np.ndarray) -> np.ndarray:
    """B (K,N) as panels (ceil(N/WIDTH), K, WIDTH), zeros beyond N."""
    K, N = b.shape
    panels = -(-N // WIDTH)
    padded = np.zeros((K, panels * WIDTH), np.float32)
    padded[:, :N] = b
    return np.ascontiguousarray(padded.reshape(K, panels, WIDTH).transpose(1, 0, 2))


def padded_bias(bias: np.ndarray | None, N: int) -> np.ndarray:
    """The bias, or zeros, with the entries beyond N that whole panels read."""
    padded = np.zeros(N + WIDTH, np.float32)
    padded[:N] = 0 if bias is None else bias
    return padded


def padded_width(columns: int) -> int:
    """The least row length that holds `columns` in whole tiles and does not map every row onto the same cache sets."""
    width = -(-columns // WIDTH) * WIDTH
    return width + LANES if width % 256 == 0 else width


def gemm_naive(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Version one: the definition."""
    M, K = a.shape
    c = np.zeros((M, b.shape[1]), a.dtype)
    for i in range(M):
        for j in range(b.shape[1]):
            for k in range(K):
                c[i, j] += a[i, k] * b[k, j]
    return c
