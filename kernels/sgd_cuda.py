"""One step of SGD on the GPU in one pass over a parameter; see sgd.cu."""

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import contiguous, launch_each


def step(
    parameter: Array,
    gradient: Array,
    velocity: Array | None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    first: bool = False,
) -> None:
    """Update `parameter` and `velocity` in place, both in C order; all three of one shape and dtype.

    `velocity` is None without momentum; with `first` it is written, not read. Raises BackendError.
    """
    numbers = (float(lr), float(momentum), float(dampening), float(weight_decay), np.int32(nesterov), np.int32(first))
    arrays = (parameter, contiguous(gradient), velocity if momentum else None)
    launch_each("sgd", "sgd_step", parameter.size, *arrays, *numbers, real=parameter.dtype)


def step_planned(parameter: Array, gradient: Array, velocity: Array | None, numbers: Array) -> None:
    """`step` with its numbers on the GPU: lr, momentum, dampening, weight_decay, nesterov and first, of the dtype."""
    arrays = (parameter, gradient, velocity, numbers)
    launch_each("sgd", "sgd_step_planned", parameter.size, *arrays, real=parameter.dtype)
