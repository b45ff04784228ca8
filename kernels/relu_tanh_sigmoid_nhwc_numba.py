"""ReLU, tanh and the logistic function over channels-last images and rows: for plans, where no step takes them in.

1. A row of pixels, channels and all, is one line of memory and goes through vector lanes.
2. tanh near 0 is a polynomial, for there (1 - e)/(1 + e) with e = exp(-2|x|) would lose its digits; within 2e-7 of it.

Rows of pixels run in parallel. Formulas: alexnet_np/ops/relu.py, tanh.py, sigmoid.py.
Source of the polynomial: Moshier, "Cephes" (1992), tanhf.c.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from llvmlite import ir

from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, POINTER, Emitter, vector_function

SMALL = 0.625  # up to here tanh is x + x³ * polynomial(x²)
POLYNOMIAL = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)


def relu(e: Emitter, x: ir.Value) -> ir.Value:
    return e.relu(x)


def tanh(e: Emitter, x: ir.Value) -> ir.Value:
    size, square = e.absolute(x), e.product(x, x)
    total = e.constant(POLYNOMIAL[0])
    for coefficient in POLYNOMIAL[1:]:
        total = e.fma(total, square, e.constant(coefficient))
    small = e.fma(e.product(total, square), x, x)
    power = e.exp(e.times(size, -2.0))
    large = e.builder.fdiv(e.minus(e.constant(1.0), power), e.plus(e.constant(1.0), power))
    is_small = e.builder.fcmp_ordered("<", size, e.constant(SMALL))
    return e.select(is_small, small, e.with_sign(large, x))


def sigmoid(e: Emitter, x: ir.Value) -> ir.Value:
    power = e.exp(e.minus(e.constant(0.0), e.absolute(x)))
    positive = e.builder.fcmp_ordered(">=", x, e.constant(0.0))
    return e.builder.fdiv(e.select(positive, e.constant(1.0), power), e.plus(e.constant(1.0), power))


def emit_activation(
    e: Emitter, x: ir.Value, y: ir.Value, count: ir.Value, *, function: Callable[[Emitter, ir.Value], ir.Value]
) -> None:
    """y[i] = function(x[i])."""
    e.vectors(count, lambda i: e.store(function(e, e.load(x, i)), y, i))


KINDS = ("relu", "tanh", "sigmoid")
FUNCTIONS = {kind: partial(emit_activation, function=f) for kind, f in enumerate((relu, tanh, sigmoid))}
activation = vector_function("activation", (POINTER, POINTER, INTEGER), FUNCTIONS)


@block_kernel
def activate(task, _, kind, x, xi, y, yi, C):
    """y = KINDS[kind](x) for channels 0...C of every pixel, and 0 in those that fill a vector up; x is not y."""
    width = max(C, LANES)
    n, i = task // xi.H, task % xi.H
    source = xi.at + n * xi.image + i * xi.row
    target = yi.at + n * yi.image + i * yi.row
    if xi.col == width and yi.col == width:
        activation(kind, x, source, y, target, xi.W * width)
    else:
        for j in range(xi.W):
            activation(kind, x, source + j * xi.col, y, target + j * yi.col, width)
    for j in range(xi.W):
        for c in range(C, width):
            y[target + j * yi.col + c] = np.float32(0)
