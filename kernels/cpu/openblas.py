"""BLAS's matrix product for use inside kernels: `gemm`, float32 and float64, in the calling thread.

Kernels run one thread a core already, each on operands that it has just written, so the product must not start threads
of its own. NumPy's BLAS does, and its threads would wait for the same cores. `scipy-openblas32` is the same library as
a package of its own; this module sets it, and not NumPy's, to one thread. Numba finds its functions by name, which
unlike a ctypes pointer lets the machine code be cached on disk.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
from numba import types
from numba.extending import overload

from alexnet_np.errors import MissingPackageError
from alexnet_np.kernels.cpu.jit import kernel

try:
    import scipy_openblas32
except ImportError as error:
    raise MissingPackageError("the Numba kernels need scipy-openblas32 (pip install scipy-openblas32)") from error

_library = ctypes.CDLL(str(Path(scipy_openblas32.get_lib_dir()) / scipy_openblas32.get_library(fullname=True)))
_library.scipy_openblas_set_num_threads(1)

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112  # cblas.h


def _external(name: str, real: Any) -> Any:
    llvmlite.binding.add_symbol(name, ctypes.cast(getattr(_library, name), ctypes.c_void_p).value)
    flag = size = types.int32
    matrix = (types.uintp, types.int32)  # address, elements from one row to the next
    return types.ExternalFunction(
        name, types.void(flag, flag, flag, size, size, size, real, *matrix, *matrix, real, *matrix)
    )


PRODUCTS = {
    types.float32: _external("scipy_cblas_sgemm", types.float32),
    types.float64: _external("scipy_cblas_dgemm", types.float64),
}


def gemm(a: Any, b: Any, c: Any, beta: float, terms: int) -> None:
    """c = a · b + beta * c for a (M,K), b (K,N) and c (M,N) of one dtype, callable from kernels only.

    Each is a matrix with consecutive rows or a transposed view of one (`a.T`); c has consecutive rows. With beta = 0
    c's old values do not count, not even NaN. Sums are cut in pieces of at most `terms`, so that long ones round less.
    """
    raise NotImplementedError("gemm is for compiled kernels; in Python write a @ b")


@overload(gemm)
def _gemm(a: Any, b: Any, c: Any, beta: Any, terms: Any) -> Any:
    product = PRODUCTS[a.dtype]
    real = np.dtype(a.dtype.name).type

    def call(a: Any, b: Any, c: Any, beta: Any, terms: Any) -> None:
        (a_order, a_step), (b_order, b_step), (_, c_step) = order(a), order(b), order(c)
        (M, N), K = c.shape, a.shape[1]
        for k in range(0, max(1, K), terms):
            a_at, b_at = a.ctypes.data + k * a.strides[1], b.ctypes.data + k * b.strides[0]
            count, one, keep = min(terms, K - k), real(1), real(beta if k == 0 else 1)
            into = c.ctypes.data
            product(ROW_MAJOR, a_order, b_order, M, N, count, one, a_at, a_step, b_at, b_step, keep, into, c_step)

    return call


@kernel
def order(matrix: Any) -> tuple[int, int]:
    """Whether BLAS should read it as it lies or transposed, and the elements from one of BLAS's rows to the next."""
    row, column = matrix.strides[0] // matrix.itemsize, matrix.strides[1] // matrix.itemsize
    if column == 1:
        return PLAIN, max(row, matrix.shape[1], 1)
    return TRANSPOSED, max(column, matrix.shape[0], 1)
