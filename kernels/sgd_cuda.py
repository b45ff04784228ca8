"""One step of SGD on the GPU in one pass over a parameter; see sgd.cu. The signature of alexnet_np/ops/sgd.py."""

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import contiguous, launch_each
from alexnet_np.ops.sgd import Step

NUMBERS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "first")  # what `compute_planned` reads, in order


def compute(w: Array, g: Array, v: Array | None, step: Step) -> None:
    """Update w and v, both in C order."""
    launch_each("sgd", "sgd_step", w.size, w, contiguous(g), v, step, real=w.dtype)


def compute_planned(w: Array, g: Array, v: Array | None, numbers: Array, paper: bool) -> None:
    """`compute` with its NUMBERS on the GPU, of the arrays' dtype."""
    launch_each("sgd", "sgd_step_planned", w.size, w, g, v, numbers, np.bool_(paper), real=w.dtype)
