"""Average pooling on the GPU; see avg_pool2d.cu. The signatures of alexnet_np/ops/avg_pool2d.py."""

from typing import NamedTuple

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import contiguous, empty, launch_each
from alexnet_np.kernels.gpu.window import Window, sliding
from alexnet_np.ops.avg_pool2d import Geometry


class Rule(NamedTuple):
    """The twin of `struct Rule` in avg_pool2d.cu."""

    include_pad: int
    divisor: int


def compute(x: Array, geometry: Geometry) -> Array:
    x = contiguous(x)
    y = empty((*x.shape[:2], *geometry.output), x)
    launch_each("avg_pool2d", "avg_pool2d_forward", y.size, x, y, *described(x.shape, geometry), real=x.dtype)
    return y


def gradients(dy: Array, shape: tuple[int, ...], geometry: Geometry) -> Array:
    dy = contiguous(dy)
    dx = empty(shape, dy)
    launch_each("avg_pool2d", "avg_pool2d_backward", dx.size, dy, dx, *described(shape, geometry), real=dy.dtype)
    return dx


def described(shape: tuple[int, ...], geometry: Geometry) -> tuple[Window, Rule]:
    steps = geometry.stride, (1, 1)
    window = sliding(shape, geometry.output, geometry.kernel, steps, geometry.padding)
    return window, Rule(int(geometry.include_pad), geometry.divisor)
