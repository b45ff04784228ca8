"""One step of SGD in one pass over memory: weight, gradient, velocity read once, weight and velocity written once.

1. `compute` on float32: rule "torch" of alexnet_np/ops/sgd.py with everything it can do (momentum, dampening, weight
   decay, Nesterov), in registers, by all threads. Array operations pass over memory once an operation.

Chunks of memory run in parallel.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.cpu.jit import parallel_kernel
from alexnet_np.kernels.relu_numba import in_memory_order, same_layout
from alexnet_np.ops import sgd
from alexnet_np.ops.sgd import Step

CHUNK = 1 << 16


@parallel_kernel
def update(w, g, v, lr, momentum, keep, weight_decay, nesterov, first):
    """v = momentum*v + keep*(g + weight_decay*w), and w -= lr * (v or, with nesterov, g + momentum*v)."""
    for chunk in prange((w.size + CHUNK - 1) // CHUNK):
        start = np.int64(chunk) * CHUNK
        for i in range(start, min(start + CHUNK, w.size)):
            gradient = g[i] + weight_decay * w[i]
            velocity = gradient if first else momentum * v[i] + keep * gradient
            v[i] = velocity
            w[i] -= lr * (gradient + momentum * velocity if nesterov else velocity)


@parallel_kernel
def update_without_momentum(w, g, lr, weight_decay):
    for chunk in prange((w.size + CHUNK - 1) // CHUNK):
        start = np.int64(chunk) * CHUNK
        for i in range(start, min(start + CHUNK, w.size)):
            w[i] -= lr * (g[i] + weight_decay * w[i])


def compute(w: Array, g: Array, v: Array | None, step: Step) -> None:
    """Update w and v in place; rule "torch" on float32, anything else by the array operations."""
    lines = None if step.paper else in_memory_order(w, same_layout(g, w), *(() if v is None else (v,)))
    if lines is None:  # or an odd layout
        sgd.compute(w, g, v, step)
        return
    lr, momentum, keep, decay = (np.float32(x) for x in (step.lr, step.momentum, 1 - step.dampening, step.weight_decay))
    with threads.parallel():
        if v is None:
            update_without_momentum(*lines, lr, decay)
        else:
            update(*lines, lr, momentum, keep, decay, step.nesterov, step.first)
