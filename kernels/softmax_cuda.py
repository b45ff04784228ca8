"""Softmax on the GPU; see softmax.cu. The signatures of alexnet_np/ops/softmax.py."""

import math

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import BLOCK, contiguous, empty, launch, launch_each


def compute(x: Array, dim: int, logarithm: bool = False) -> Array:
    x = contiguous(x)
    y = empty(x.shape, x)
    run("forward", dim, logarithm, x, y)
    return y


def gradients(dy: Array, y: Array, dim: int, logarithm: bool = False) -> Array:
    dy, y = contiguous(dy), contiguous(y)
    dx = empty(y.shape, y)
    run("backward", dim, logarithm, dy, y, dx)
    return dx


def run(direction: str, dim: int, logarithm: bool, *arrays: Array) -> None:
    """A block a row where the rows lie in one piece, a thread a row where they lie side by side."""
    shape, real = arrays[0].shape, arrays[0].dtype
    outer, classes, inner = math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])
    if arrays[0].size == 0:
        return
    name = f"softmax_{direction}_{'blocks' if inner == 1 else 'threads'}"
    log = np.bool_(logarithm)
    if inner == 1:
        launch("softmax", name, (outer,), (BLOCK,), *arrays, classes, log, real=real)
    else:
        launch_each("softmax", name, outer * inner, *arrays, classes, inner, log, real=real)
