"""Local response normalisation on the GPU; see the .cu. The signatures of alexnet_np/ops/local_response_norm.py."""

from typing import Any

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import BLOCK, ceil_div, contiguous, empty, launch, launch_each
from alexnet_np.ops.local_response_norm import Geometry

RUN = 16  # channels a thread walks: RUN in local_response_norm.cu
WIDEST = 15  # a window of up to so many channels fits in registers


def compute(x: Array, geometry: Geometry) -> Array:
    x = contiguous(x)
    y = empty(x.shape, x)
    run("forward", geometry, x, y)
    return y


def gradients(dy: Array, x: Array, geometry: Geometry) -> Array:
    dy, x = contiguous(dy), contiguous(x)
    dx = empty(x.shape, x)
    run("backward", geometry, dy, x, dx)
    return dx


def run(direction: str, geometry: Geometry, *arrays: Array) -> None:
    """Version 2 where the window fits in registers, else version 1."""
    low, high, scale, beta, k = geometry
    if low + high + 1 > WIDEST:
        return run_naive(direction, geometry, *arrays)
    N, C, L = arrays[0].shape
    numbers = (np.int32(C), np.int32(L), float(scale), float(beta), float(k), N * L)
    grid = (ceil_div(N * L, BLOCK), ceil_div(C, RUN))
    defines: dict[str, Any] = {"LOW": low, "HIGH": high, "THREE_QUARTERS": int(beta == 0.75)}
    name = f"local_response_norm_{direction}"
    launch("local_response_norm", name, grid, (BLOCK,), *arrays, *numbers, real=arrays[0].dtype, **defines)
    return None


def run_naive(direction: str, geometry: Geometry, *arrays: Array) -> None:
    low, high, scale, beta, k = geometry
    _, C, L = arrays[0].shape
    low, high = min(low, C), min(high, C)  # a window wider than that is cut off anyway, and must fit an int
    integers = tuple(np.int32(v) for v in (C, L, low, high))
    name, three_quarters = f"local_response_norm_{direction}_naive", int(beta == 0.75)
    numbers = (*integers, float(scale), float(beta), float(k))
    count, real = arrays[0].size, arrays[0].dtype
    launch_each("local_response_norm", name, count, *arrays, *numbers, real=real, THREE_QUARTERS=three_quarters)
