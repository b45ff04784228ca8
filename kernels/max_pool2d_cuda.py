"""Max pooling on the GPU; see max_pool2d.cu. The signatures of alexnet_np/ops/max_pool2d.py."""

import math

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import contiguous, empty, launch_each
from alexnet_np.kernels.gpu.window import Window, sliding
from alexnet_np.ops.max_pool2d import Geometry, switch_dtype

C_TYPES = {np.dtype(np.uint8): "unsigned char", np.dtype(np.int32): "int"}


def compute(x: Array, geometry: Geometry) -> tuple[Array, Array]:
    x = contiguous(x)
    switches = empty((*x.shape[:2], *geometry.output), x, switch_dtype(geometry))
    return pool(x, geometry, switches), switches


def pool(x: Array, geometry: Geometry, switches: Array | None = None) -> Array:
    """Pool x, in C order; with `switches` given, which pixel won is written there."""
    y = empty((*x.shape[:2], *geometry.output), x)
    arguments = (x, y, switches, to_window(x.shape, geometry))
    kind = C_TYPES[np.dtype(switch_dtype(geometry))]
    launch_each("max_pool2d", "max_pool2d_forward", y.size, *arguments, real=x.dtype, SWITCH=kind)
    return y


def gradients(dy: Array, switches: Array, shape: tuple[int, ...], geometry: Geometry) -> Array:
    dy, switches = contiguous(dy), contiguous(switches)
    dx = empty(shape, dy)
    arguments = (dy, switches, dx, to_window(shape, geometry))
    count = math.prod(shape)
    launch_each("max_pool2d", "max_pool2d_backward", count, *arguments, real=dy.dtype, SWITCH=C_TYPES[switches.dtype])
    return dx


def gradients_to_all(dy: Array, x: Array, y: Array, switches: Array, geometry: Geometry) -> Array:
    arrays = [contiguous(each) for each in (dy, x, y, switches)]
    dx = empty(x.shape, arrays[0])
    kind = C_TYPES[switches.dtype]
    arguments = (*arrays, dx, to_window(x.shape, geometry))
    count = math.prod(x.shape)
    launch_each("max_pool2d", "max_pool2d_backward_to_all", count, *arguments, real=dy.dtype, SWITCH=kind)
    return dx


def to_window(shape: tuple[int, ...], geometry: Geometry) -> Window:
    steps = geometry.stride, geometry.dilation
    return sliding(shape, geometry.output, geometry.kernel, steps, geometry.padding)
