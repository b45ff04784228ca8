"""The dense layer on the `cuda` backend: each product by the way that choices.py names for it.

The signatures of alexnet_np/ops/linear.py; `multiply` is for plans, whose weights are prepared once.
"""

from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels import linear_cublas_cuda as cublas
from alexnet_np.kernels import linear_rows_cuda as rows
from alexnet_np.kernels.gemm_cuda import Prepared, precision_in_force
from alexnet_np.kernels.linear_cublas_cuda import gradients, prepare_weight
from alexnet_np.kernels.problems import Problem
from alexnet_np.ops.linear import sum_shards

__all__ = ["choose", "compute", "gradients", "multiply", "prepare_weight", "sum_shards"]

WAYS = {"cublas": cublas, "rows": rows}


def compute(x: Array, weight: Array, bias: Array | None, relu: bool = False) -> Array:
    """y = x · weightᵀ + bias, (N,in) · (in,out) -> (N,out); with `relu`, max(y, 0)."""
    return WAYS[choose(x, weight).algorithm].compute(x, weight, bias, relu)


def multiply(x: Array, weight: Array, prepared: Prepared, bias: Array | None, relu: bool = False) -> Array:
    """`compute` in a plan, whose weight comes as it is and prepared; all in C order."""
    if choose(x, weight, planned=True).algorithm == "cublas":
        return cublas.multiply(x, prepared, bias, relu)
    return rows.compute(x, weight, bias, relu)


def choose(x: Array, weight: Array, planned: bool = False) -> choices.Choice:
    N, (F, C) = len(x), weight.shape
    problem = Problem("linear", "gpu", dtype=str(x.dtype), batch=N, C=C, F=F, planned=planned)
    return choices.choose(problem._replace(precision=precision_in_force()))
