"""The gradients of ReLU, tanh and the logistic function over channels-last images and rows, for training plans.

All three follow from the output y: dx = dy where y > 0; dy * (1 - y²); dy * y * (1 - y). Rows of pixels run in
parallel. The forward is relu_tanh_sigmoid_nhwc_numba.py; formulas: alexnet_np/ops/relu.py, tanh.py, sigmoid.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from llvmlite import ir

from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, POINTER, Emitter, vector_function
from alexnet_np.kernels.relu_tanh_sigmoid_nhwc_numba import KINDS

Gradient = Callable[[Emitter, ir.Value, ir.Value], ir.Value]


def relu(e: Emitter, dy: ir.Value, y: ir.Value) -> ir.Value:
    stopped = e.builder.fcmp_ordered("<=", y, e.constant(0.0))
    return e.select(stopped, e.constant(0.0), dy)


def tanh(e: Emitter, dy: ir.Value, y: ir.Value) -> ir.Value:
    return e.product(dy, e.minus(e.constant(1.0), e.product(y, y)))


def sigmoid(e: Emitter, dy: ir.Value, y: ir.Value) -> ir.Value:
    return e.product(dy, e.product(y, e.minus(e.constant(1.0), y)))


def emit_gradient(e: Emitter, dy: ir.Value, y: ir.Value, dx: ir.Value, count: ir.Value, *, gradient: Gradient) -> None:
    """dx[i] = gradient(dy[i], y[i]) for `count` floats, whole vectors of them; dx may be dy."""
    with e.loop(e.builder.udiv(count, e.int(LANES))) as i:
        at = e.mul(i, LANES)
        e.store(gradient(e, e.load(dy, at), e.load(y, at)), dx, at)


BY_KIND = {
    KINDS.index(function.__name__): partial(emit_gradient, gradient=function) for function in (relu, tanh, sigmoid)
}
of_run = vector_function("activation_gradient", (POINTER, POINTER, POINTER, INTEGER), BY_KIND)


@block_kernel
def gradients(task, _, kind, dy, dyi, y, yi, dx, dxi, width):
    """From Image to Image, `width` channels of each pixel, whole vectors of them; dx may be dy."""
    n, i = task // yi.H, task % yi.H
    given = dyi.at + n * dyi.image + i * dyi.row
    output, target = yi.at + n * yi.image + i * yi.row, dxi.at + n * dxi.image + i * dxi.row
    if dyi.col == width and yi.col == width and dxi.col == width:
        of_run(kind, dy, given, y, output, dx, target, yi.W * width)
    else:
        for j in range(yi.W):
            at = given + j * dyi.col
            of_run(kind, dy, at, y, output + j * yi.col, dx, target + j * dxi.col, width)
