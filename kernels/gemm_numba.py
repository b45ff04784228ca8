"""The matrix product under every fast kernel: C (M,N) = A (M,K) · B (K,N), float32, for one thread.

1. `gemm_naive`: three loops, to read and to test against.
2. `gemm`: a tile of C stays in registers (12x32 on AVX-512: 24 accumulators) while k runs; each step loads one row of
   B's panel, broadcasts one float from each of A's rows, and does a fused multiply-add per accumulator. A is read where
   it lies, row by row; B is packed in panels as wide as a tile, so that its loads are consecutive. No blocking over K:
   the callers' K is so short that A's tile and B's panel stay in the second-level cache.

A may be given as `taps` windows, `tap_step` apart, that are summed over: rows of A may overlap, and a convolution
needs no column matrix. It runs in one thread: callers parallelise over blocks whose operands they have just written.

Source: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008); Van Zee and van de Geijn,
"BLIS" (2015); the row-major A: Georganas et al., "High-Performance Deep Learning via a Single Building Block" (2020).
Measured (EPYC Zen 4, both cores, one gemm each): 230 GFLOP/s at 112x256x384, 198-220 on the tile products of
Winograd's layers, where NumPy's OpenBLAS does 210 at 2000x2000x2000. A tile of 14x32 spills: 145. 6x64: 205-230.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.simd import LANES, MACHINE, POINTER, Emitter, vector_function

ROWS = MACHINE.rows
WIDTH = MACHINE.vectors * LANES  # columns of a tile, and of a packed panel
UNROLL = 4  # steps of k whose addresses are computed together


class Product(NamedTuple):
    """C (+)= A·B on flat float32 arrays: its sizes, and how its operands lie, counted in floats."""

    M: int
    N: int
    K: int  # of one tap
    lda: int  # from one row of A to the next
    ldb: int  # of B: WIDTH where it is packed
    ldc: int
    accumulate: int  # 0 overwrites C, 1 adds to it
    taps: int
    tap_step: int


@kernel
def packed_product(M, N, K, lda, ldc, accumulate):
    """Of one tap, with B packed."""
    return Product(M, N, K, lda, WIDTH, ldc, accumulate, 1, 0)


def emit_tile(e: Emitter, a: ir.Value, b: ir.Value, c: ir.Value, p: Product, *, rows: int, transposed: bool) -> None:
    """c[i, :WIDTH] (+)= sum over t, k of a[t*tap_step + i*lda + k] * b[t*K + k, :WIDTH] for i < rows.

    `transposed`: a[t*tap_step + k*lda + i] instead, for products with Aᵀ, and B as it lies. Where B is packed, its
    addresses are constants, which leaves LLVM the registers that it needs.
    """
    vectors = range(MACHINE.vectors)
    starts = [e.mul(e.int(1) if transposed else p.lda, i) for i in range(rows)]  # where each row of A begins
    step = p.lda if transposed else e.int(1)  # from one k to the next
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
            e.set(panel, e.at(b_k, p.ldb if transposed else WIDTH))

    with e.loop(p.taps) as t:
        a_tap = e.at(a, e.mul(t, p.tap_step))
        blocks = e.builder.udiv(p.K, e.int(UNROLL))
        with e.loop(blocks) as block:
            steps(e.at(a_tap, e.mul(e.mul(block, UNROLL), step)), UNROLL)
        done = e.mul(blocks, UNROLL)
        with e.loop(e.sub(p.K, done)) as k:
            steps(e.at(a_tap, e.mul(e.add(done, k), step)), 1)
    with e.when(e.less(0, p.accumulate)):  # now, not at the start: a sum of short sums rounds less than one long sum
        for i in range(rows):
            for v in vectors:
                e.set(sums[i][v], e.plus(e.get(sums[i][v]), e.load(c, e.add(e.mul(p.ldc, i), v * LANES))))
    for i in range(rows):
        for v in vectors:
            e.store(e.get(sums[i][v]), c, e.add(e.mul(p.ldc, i), v * LANES))


KINDS = (POINTER, POINTER, POINTER, Product)
HEIGHTS = range(1, ROWS + 1)
TILES, TILES_T = ({m: partial(emit_tile, rows=m, transposed=t) for m in HEIGHTS} for t in (False, True))
tile = vector_function("gemm_tile", KINDS, TILES)
tile_transposed = vector_function("gemm_tile_t", KINDS, TILES_T)


@kernel
def gemm(a, a_at, b, b_at, c, c_at, p):
    """C (+)= A·B for B packed by `pack`; C has N rounded up to a multiple of WIDTH columns.

    a, b, c are 1-D float32 arrays in which the operands begin at *_at; p is a Product.
    """
    heights = (p.M + ROWS - 1) // ROWS  # tiles all alike but for one row: a low one waits for its loads
    for j in range(0, p.N, WIDTH):
        panel = b_at + j * p.taps * p.K
        for h in range(heights):
            i, end = h * p.M // heights, (h + 1) * p.M // heights
            tile(end - i, a, a_at + i * p.lda, b, panel, c, c_at + i * p.ldc + j, p)


@kernel
def gemm_transposed(a, a_at, b, b_at, c, c_at, p):
    """C (+)= Aᵀ·B for A (K,M) and B (K,N) row by row; B and C have N rounded up to a multiple of WIDTH columns."""
    for j in range(0, p.N, WIDTH):
        for i in range(0, p.M, ROWS):
            tile_transposed(min(ROWS, p.M - i), a, a_at + i, b, b_at + j, c, c_at + i * p.ldc + j, p)


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
