"""The dense layer on the GPU by cuBLAS, then bias (and ReLU) in one pass; see linear_cublas.cu."""

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.gemm_cuda import Prepared, gemm, prepare
from alexnet_np.kernels.gpu.runtime import contiguous, empty, launch_each
from alexnet_np.kernels.gpu.sums import sum_columns
from alexnet_np.ops.linear import Needs


def compute(x: Array, weight: Array, bias: Array | None, relu: bool = False) -> Array:
    """y = x · weightᵀ + bias; with `relu`, max(y, 0)."""
    return multiply(contiguous(x), prepare_weight(weight), None if bias is None else contiguous(bias), relu)


def prepare_weight(weight: Array) -> Prepared:
    """(out, in) -> (1, in, out)."""
    return prepare(contiguous(weight).T[None])


def multiply(x: Array, weight: Prepared, bias: Array | None, relu: bool) -> Array:
    """`compute` with the weight prepared; x and bias in C order."""
    y = empty((len(x), weight.shape[2]), x)
    gemm(x[None], weight, y[None])
    if bias is not None or relu:
        launch_each("linear_cublas", "linear_finish", y.size, y, bias, y.shape[1], np.bool_(relu), real=y.dtype)
    return y


def gradients(dy: Array, x: Array, weight: Array, needs: Needs) -> tuple[Array | None, Array | None, Array | None]:
    dy, x, weight = contiguous(dy), contiguous(x), contiguous(weight)
    dx, dweight = empty(x.shape, x) if needs[0] else None, empty(weight.shape, x) if needs[1] else None
    if needs[0] or needs[1]:
        rows = prepare(dy[None])
    if dx is not None:
        gemm(rows, weight[None], dx[None])
    if dweight is not None:
        gemm(rows.transposed(), x[None], dweight[None])
    return dx, dweight, sum_columns(dy) if needs[2] else None
