"""Average pooling over channels-last images: the pixels of a window are added up channel by channel in vector lanes.

1. Forward, from Image to Image, for eager and plans.
2. The backward gathers: each input pixel takes its share from the windows that cover it, so no two threads write to one
   place and results are the same from run to run.

Rows run in parallel: of the output, and of the input in the backward. What a window's sum is divided by stands in an
array (OH,OW), counted once (alexnet_np/ops/avg_pool2d.py). Source: LeCun, Bottou, Bengio, Haffner (1998), sec. II.A.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.image import channels_last, framed
from alexnet_np.kernels.cpu.simd import INTEGER, POINTER, Emitter, vector_function
from alexnet_np.kernels.max_pool2d_nhwc_numba import Window, seen_by, seers_of
from alexnet_np.ops.avg_pool2d import Geometry, divisors


class Block(NamedTuple):
    """Pixels of a window, or windows over a pixel: `row` and `col` floats apart in their image."""

    row: int
    col: int
    rows: int
    cols: int
    width: int  # divisors from one row of windows to the next


def emit_mean(e: Emitter, x: ir.Value, seen: Block, y: ir.Value, divisor: ir.Value, channels: ir.Value) -> None:
    """y[c] = the sum of the pixels seen at x over the divisor."""

    def body(c: ir.Value) -> None:
        total = e.variable(e.constant(0.0))
        with e.loop(seen.rows) as i, e.loop(seen.cols) as j:
            here = e.add(e.add(e.mul(seen.row, i), e.mul(seen.col, j)), c)
            e.set(total, e.plus(e.get(total), e.load(x, here)))
        e.store(e.builder.fdiv(e.get(total), e.broadcast(divisor)), y, c)

    e.vectors(channels, body)


def emit_shares(e: Emitter, dy: ir.Value, divisor: ir.Value, seers: Block, dx: ir.Value, channels: ir.Value) -> None:
    """dx[c] = sum of dy over the divisor, of the windows that see this pixel."""

    def body(c: ir.Value) -> None:
        total = e.variable(e.constant(0.0))
        with e.loop(seers.rows) as i, e.loop(seers.cols) as j:
            here = e.add(e.add(e.mul(seers.row, i), e.mul(seers.col, j)), c)
            over = e.broadcast(divisor, e.add(e.mul(seers.width, i), j))
            e.set(total, e.plus(e.get(total), e.builder.fdiv(e.load(dy, here), over)))
        e.store(e.get(total), dx, c)

    e.vectors(channels, body)


P, I = POINTER, INTEGER  # noqa: E741
mean = vector_function("avg_window", (P, Block, P, P, I), {0: emit_mean})
shares = vector_function("avg_shares", (P, P, Block, P, I), {0: emit_shares})


@block_kernel
def pool(task, _, x, xi, y, yi, divisors, C, window):
    """The mean of every window of the images xi into yi; C >= LANES. divisors: (OH,OW), flat."""
    for j in range(yi.W):
        view = seen_by(task, j, xi, yi, window)
        seen = Block(xi.row, xi.col, view.rows, view.cols, yi.W)
        mean(0, x, view.source, seen, y, view.target, divisors, task % yi.H * yi.W + j, C)


@block_kernel
def unpool(task, _, dy, yi, divisors, dx, xi, C, window):
    """dx, images as xi has them, from dy, images as yi has them; none with a frame."""
    for j in range(xi.W):
        view = seers_of(task, j, xi, yi, window)
        seers = Block(yi.row, yi.col, view.rows, view.cols, yi.W)
        shares(0, dy, view.source, divisors, view.down * yi.W + view.across, seers, dx, view.target, C)


def window_of(geometry: Geometry) -> Window:
    return Window(*geometry.kernel, *geometry.stride, *geometry.padding)


def flat_divisors(geometry: Geometry, shape: tuple[int, ...]) -> Array:
    """(OH*OW,), float32."""
    return divisors(geometry, shape).astype(np.float32).reshape(-1)


def compute(x: Array, geometry: Geometry) -> Array:
    """x (N,C,H,W), channels-last memory."""
    N, C, _, _ = x.shape
    y = memory.empty((N, *geometry.output, C))
    flat, xi = channels_last(x)
    with threads.parallel():
        yi, over = framed(C, *geometry.output), flat_divisors(geometry, x.shape)
        pool[N * yi.H](flat, xi, y.reshape(-1), yi, over, C, window_of(geometry))
    return y.transpose(0, 3, 1, 2)


def gradients(dy: Array, shape: tuple[int, ...], geometry: Geometry) -> Array:
    """dy (N,C,OH,OW), channels-last memory."""
    N, C, H, W = shape
    dx = memory.empty((N, H, W, C))
    flat, yi = channels_last(dy)
    with threads.parallel():
        xi, over = framed(C, H, W), flat_divisors(geometry, shape)
        unpool[N * H](flat, yi, over, dx.reshape(-1), xi, C, window_of(geometry))
    return dx.transpose(0, 3, 1, 2)
