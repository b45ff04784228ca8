"""Local response normalisation over channels-last images: the window slides along a pixel's consecutive channels.

1. Channels in vector lanes: a pixel is copied between zeros once, then each shift of the window is one vector load.
2. The power s**-0.75 without `pow`: r = 1/sqrt(s), then r * sqrt(r): two square roots and a division, which are vector
   instructions; within 4e-7 of it. Other betas take `pow`, lane by lane.

Rows of pixels run in parallel. Formula and gradient: alexnet_np/ops/local_response_norm.py.
Source: Krizhevsky, Sutskever, Hinton (2012), sec. 3.3.
Measured (EPYC Zen 4, both cores), 64 maps of 55x55: 0.24 ms an image, backward 0.27; as Numba loops 0.75 and 0.82.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.image import Image, framed
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, POINTER, Emitter, vector_function
from alexnet_np.ops.local_response_norm import Geometry

RUN = 64  # pixels of a block of the backward
SCALE, K, BETA, GRADIENT = range(4)  # where the constants lie: scale, k, beta, -2*scale*beta


class Norm(NamedTuple):
    """y = x * (k + scale * (sum of squares from `low` channels below to `high` above))**-beta."""

    low: int
    high: int
    scale: float
    beta: float
    k: float


class Reach(NamedTuple):
    """How many channels a window has below its own and above, and in all."""

    low: int
    high: int
    size: int


def denominators(
    e: Emitter, padded: ir.Value, c: ir.Value, reach: Reach, constants: ir.Value, three_quarters: bool
) -> tuple[ir.Value, ir.Value]:
    """s and s**-beta at channel c; `padded` is a pixel's x with the window's reach in zeros on both sides."""
    total = e.variable(e.constant(0.0))
    with e.loop(reach.size) as shift:
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
    reach: Reach,
    constants: ir.Value,
    y: ir.Value,
    channels: ir.Value,
    *,
    three_quarters: bool,
) -> None:
    """y = x * s**-beta for one pixel."""

    def body(c: ir.Value) -> None:
        _, power = denominators(e, padded, c, reach, constants, three_quarters)
        e.store(e.product(e.load(padded, e.add(c, reach.low)), power), y, c)

    e.vectors(channels, body)


def emit_products(
    e: Emitter,
    padded: ir.Value,
    reach: Reach,
    constants: ir.Value,
    dy: ir.Value,
    products: ir.Value,
    dx: ir.Value,
    channels: ir.Value,
    *,
    three_quarters: bool,
) -> None:
    """products[high + c] = dy*x*s**(-beta-1) and dx = dy * s**-beta for one pixel."""

    def body(c: ir.Value) -> None:
        s, power = denominators(e, padded, c, reach, constants, three_quarters)
        scaled, x = e.product(e.load(dy, c), power), e.load(padded, e.add(c, reach.low))
        e.store(scaled, dx, c)
        e.store(e.builder.fdiv(e.product(scaled, x), s), products, e.add(c, reach.high))

    e.vectors(channels, body)


def emit_subtract(
    e: Emitter,
    products: ir.Value,
    reach: Reach,
    constants: ir.Value,
    x: ir.Value,
    scaled: ir.Value,
    dx: ir.Value,
    channels: ir.Value,
) -> None:
    """dx = scaled - 2*scale*beta * x * sum over the mirrored window of products."""

    def body(c: ir.Value) -> None:
        total = e.variable(e.constant(0.0))
        with e.loop(reach.size) as shift:
            e.set(total, e.plus(e.get(total), e.load(products, e.add(c, shift))))
        factor = e.product(e.load(x, c), e.broadcast(constants, GRADIENT))
        e.store(e.fma(factor, e.get(total), e.load(scaled, c)), dx, c)

    e.vectors(channels, body)


def by_power(emit: Callable[..., None]) -> dict[int, Callable[..., None]]:
    """Variants 0 and 1: whether beta is 3/4."""
    return {b: partial(emit, three_quarters=bool(b)) for b in (0, 1)}


P, INT = POINTER, INTEGER
normalise_pixel = vector_function("lrn", (P, Reach, P, P, INT), by_power(emit_normalise))
products_of_pixel = vector_function("lrn_products", (P, Reach, P, P, P, P, INT), by_power(emit_products))
subtract_pixel = vector_function("lrn_subtract", (P, Reach, P, P, P, P, INT), {0: emit_subtract})


@kernel
def constants_of(norm):
    return np.array([norm.scale, norm.k, norm.beta, -2 * norm.scale * norm.beta], np.float32)


@kernel
def reach_of(norm):
    return Reach(norm.low, norm.high, norm.low + norm.high + 1)


@block_kernel
def normalise(task, _, x, xi, y, yi, C, stored, norm):
    """y = x * (k + scale * window sum of x²)**-beta, from Image to Image; zeros up to `stored` >= LANES channels."""
    n, i = task // xi.H, task % xi.H
    reach, constants = reach_of(norm), constants_of(norm)
    padded = np.zeros(stored + reach.size - 1, np.float32)
    for j in range(xi.W):
        source = xi.at + n * xi.image + i * xi.row + j * xi.col
        for c in range(C):
            padded[reach.low + c] = x[source + c]
        target = yi.at + n * yi.image + i * yi.row + j * yi.col
        normalise_pixel(np.int64(norm.beta == 0.75), padded, 0, reach, constants, 0, y, target, stored)
        for c in range(C, stored):  # k may be 0, and zero to a negative power times zero is no zero
            y[target + c] = 0


@block_kernel
def normalise_backward(block, _, dy, x, pixels, lane, norm, dx):
    """dx of the formula, all (pixels, lane.stride), for the channels of `lane`, RUN pixels a block."""
    C, first = lane.C, block * RUN
    reach, constants, scaled = reach_of(norm), constants_of(norm), np.empty(C, np.float32)
    padded, products = np.zeros(C + reach.size - 1, np.float32), np.zeros(C + reach.size - 1, np.float32)
    three_quarters = np.int64(norm.beta == 0.75)
    for pixel in range(first, min(first + RUN, pixels)):
        at = pixel * lane.stride + lane.first
        for c in range(C):
            padded[reach.low + c] = x[at + c]
        products_of_pixel(three_quarters, padded, 0, reach, constants, 0, dy, at, products, 0, scaled, 0, C)
        for c in range(lane.real, C):  # as above
            products[reach.high + c] = scaled[c] = 0
        subtract_pixel(0, products, 0, reach, constants, 0, x, at, scaled, 0, dx, at, C)


class Group(NamedTuple):
    """The channels first ... first + C of pixels that lie `stride` floats apart; C >= LANES. From `real` on they fill
    a vector up."""

    first: int
    C: int
    stride: int
    real: int


def normalise_groups(
    x: Array, xi: Image, y: Array, yi: Image, N: int, C: int, geometry: Geometry, filled: int = LANES
) -> None:
    """`normalise` for the C channels of x, each group for itself; fewer than `filled` are filled up with zeros."""
    group, norm = C // geometry.groups, norm_of(geometry)
    for first in range(0, C, group):
        source, target = xi.channels_from(first), yi.channels_from(first)
        normalise[N * xi.H](x, source, y, target, group, max(group, filled), norm)


def norm_of(geometry: Geometry) -> Norm:
    return Norm(geometry.low, geometry.high, geometry.scale, geometry.beta, geometry.k)


def compute(x: Array, geometry: Geometry) -> Array:
    """x (N,C,L), channels-last memory."""
    N, C, L = x.shape
    y = memory.empty((N, L, C))
    image = framed(C, 1, L)
    with threads.parallel():
        normalise_groups(x.transpose(0, 2, 1).reshape(-1), image, y.reshape(-1), image, N, C, geometry)
    return y.transpose(0, 2, 1)


def gradients(dy: Array, x: Array, geometry: Geometry) -> Array:
    N, C, L = x.shape
    dx, group = memory.empty((N, L, C)), C // geometry.groups
    rows = np.require(dy.transpose(0, 2, 1), np.float32, ["C", "W"]).reshape(-1)
    with threads.parallel():
        for first in range(0, C, group):
            lane = Group(first, group, C, group)
            given = (rows, x.transpose(0, 2, 1).reshape(-1), N * L, lane, norm_of(geometry))
            normalise_backward[-(-N * L // RUN)](*given, dx.reshape(-1))
    return dx.transpose(0, 2, 1)
