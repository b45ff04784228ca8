"""The dense layer for a few images on the GPU: a warp an output, no cuBLAS; see linear_rows.cu.

Float32 (or float64) throughout, whatever gemm_cuda.matmul_precision says. The gradients are linear_cublas_cuda's.
"""

from typing import NamedTuple

from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels.gpu.arguments import address
from alexnet_np.kernels.gpu.runtime import BLOCK, ceil_div, contiguous, empty, launch
from alexnet_np.kernels.linear_cublas_cuda import gradients

__all__ = ["compute", "gradients"]

WARPS = BLOCK // 32


class Rows(NamedTuple):
    """The twin of `struct Rows` in linear_rows.cuh."""

    N: int
    F: int
    K: int
    relu: bool


def compute(x: Array, weight: Array, bias: Array | None, relu: bool = False) -> Array:
    """y = x · weightᵀ + bias, (N,in) · (in,out) -> (N,out); with `relu`, max(y, 0)."""
    x, weight = contiguous(x), contiguous(weight)
    bias = None if bias is None else contiguous(bias)
    N, (F, K) = len(x), weight.shape
    y = empty((N, F), x)
    aligned = K % 4 == 0 and address(x) % 16 == 0 and address(weight) % 16 == 0
    images = min(N, choices.sizes("linear", "gpu")["images"]) or 1
    grid, arguments = (ceil_div(F, WARPS), ceil_div(N, images)), (x, weight, bias, y, Rows(N, F, K, relu))
    defines = {"VECTOR": 4 if aligned else 1, "IMAGES": images}
    launch("linear_rows", "linear_rows", grid, (BLOCK,), *arguments, real=x.dtype, **defines)
    return y
