"""The matrix product under the CPU kernels, against NumPy in float64, and the loops of version one."""

import numpy as np
import pytest

from alexnet_np.kernels.cpu.simd import MACHINES, host
from alexnet_np.kernels.gemm_numba import (
    ROWS,
    WIDTH,
    Product,
    gemm,
    gemm_naive,
    gemm_transposed,
    pack,
    packed_product,
    padded_width,
)

SHAPES = [(1, 1, 1), (1, WIDTH, 5), (ROWS, WIDTH, 4), (ROWS + 1, WIDTH + 1, 13), (2 * ROWS + 5, 3 * WIDTH - 1, 66)]
ERROR = 1e-6  # relative to the largest element: float32 sums of up to 66 products


def operands(M, N, K):
    rng = np.random.default_rng(M * 1000 + N)
    return rng.standard_normal((M, K), dtype=np.float32), rng.standard_normal((K, N), dtype=np.float32)


def assert_close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=0, atol=ERROR * np.abs(expected).max() + 1e-30)


@pytest.mark.parametrize(("M", "N", "K"), SHAPES)
def test_gemm_overwrites_then_adds(M, N, K):
    a, b = operands(M, N, K)
    exact = a.astype(np.float64) @ b
    ldc = padded_width(N)
    c = np.full((M, ldc), np.nan, np.float32)
    for accumulate in (0, 1):
        product = packed_product(M, N, K, K, ldc, accumulate)
        gemm(a.reshape(-1), 0, pack(b).reshape(-1), 0, c.reshape(-1), 0, product)
        assert_close(c[:, :N], (1 + accumulate) * exact)


@pytest.mark.parametrize(("M", "N", "K"), SHAPES)
def test_transposed_gemm(M, N, K):
    a, b = operands(M, N, K)
    ldb = padded_width(N)
    wide = np.zeros((K, ldb), np.float32)
    wide[:, :N] = b
    c = np.ones((M, ldb), np.float32)
    product = Product(M, N, K, lda=M, ldb=ldb, ldc=ldb, accumulate=1, taps=1, tap_step=0)
    gemm_transposed(np.ascontiguousarray(a.T).reshape(-1), 0, wide.reshape(-1), 0, c.reshape(-1), 0, product)
    assert_close(c[:, :N] - 1, a.astype(np.float64) @ b)


def test_taps_sum_over_overlapping_rows():
    """A convolution in one dimension: rows of A start 2 apart, a second tap 100 further on."""
    M, K, N = 7, 6, 3
    rng = np.random.default_rng(0)
    x, b = rng.standard_normal(200, dtype=np.float32), rng.standard_normal((2 * K, N), dtype=np.float32)
    a = np.stack([np.concatenate([x[2 * i : 2 * i + K], x[100 + 2 * i : 100 + 2 * i + K]]) for i in range(M)])
    c = np.zeros((M, padded_width(N)), np.float32)
    product = Product(M, N, K, lda=2, ldb=WIDTH, ldc=padded_width(N), accumulate=0, taps=2, tap_step=100)
    gemm(x, 0, pack(b).reshape(-1), 0, c.reshape(-1), 0, product)
    assert_close(c[:, :N], a.astype(np.float64) @ b)


def test_version_one():
    a, b = operands(5, 4, 6)
    assert_close(gemm_naive(a, b), a.astype(np.float64) @ b)


def test_rows_are_padded_off_the_same_cache_sets():
    assert padded_width(256) % 256 != 0
    assert all(padded_width(n) >= n and padded_width(n) % min(WIDTH, 16) == 0 for n in range(1, 600))


def test_the_tile_fits_the_registers():
    for name, machine in MACHINES.items():
        registers = 32 if name in ("avx512", "neon") else 16
        assert machine.rows * machine.vectors + machine.vectors + 1 <= registers
    assert host() in MACHINES
