"""Matrix products on the GPU by cuBLAS, in one of three arithmetics (the kernel beside it is gemm.cu).

    strict   float32 throughout
    tf32     operands rounded to 11 significant bits, on tensor cores: PyTorch's default for convolutions
    tf32x3   each operand split into two TF32 ones, three products on tensor cores: float32's accuracy

Which one: `matmul_precision`'s, else what choices.py says. float64 arrays are multiplied in float64 whatever it is.
Source: Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores" (2022), sec. 3, for tf32x3.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np

from alexnet_np.arguments import choice
from alexnet_np.device import Array, clear_errors
from alexnet_np.kernels import choices
from alexnet_np.kernels.gpu.arguments import address
from alexnet_np.kernels.gpu.cublas import COMPUTE_32F, COMPUTE_32F_FAST_TF32, COMPUTE_64F, Operand, Product
from alexnet_np.kernels.gpu.runtime import contiguous, current_executor, empty, launch_each
from alexnet_np.kernels.problems import Problem

PRECISIONS = ("strict", "tf32", "tf32x3")
_precision: ContextVar[str | None] = ContextVar("alexnet_np_matmul_precision", default=None)


class Prepared(NamedTuple):
    """A (B,rows,columns) operand ready to be multiplied: in one piece, or in two terms where the arithmetic asks it."""

    high: Array
    low: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.high.shape

    def transposed(self) -> Prepared:
        return Prepared(self.high.swapaxes(1, 2), None if self.low is None else self.low.swapaxes(1, 2))


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Float32 products inside the `with` use the arithmetic `name`: "strict", "tf32" or "tf32x3"."""
    token = _precision.set(check_precision(name))
    try:
        yield
    finally:
        _precision.reset(token)


def precision_in_force() -> str:
    return _precision.get() or choices.choose(Problem("gemm", "gpu")).algorithm


def check_precision(name: str | None) -> str:
    """`name`, or the one in force for None. Raises ArgumentError."""
    return choice("cuda", "matmul precision", precision_in_force() if name is None else name, PRECISIONS)


def prepare(x: Array) -> Prepared:
    """`x` (B,rows,columns), perhaps a transposed view, for any number of products in the arithmetic now in force."""
    x = in_one_piece(x)
    return Prepared(*split(x)) if x.dtype == np.float32 and precision_in_force() == "tf32x3" else Prepared(x)


def gemm(a: Array | Prepared, b: Array | Prepared, out: Array, accumulate: bool = False) -> None:
    """out[i] = a[i] · b[i], plus what out[i] held if `accumulate`: (B,M,K) · (B,K,N) -> (B,M,N); out in C order.

    `a` and `b` may be transposed views of arrays in C order; with B = 1 they serve every i.
    """
    if out.size == 0:
        return
    if a.shape[2] == 0:
        if not accumulate:
            current_executor().zero(out)
        return
    (a_high, a_low), (b_high, b_low) = (x if isinstance(x, Prepared) else prepare(x) for x in (a, b))
    if a_low is not None and b_low is not None:
        product(a_low, b_high, out, COMPUTE_32F_FAST_TF32, accumulate)  # small terms first
        product(a_high, b_low, out, COMPUTE_32F_FAST_TF32, accumulate=True)
        product(a_high, b_high, out, COMPUTE_32F_FAST_TF32, accumulate=True)
    elif out.dtype == np.float64:
        product(a_high, b_high, out, COMPUTE_64F, accumulate)
    else:
        arithmetic = COMPUTE_32F_FAST_TF32 if precision_in_force() == "tf32" else COMPUTE_32F
        product(a_high, b_high, out, arithmetic, accumulate)


def product(a: Array, b: Array, out: Array, compute: int, accumulate: bool) -> None:
    """A matrix in C order is its transpose in cuBLAS's column order, so this asks for outᵀ = bᵀ · aᵀ."""
    batch, rows, columns = out.shape
    with clear_errors("cuda: a matrix product"):
        handle, sides = current_executor().cublas(out), (columns, rows, a.shape[2])
        handle.gemm(Product(sides, batch, operand(b), operand(a), operand(out), compute, accumulate))


def in_one_piece(x: Array) -> Array:
    """`x` (B,rows,columns) itself if it is in C order, or each matrix of it transposed is; else a copy."""
    return x if x.flags.c_contiguous or is_transposed(x) else contiguous(x)


def is_transposed(x: Array) -> bool:
    return not x.flags.c_contiguous and x.swapaxes(1, 2).flags.c_contiguous


def operand(x: Array) -> Operand:
    """`x`, in one piece, as cuBLAS is told of it. The caller keeps `x` alive."""
    rows, columns = x.shape[1:]
    step = 0 if len(x) == 1 else rows * columns
    return Operand(address(x), is_transposed(x), rows if is_transposed(x) else columns, step)


def split(x: Array) -> tuple[Array, Array]:
    """`x`, in one piece, as high + low, both exact in TF32 (gemm.cu) and laid out as `x` is."""
    memory = x.swapaxes(1, 2) if is_transposed(x) else x
    high, low = empty(memory.shape, memory), empty(memory.shape, memory)
    launch_each("gemm", "gemm_tf32_split", memory.size, memory, high, low, real=memory.dtype)
    return (high.swapaxes(1, 2), low.swapaxes(1, 2)) if is_transposed(x) else (high, low)
