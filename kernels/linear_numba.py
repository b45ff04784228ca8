"""The fully connected layer on packed weights: y (M,N) = act(x (M,K) · weightᵀ + bias).

1. Packed once: panels of WIDTH output units, K rows each, so that the weights are read front to back, once a call.
   With few rows the time is that of reading them; the microkernel with one row is the matrix-vector product.
2. Blocked over K: with many rows, a slice of x and a slice of a panel stay in the second-level cache while all rows
   of x use them.

Panels are divided among the threads. Source: Goto and van de Geijn (2008), sec. 4.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import prange

from alexnet_np.kernels.gemm_numba import ROWS, WIDTH, tile
from alexnet_np.kernels.jit import parallel_kernel
from alexnet_np.kernels.simd import INTEGER, LANES, POINTER, Emitter, vector_function

BLOCK_K = 512


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


@parallel_kernel
def pack_weight(weight, N, K, packed):
    """weight (N,K), flat, as panels (ceil(N/WIDTH), K, WIDTH), zeros beyond N."""
    for panel in prange((N + WIDTH - 1) // WIDTH):
        p = np.int64(panel)
        units = min(WIDTH, N - p * WIDTH)
        squares = units // LANES * LANES
        for k in range(0, K - K % LANES, LANES):
            for f in range(0, squares, LANES):
                transpose(0, weight, (p * WIDTH + f) * K + k, K, packed, (p * K + k) * WIDTH + f)
        for f in range(WIDTH):
            for k in range(K - K % LANES if f < squares else 0, K):
                packed[(p * K + k) * WIDTH + f] = weight[(p * WIDTH + f) * K + k] if f < units else np.float32(0)


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
