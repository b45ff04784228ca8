"""Adaptive average pooling on the GPU; see the .cu. The signatures of alexnet_np/ops/adaptive_avg_pool2d.py."""

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import contiguous, empty, launch_each
from alexnet_np.kernels.gpu.window import Window


def compute(x: Array, output: tuple[int, int]) -> Array:
    x = contiguous(x)
    y = empty((*x.shape[:2], *output), x)
    C, H, W = x.shape[1:]
    window = Window(C, H, W, *output)
    launch_each("adaptive_avg_pool2d", "adaptive_avg_pool2d_forward", y.size, x, y, window, real=x.dtype)
    return y


def gradients(dy: Array, shape: tuple[int, ...]) -> Array:
    dy = contiguous(dy)
    dx = empty(shape, dy)
    (C, H, W), (OH, OW) = shape[1:], dy.shape[2:]
    window = Window(C, H, W, OH, OW)
    launch_each("adaptive_avg_pool2d", "adaptive_avg_pool2d_backward", dx.size, dy, dx, window, real=dy.dtype)
    return dx
