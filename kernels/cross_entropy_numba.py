"""Softmax cross-entropy of rows of logits, fused: each row is read from memory once, forward and backward.

1. The array version (alexnet_np/ops/cross_entropy.py) writes log-softmax, its products and their sum one after another.
2. Here a row lies in the cache while its largest logit, the sum of exponentials and the loss are found; with
   d = x - max x:  loss = log(sum of exp d) * (sum of T) - sum of T*d,  summed in float64, so only exp rounds.
   The gradient dy * (exp d / (sum of exp d) * (sum of T) - T) takes two more passes over the row, in the cache too.
3. exp in vector lanes (simd.py) instead of a call a number.

Rows run in parallel; each is copied into room for whole vectors, filled up with logits of minus infinity.
Source: the shifted exponentials: Goodfellow, Bengio, Courville, "Deep Learning" (2016), sec. 4.1.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import prange

from alexnet_np import threads
from alexnet_np.backend import Array
from alexnet_np.kernels import memory
from alexnet_np.kernels.jit import kernel, parallel_kernel
from alexnet_np.kernels.simd import INTEGER, LANES, POINTER, Emitter, vector_function
from alexnet_np.ops import cross_entropy as array_version


def largest(e: Emitter, x: ir.Value, vectors: ir.Value) -> ir.Value:
    """The largest of x, in every lane; NaN does not count."""
    most = e.variable(e.constant(float("-inf")))
    with e.loop(vectors) as i:
        e.set(most, e.larger(e.load(x, e.mul(i, LANES)), e.get(most)))
    return e.spread(e.across(e.larger, e.get(most)))


def emit_loss(e: Emitter, x: ir.Value, t: ir.Value, vectors: ir.Value, loss: ir.Value) -> None:
    """loss[0] = log(sum of exp d) * (sum of t) - sum of t*d for d = x - max x; where t is 0, t*d is."""
    wide, top = e.in_double(), largest(e, x, vectors)
    exponentials, mass, dot = (e.variable(wide.constant(0.0)) for _ in range(3))
    with e.loop(vectors) as i:
        at = e.mul(i, LANES)
        d, c = e.minus(e.load(x, at), top), e.load(t, at)
        e.set(exponentials, e.plus(e.get(exponentials), wide.widen(e.exp(d))))
        e.set(mass, e.plus(e.get(mass), wide.widen(c)))
        term = e.product(wide.widen(c), wide.widen(d))
        e.set(dot, e.plus(e.get(dot), e.select(e.equal(c, e.constant(0.0)), wide.constant(0.0), term)))
    total, share, sum_of_terms = (e.across(e.plus, e.get(slot)) for slot in (exponentials, mass, dot))
    logarithm = e.builder.call(e.builder.module.declare_intrinsic("llvm.log", [ir.DoubleType()]), [total])
    weighted = e.product(logarithm, share)
    none = e.equal(share, ir.Constant(ir.DoubleType(), 0.0))  # an ignored row, whatever is in it
    weighted = e.select(none, ir.Constant(ir.DoubleType(), 0.0), weighted)
    e.builder.store(e.builder.fptrunc(e.minus(weighted, sum_of_terms), ir.FloatType()), loss)


def emit_gradient(
    e: Emitter, x: ir.Value, t: ir.Value, vectors: ir.Value, dy: ir.Value, dx: ir.Value
) -> None:
    """dx = dy[0] * (exp d / (sum of exp d) * (sum of t) - t) for d = x - max x."""
    wide, top = e.in_double(), largest(e, x, vectors)
    exponentials, mass = (e.variable(wide.constant(0.0)) for _ in range(2))
    with e.loop(vectors) as i:
        at = e.mul(i, LANES)
        power = e.exp(e.minus(e.load(x, at), top))
        e.store(power, dx, at)
        e.set(exponentials, e.plus(e.get(exponentials), wide.widen(power)))
        e.set(mass, e.plus(e.get(mass), wide.widen(e.load(t, at))))
    total, share = (e.across(e.plus, e.get(slot)) for slot in (exponentials, mass))
    factor = e.spread(e.builder.fptrunc(e.builder.fdiv(share, total), ir.FloatType()))
    scale = e.broadcast(dy)
    with e.loop(vectors) as i:
        at = e.mul(i, LANES)
        inner = e.fma(e.load(dx, at), factor, e.minus(e.constant(0.0), e.load(t, at)))
        e.store(e.product(scale, inner), dx, at)


P, I = POINTER, INTEGER  # noqa: E741
loss_of_row = vector_function("cross_entropy_loss", (P, P, I, P), {0: emit_loss})
gradient_of_row = vector_function("cross_entropy_gradient", (P, P, I, P, P), {0: emit_gradient})


@kernel
def copy_row(row, C, rest, width, source, work, at):
    for c in range(C):
        work[at + c] = source[row * C + c]
    for c in range(C, width):
        work[at + c] = rest


@parallel_kernel
def losses_of_rows(logits, coefficients, rows, C, width, losses, work, workers):
    """losses[n] for rows n of logits and coefficients (rows,C), flat; `work` has 2*width floats a worker."""
    for worker in prange(workers):
        w = np.int64(worker)
        x, t = 2 * width * w, 2 * width * w + width
        for n in range(w * rows // workers, (w + 1) * rows // workers):
            copy_row(n, C, np.float32(-np.inf), width, logits, work, x)
            copy_row(n, C, np.float32(0), width, coefficients, work, t)
            loss_of_row(0, work, x, work, t, width // LANES, losses, n)


@parallel_kernel
def gradients_of_rows(dy, logits, coefficients, rows, C, width, dlogits, work, workers):
    """dlogits (rows,C) for dy (rows,); `work` has 3*width floats a worker."""
    for worker in prange(workers):
        w = np.int64(worker)
        x, t, dx = 3 * width * w, 3 * width * w + width, 3 * width * w + 2 * width
        for n in range(w * rows // workers, (w + 1) * rows // workers):
            copy_row(n, C, np.float32(-np.inf), width, logits, work, x)
            copy_row(n, C, np.float32(0), width, coefficients, work, t)
            gradient_of_row(0, work, x, work, t, width // LANES, dy, n, work, dx)
            for c in range(C):
                dlogits[n * C + c] = work[dx + c]


def compute(logits: Array, coefficients: Array) -> Array:
    if not _fits(logits):
        return array_version.compute(logits, coefficients)
    N, C, L = logits.shape
    losses = np.empty(N * L, np.float32)
    width = -(-C // LANES) * LANES
    with threads.parallel() as workers:
        work = threads.scratch(2 * width * workers)
        losses_of_rows(as_rows(logits), as_rows(coefficients), N * L, C, width, losses, work, workers)
    return losses.reshape(N, L)


def gradients(dy: Array, logits: Array, coefficients: Array) -> Array:
    """`dy` is (N,1,L), or one number for every row."""
    if not _fits(logits):
        return array_version.gradients(dy, logits, coefficients)
    N, C, L = logits.shape
    scales = np.broadcast_to(np.asarray(dy, np.float32), (N, 1, L))
    dlogits = memory.empty((N, L, C))
    width = -(-C // LANES) * LANES
    with threads.parallel() as workers:
        work = threads.scratch(3 * width * workers)
        arguments = (as_rows(scales), as_rows(logits), as_rows(coefficients), N * L, C, width)
        gradients_of_rows(*arguments, dlogits.reshape(-1), work, workers)
    return dlogits.transpose(0, 2, 1)


def as_rows(x: Array) -> Array:
    """x (N,C,L) as flat memory (N,L,C), which kernels are compiled for if it is writeable."""
    return np.require(x.transpose(0, 2, 1), np.float32, ["C", "W"]).reshape(-1)


def _fits(logits: Array) -> bool:
    return logits.dtype == np.float32 and logits.size > 0
