"""One step of SGD in one pass over memory: weight, gradient, velocity read once, weight and velocity written once.

1. `step` on float32: the rule of alexnet_np/training/sgd.py with everything it can do (momentum, dampening, weight
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


def step(
    w: Array,
    g: Array,
    v: Array | None,
    *,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    first: bool,
) -> None:
    """Update w and v in place; float32 and float64."""
    lines = in_memory_order(w, same_layout(g, w), *(() if v is None else (v,)))
    if lines is None:  # float64, or an odd layout
        from alexnet_np.training.sgd import torch_rule

        rates = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        torch_rule(w, g, v, **rates, nesterov=nesterov, first=first)
        return
    real = np.float32
    with threads.parallel():
        if v is None:
            update_without_momentum(*lines, real(lr), real(weight_decay))
        else:
            update(*lines, real(lr), real(momentum), real(1 - dampening), real(weight_decay), nesterov, first)
