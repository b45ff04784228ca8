"""What follows a product on the GPU: bias and ReLU in one pass, and the bias's gradient; see bias_relu.cu."""

import math

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import ceil_div, empty, launch, launch_each


def add_bias_relu(y: Array, bias: Array | None, relu: bool = False) -> None:
    """y (outer, channels, ...) += bias (channels,), then max(y, 0) if `relu`; in place, in one pass or none."""
    if bias is None and not relu:
        return
    inner = math.prod(y.shape[2:])
    launch_each("bias_relu", "bias_relu", y.size, y, bias, y.shape[1], inner, np.int32(relu), real=y.dtype)


def sum_rows(x: Array) -> Array:
    """(rows, columns) -> (rows,)."""
    sums = empty((len(x),), x)
    launch("bias_relu", "row_sums", (len(x),), (128,), x, sums, x.shape[1], real=x.dtype)
    return sums


def sum_columns(x: Array) -> Array:
    """(rows, columns) -> (columns,)."""
    rows, columns = x.shape
    sums = empty((columns,), x)
    launch("bias_relu", "column_sums", (ceil_div(columns, 32),), (32, 8), x, sums, rows, columns, real=x.dtype)
    return sums
