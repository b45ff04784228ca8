"""One step of SGD in one pass over memory: weight, gradient, velocity read once, weight and velocity written once.

1. `compute` on float32: both rules of alexnet_np/ops/sgd.py with everything they can do (momentum, dampening, weight
   decay, Nesterov), in vector registers, by all threads. Array operations pass over memory once an operation.
2. `sgd_run`, the same of a run of floats, for a kernel that has just computed its gradient (linear_training_numba.py):
   then the gradient is never in memory.

Chunks of memory run in parallel.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from llvmlite import ir

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels.array_version import array_version
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, POINTER, Emitter, vector_function
from alexnet_np.kernels.relu_numba import in_memory_order, same_layout
from alexnet_np.ops.sgd import Step

MOMENTUM, KEEP, DECAY, MINUS_RATE, MINUS_RATE_DECAY = range(5)  # where a rule's numbers lie; KEEP is 1 - dampening
PAPER, NESTEROV, BEGUN, VELOCITY = 8, 4, 2, 1  # the bits of the number that compiled code knows a rule by


def emit_run(
    e: Emitter, w: ir.Value, g: ir.Value, v: ir.Value, numbers: ir.Value, count: ir.Value, *, rule: int
) -> None:
    """w and v after a step, for `count` floats, whole vectors of them."""

    def number(which: int) -> ir.Value:
        return e.broadcast(numbers, which)

    with e.loop(e.builder.udiv(count, e.int(LANES))) as i:
        at = e.mul(i, LANES)
        weight, gradient = e.load(w, at), e.load(g, at)
        if rule & PAPER:
            change = e.fma(number(MINUS_RATE), gradient, e.product(number(MINUS_RATE_DECAY), weight))
        else:
            gradient = change = e.fma(number(DECAY), weight, gradient)
        if rule & VELOCITY:
            if rule & BEGUN:
                added = change if rule & PAPER else e.product(number(KEEP), change)
                change = e.fma(number(MOMENTUM), e.load(v, at), added)
            e.store(change, v, at)
        if rule & NESTEROV:
            change = e.fma(number(MOMENTUM), change, gradient)
        e.store(e.plus(weight, change) if rule & PAPER else e.fma(number(MINUS_RATE), change, weight), w, at)


RULES = (0, 1, 3, 5, 7, 8, 9, 11)  # Nesterov's and BEGUN only with a velocity, Nesterov's only by torch's rule
P = POINTER
sgd_run = vector_function("sgd_run", (P, P, P, P, INTEGER), {rule: partial(emit_run, rule=rule) for rule in RULES})


@block_kernel
def update(task, _, w, g, v, rule, numbers, chunk):
    """One step of lines of memory, `chunk` floats, a multiple of LANES, a task."""
    start = task * chunk
    count = min(chunk, w.size - start)
    whole = count // LANES * LANES
    sgd_run(rule, w, start, g, start, v, start, numbers, 0, whole)
    if whole < count:
        rest = np.zeros(3 * LANES, np.float32)
        for i in range(count - whole):
            at = start + whole + i
            rest[i], rest[LANES + i], rest[2 * LANES + i] = w[at], g[at], v[at]
        sgd_run(rule, rest, 0, rest, LANES, rest, 2 * LANES, numbers, 0, LANES)
        for i in range(count - whole):
            at = start + whole + i
            w[at] = rest[i]
            if rule & VELOCITY:
                v[at] = rest[2 * LANES + i]


def rule_of(step: Step, velocity: bool) -> tuple[int, Array]:
    """The rule's number and its numbers, for a parameter that has a velocity or has none."""
    rule = PAPER if step.paper else 0
    if velocity:
        rule += VELOCITY + (0 if step.first else BEGUN) + (NESTEROV if step.nesterov else 0)
    decay = -step.lr * step.weight_decay
    return rule, np.array([step.momentum, 1 - step.dampening, step.weight_decay, -step.lr, decay], np.float32)


def compute(w: Array, g: Array, v: Array | None, step: Step) -> None:
    """Update w and v in place: float32; anything else by the array operations."""
    lines = in_memory_order(w, same_layout(g, w), *(() if v is None else (v,)))
    if lines is None:
        array_version("sgd").compute(w, g, v, step)
        return
    w, g, v = (*lines, lines[0])[:3]  # without a velocity nothing is written there
    with threads.parallel():
        chunk = choices.sizes("sgd")["chunk"]
        update[-(-w.size // chunk)](w, g, v, *rule_of(step, len(lines) == 3), chunk)
