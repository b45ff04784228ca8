import importlib.util
import sys

import numba
import numpy as np
import pytest
from oracles import refused

from alexnet_np.errors import MissingPackageError
from alexnet_np.kernels.cpu import openblas

TERMS = 32


@numba.njit
def gemm(a, b, c, beta):
    openblas.gemm(a, b, c, beta, TERMS)


def block(matrix):
    """`matrix` in the middle of a larger one."""
    larger = np.full((matrix.shape[0] + 3, matrix.shape[1] + 5), 99, matrix.dtype)
    view = larger[1:-2, 2:-3]
    view[...] = matrix
    return view


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "shape", [(5, 4, 7), (1, 1, 1), (1, 6, 3), (4, 1, 1), (3, 2 * TERMS + 1, 2), (3, 0, 4), (0, 2, 3)]
)
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_product_of_blocks_and_their_transposes(rng, dtype, shape, transposed):
    M, K, N = shape
    a, b, c = (rng.integers(-9, 9, size).astype(dtype) for size in ((M, K), (K, N), (M, N)))
    a_view = block(a.T).T if transposed[0] else block(a)
    b_view = block(b.T).T if transposed[1] else block(b)
    out = block(c)
    gemm(a_view, b_view, out, 1)
    assert np.array_equal(out, a @ b + c)  # of integers, so exact
    assert (out.base == 99).sum() >= out.base.size - out.size  # nothing beside the block was written


def test_beta_of_0_forgets_even_nan():
    out = np.full((2, 2), np.nan)
    gemm(np.eye(2), np.ones((2, 2)), out, 0)
    assert out.tolist() == [[1, 1], [1, 1]]


def test_is_for_kernels_only():
    with pytest.raises(NotImplementedError, match="a @ b"):
        openblas.gemm(np.eye(2), np.eye(2), np.eye(2), 0, TERMS)


def test_runs_in_the_calling_thread():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    pools = {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    assert [threads for path, threads in pools.items() if "scipy_openblas32" in path] == [1]


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy_openblas32", None)
    spec = importlib.util.spec_from_file_location("openblas_again", openblas.__file__)
    with refused(MissingPackageError, "need scipy-openblas32"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
