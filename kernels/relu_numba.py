"""ReLU in memory order, whatever the axes' order is, by all threads: one read and one write of memory.

Where it follows a convolution it costs nothing: it is part of the convolution (conv2d_winograd). In vector code by
hand: Numba's loops stay scalar where one array may be the other. Chunks of memory run in parallel.
Semantics: alexnet_np/ops/relu.py.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels.array_version import array_version
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, POINTER, Emitter, vector_function


def emit_rectify(e: Emitter, x: ir.Value, y: ir.Value, count: ir.Value) -> None:
    """y[i] = max(x[i], 0)."""
    e.vectors(count, lambda i: e.store(e.relu(e.load(x, i)), y, i))


def emit_mask(e: Emitter, dy: ir.Value, y: ir.Value, dx: ir.Value, count: ir.Value) -> None:
    """dx[i] = 0 where y[i] <= 0, else dy[i]; dx may be dy: what the last vector masks again stays as it is."""

    def body(i: ir.Value) -> None:
        stopped = e.builder.fcmp_ordered("<=", e.load(y, i), e.constant(0.0))
        e.store(e.select(stopped, e.constant(0.0), e.load(dy, i)), dx, i)

    e.vectors(count, body)


rectify_vectors = vector_function("relu_rectify", (POINTER, POINTER, INTEGER), {0: emit_rectify})
mask_vectors = vector_function("relu_mask", (POINTER, POINTER, POINTER, INTEGER), {0: emit_mask})


@block_kernel
def rectify(task, _, x, y, chunk):
    """y = max(x, 0), `chunk` floats a task."""
    first = task * chunk
    count = min(chunk, x.size - first)
    if count >= LANES:
        rectify_vectors(0, x, first, y, first, count)
    else:
        for i in range(first, first + count):
            y[i] = np.float32(0) if x[i] < 0 else x[i]


@block_kernel
def rectify_gradient(task, _, dy, y, dx, chunk):
    """dx = dy where y > 0, else 0."""
    first = task * chunk
    count = min(chunk, y.size - first)
    if count >= LANES:
        mask_vectors(0, dy, first, y, first, dx, first, count)
    else:
        for i in range(first, first + count):
            dx[i] = np.float32(0) if y[i] <= 0 else dy[i]


def compute(x: Array) -> Array:
    y = memory.empty_like(x)
    lines = in_memory_order(x, y)
    if lines is None:
        return array_version("relu").compute(x)
    with threads.parallel():
        chunk = choices.sizes("relu")["chunk"]
        rectify[-(-x.size // chunk)](*lines, chunk)
    return y


def gradients(dy: Array, y: Array) -> Array:
    dx = memory.empty_like(y)
    lines = in_memory_order(same_layout(dy, y), y, dx)
    if lines is None:
        return array_version("relu").gradients(dy, y)
    mask(*lines)
    return dx


def mask(dy: Array, y: Array, dx: Array) -> None:
    """`gradients` into dx, which may be dy; all three lines of memory."""
    with threads.parallel():
        chunk = choices.sizes("relu")["chunk"]
        rectify_gradient[-(-y.size // chunk)](dy, y, dx, chunk)


def same_layout(dy: Array, like: Array) -> Array:
    """`dy` with the strides of `like`: as it is if it has them, else a copy."""
    if dy.strides == like.strides:
        return dy
    copy = memory.empty_like(like)
    copy[...] = dy
    return copy


def in_memory_order(*arrays: Array) -> list[Array] | None:
    """Each array as a line in the order it lies in memory: float32 without gaps, all in one layout; else None."""
    lines = []
    for x in arrays:
        if x.dtype != np.float32 or x.strides != arrays[0].strides or not x.flags.writeable:
            return None
        by_stride = x.transpose(sorted(range(x.ndim), key=lambda axis: (-x.strides[axis], axis)))  # noqa: B023
        if not by_stride.flags.c_contiguous:
            return None
        lines.append(by_stride.reshape(-1))
    return lines
