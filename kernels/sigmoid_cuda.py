"""The logistic function on the GPU; see sigmoid.cu. The signatures of alexnet_np/ops/sigmoid.py."""

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import contiguous, empty, launch_each


def compute(x: Array) -> Array:
    x = contiguous(x)
    y = empty(x.shape, x)
    launch_each("sigmoid", "sigmoid_forward", x.size, x, y, real=x.dtype)
    return y


def gradients(dy: Array, y: Array) -> Array:
    dy, y = contiguous(dy), contiguous(y)
    dx = empty(y.shape, y)
    launch_each("sigmoid", "sigmoid_backward", y.size, dy, y, dx, real=y.dtype)
    return dx
