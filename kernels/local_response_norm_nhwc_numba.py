"""Local response normalisation over channels-last images: the window slides along a pixel's consecutive channels.

1. Channels in vector lanes: a pixel is copied between zeros once, then each shift of the window is one vector load.
2. The power s**-0.75 without `pow`: r = 1/sqrt(s), then r * sqrt(r): two square roots and a division, which are vector
   instructions; within 4e-7 of it. Other betas take `pow`, lane by lane.

Rows of pixels run in parallel. Formula and gradient: alexnet_np/ops/local_response_norm.py.
Source: Krizhevsky, Sutskever, Hinton (2012), sec. 3.3.
Measured (EPYC Zen 4, both cores), 64 maps of 55x55: 0.24 ms an image, backward 0.27; as Numba loops 0.75 and 0.82.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from llvmlite import ir
from numba import prange

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.image import framed
from alexnet_np.kernels.cpu.jit import kernel, parallel_kernel
from alexnet_np.kernels.cpu.simd import INTEGER, POINTER, Emitter, vector_function
from alexnet_np.ops.local_response_norm import Geometry

SCALE, K, BETA, GRADIENT = range(4)  # where the constants lie: scale, k, beta, -2*scale*beta


def denominators(
    e: Emitter, padded: ir.Value, c: ir.Value, size: ir.Value, constants: ir.Value, three_quarters: bool
) -> tuple[ir.Value, ir.Value]:
    """s and s**-beta at channel c; `padded` is a pixel's x with the window's reach in zeros on both sides."""
    total = e.variable(e.constant(0.0))
    with e.loop(size) as shift:
        x = e.load(padded, e.add(c, shift))
        e.set(total, e.fma(x, x, e.get(total)))
    s = e.fma(e.broadcast(constants, SCALE), e.get(total), e.broadcast(constants, K))
    if not three_quarters:
        return s, e.power(s, e.minus(e.constant(0.0), e.broadcast(constants, BETA)))
    r = e.builder.fdiv(e.constant(1.0), e.sqrt(s))
    return s, e.product(r, e.sqrt(r))


def emit_normalise(
    e: Emitter,
    padded: ir.Value,
    low: ir.Value,
    size: ir.Value,
    constants: ir.Value,
    y: ir.Value,
    channels: ir.Value,
    *,
    three_quarters: bool,
) -> None:
    """y = x * s**-beta for one pixel."""

    def body(c: ir.Value) -> None:
        _, power = denominators(e, padded, c, size, constants, three_quarters)
        e.store(e.product(e.load(padded, e.add(c, low)), power), y, c)

    e.vectors(channels, body)


def emit_products(
    e: Emitter,
    padded: ir.Value,
    low: ir.Value,
    size: ir.Value,
    constants: ir.Value,
    dy: ir.Value,
    products: ir.Value,
    high: ir.Value,
    dx: ir.Value,
    channels: ir.Value,
    *,
    three_quarters: bool,
) -> None:
    """products[high + c] = dy*x*s**(-beta-1) and dx = dy * s**-beta for one pixel."""

    def body(c: ir.Value) -> None:
        s, power = denominators(e, padded, c, size, constants, three_quarters)
        scaled = e.product(e.load(dy, c), power)
        e.store(scaled, dx, c)
        e.store(e.builder.fdiv(e.product(scaled, e.load(padded, e.add(c, low))), s), products, e.add(c, high))

    e.vectors(channels, body)


def emit_subtract(
    e: Emitter,
    products: ir.Value,
    size: ir.Value,
    constants: ir.Value,
    x: ir.Value,
    scaled: ir.Value,
    dx: ir.Value,
    channels: ir.Value,
) -> None:
    """dx = scaled - 2*scale*beta * x * sum over the mirrored window of products."""

    def body(c: ir.Value) -> None:
        total = e.variable(e.constant(0.0))
        with e.loop(size) as shift:
            e.set(total, e.plus(e.get(total), e.load(products, e.add(c, shift))))
        factor = e.product(e.load(x, c), e.broadcast(constants, GRADIENT))
        e.store(e.fma(factor, e.get(total), e.load(scaled, c)), dx, c)

    e.vectors(channels, body)


P, INT = POINTER, INTEGER
BOTH = (0, 1)  # whether beta is 3/4
normalise_pixel = vector_function(
    "lrn", (P, INT, INT, P, P, INT), {b: partial(emit_normalise, three_quarters=bool(b)) for b in BOTH}
)
products_of_pixel = vector_function(
    "lrn_products",
    (P, INT, INT, P, P, P, INT, P, INT),
    {b: partial(emit_products, three_quarters=bool(b)) for b in BOTH},
)
subtract_pixel = vector_function("lrn_subtract", (P, INT, P, P, P, P, INT), {0: emit_subtract})


@kernel
def constants_of(scale, beta, k):
    return np.array([scale, k, beta, -2 * scale * beta], np.float32)


@parallel_kernel
def normalise(x, xi, y, yi, N, C, low, high, scale, beta, k):
    """y = x * (k + scale * window sum of x²)**-beta, from Image to Image; C >= LANES."""
    for task in prange(N * xi.H):
        n, i = np.int64(task) // xi.H, np.int64(task) % xi.H
        constants, padded = constants_of(scale, beta, k), np.zeros(C + low + high, np.float32)
        for j in range(xi.W):
            source = xi.at + n * xi.image + i * xi.row + j * xi.col
            for c in range(C):
                padded[low + c] = x[source + c]
            target = yi.at + n * yi.image + i * yi.row + j * yi.col
            normalise_pixel(np.int64(beta == 0.75), padded, 0, low, low + high + 1, constants, 0, y, target, C)


@parallel_kernel
def normalise_backward(dy, x, pixels, C, low, high, scale, beta, k, dx, workers):
    """dx of the formula, all (pixels, C); C >= LANES."""
    for worker in prange(workers):
        w = np.int64(worker)
        constants, scaled = constants_of(scale, beta, k), np.empty(C, np.float32)
        padded, products = np.zeros(C + low + high, np.float32), np.zeros(C + low + high, np.float32)
        three_quarters, size = np.int64(beta == 0.75), low + high + 1
        for pixel in range(w * pixels // workers, (w + 1) * pixels // workers):
            at = pixel * C
            for c in range(C):
                padded[low + c] = x[at + c]
            products_of_pixel(
                three_quarters, padded, 0, low, size, constants, 0, dy, at, products, 0, high, scaled, 0, C
            )  # fmt: skip
            subtract_pixel(0, products, 0, size, constants, 0, x, at, scaled, 0, dx, at, C)


def compute(x: Array, geometry: Geometry) -> Array:
    """x (N,C,L), channels-last memory."""
    N, C, L = x.shape
    y = memory.empty((N, L, C))
    image = framed(C, 1, L)
    with threads.parallel():
        normalise(x.transpose(0, 2, 1).reshape(-1), image, y.reshape(-1), image, N, C, *geometry)
    return y.transpose(0, 2, 1)


def gradients(dy: Array, x: Array, geometry: Geometry) -> Array:
    N, C, L = x.shape
    dx = memory.empty((N, L, C))
    rows = np.require(dy.transpose(0, 2, 1), np.float32, ["C", "W"]).reshape(-1)
    with threads.parallel() as workers:
        normalise_backward(rows, x.transpose(0, 2, 1).reshape(-1), N * L, C, *geometry, dx.reshape(-1), workers)
    return dx.transpose(0, 2, 1)
