"""The dense layer on the GPU: cuBLAS, then bias (and ReLU) in one pass. The signatures of alexnet_np/ops/linear.py."""

from alexnet_np.backend import Array
from alexnet_np.kernels.bias_relu_cuda import add_bias_relu, sum_columns
from alexnet_np.kernels.cuda_runtime import contiguous, empty
from alexnet_np.kernels.gemm_cuda import gemm
from alexnet_np.ops.linear import Needs


def compute(x: Array, weight: Array, bias: Array | None, relu: bool = False) -> Array:
    """y = x · weightᵀ + bias; with `relu`, max(y, 0)."""
    x, weight = contiguous(x), contiguous(weight)
    y = empty((len(x), len(weight)), x)
    gemm(x[None], weight.T[None], y[None])
    add_bias_relu(y, None if bias is None else contiguous(bias), relu)
    return y


def gradients(dy: Array, x: Array, weight: Array, needs: Needs) -> tuple[Array | None, Array | None, Array | None]:
    dy, x, weight = contiguous(dy), contiguous(x), contiguous(weight)
    dx, dweight = empty(x.shape, x) if needs[0] else None, empty(weight.shape, x) if needs[1] else None
    if dx is not None:
        gemm(dy[None], weight[None], dx[None])
    if dweight is not None:
        gemm(dy.T[None], x[None], dweight[None])
    return dx, dweight, sum_columns(dy) if needs[2] else None
