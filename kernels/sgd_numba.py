"""One step of SGD in one pass over memory: weight, gradient, velocity read once, weight and velocity written once.

1. `compute` on float32: rule "torch" of alexnet_np/ops/sgd.py with everything it can do (momentum, dampening, weight
   decay, Nesterov), in registers, by all threads. Array operations pass over memory once an operation.

Chunks of memory run in parallel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels.array_version import array_version
from alexnet_np.kernels.cpu.jit import parallel_kernel
from alexnet_np.kernels.relu_numba import in_memory_order, same_layout
from alexnet_np.ops.sgd import Step


class Rates(NamedTuple):
    """In float32, so that what is computed is."""

    lr: np.float32
    momentum: np.float32
    keep: np.float32  # 1 - dampening
    weight_decay: np.float32
    nesterov: bool
    first: bool  # v holds nothing yet


@parallel_kernel
def update(w, g, v, rates, chunk):
    """v = momentum*v + keep*(g + weight_decay*w), and w -= lr * (v or, with nesterov, g + momentum*v)."""
    for task in prange((w.size + chunk - 1) // chunk):
        start = np.int64(task) * chunk
        for i in range(start, min(start + chunk, w.size)):
            gradient = g[i] + rates.weight_decay * w[i]
            velocity = gradient if rates.first else rates.momentum * v[i] + rates.keep * gradient
            v[i] = velocity
            w[i] -= rates.lr * (gradient + rates.momentum * velocity if rates.nesterov else velocity)


@parallel_kernel
def update_without_momentum(w, g, rates, chunk):
    for task in prange((w.size + chunk - 1) // chunk):
        start = np.int64(task) * chunk
        for i in range(start, min(start + chunk, w.size)):
            w[i] -= rates.lr * (g[i] + rates.weight_decay * w[i])


def compute(w: Array, g: Array, v: Array | None, step: Step) -> None:
    """Update w and v in place; rule "torch" on float32, anything else by the array operations."""
    lines = None if step.paper else in_memory_order(w, same_layout(g, w), *(() if v is None else (v,)))
    if lines is None:
        array_version("sgd").compute(w, g, v, step)
        return
    lr, momentum, keep, decay = map(np.float32, (step.lr, step.momentum, 1 - step.dampening, step.weight_decay))
    rates = Rates(lr, momentum, keep, decay, step.nesterov, step.first)
    with threads.parallel():
        (update_without_momentum if v is None else update)(*lines, rates, choices.sizes("sgd")["chunk"])
