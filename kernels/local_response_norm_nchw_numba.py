"""local_response_norm in Numba, float32 and float64.

1. `naive_compute`, `naive_gradients`: the formula element by element, in float64.
2. `compute`, `gradients`: parallel over images and blocks of positions. A block's channels stay in cache while the
   window passes over them; the inner loop runs along positions, which are consecutive in memory. Every window is summed
   afresh: a running sum would subtract what it added before, and keep the rounding.
   s**0.75 is t * sqrt(t) with t = sqrt(s), a few vector instructions where pow is a call.

Inputs in another memory order (channels-last, strided), read-only or not aligned are copied first: Numba would compile
the kernels anew for each kind.
Source: Krizhevsky, Sutskever, Hinton (2012), sec. 3.3.
Measured (EPYC Zen 4, 2 cores, the paper's two normalisations at batch 8, float32), against the array version: forward
2.5 to 2.8 times as fast, backward 3.3 to 3.7 times.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels import local_response_norm_within_numba as within
from alexnet_np.kernels.array_version import array_version
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.memory import plain
from alexnet_np.ops.local_response_norm import Geometry, by_group

ROOTS = (0.5, 0.75)  # the beta that square roots can give; any other is left to NumPy, whose pow is vectorised


def naive_compute(x: Array, geometry: Geometry) -> Array:
    return (naive_within if geometry.region == "within" else naive_across)(x, geometry)


def naive_gradients(dy: Array, x: Array, geometry: Geometry) -> Array:
    return (naive_gradients_within if geometry.region == "within" else naive_gradients_across)(dy, x, geometry)


@kernel
def naive_within(x: Array, geometry: Geometry) -> Array:
    low, high, scale, beta, k = geometry.low, geometry.high, geometry.scale, geometry.beta, geometry.k
    N, C, H, W = x.shape
    y = np.empty_like(x)
    for n, c, i, j in np.ndindex(N, C, H, W):
        s = k
        for row in range(max(0, i - low), min(H, i + high + 1)):
            for column in range(max(0, j - low), min(W, j + high + 1)):
                s += scale * float(x[n, c, row, column]) ** 2
        y[n, c, i, j] = x[n, c, i, j] / s**beta
    return y


@kernel
def naive_gradients_within(dy: Array, x: Array, geometry: Geometry) -> Array:
    low, high, scale, beta, k = geometry.low, geometry.high, geometry.scale, geometry.beta, geometry.k
    N, C, H, W = x.shape
    dx = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(N, C, H, W):
        s = k
        for row in range(max(0, i - low), min(H, i + high + 1)):
            for column in range(max(0, j - low), min(W, j + high + 1)):
                s += scale * float(x[n, c, row, column]) ** 2
        dx[n, c, i, j] += dy[n, c, i, j] * s**-beta
        pull = 2 * scale * beta * float(dy[n, c, i, j]) * float(x[n, c, i, j]) * s ** (-beta - 1)
        for row in range(max(0, i - low), min(H, i + high + 1)):
            for column in range(max(0, j - low), min(W, j + high + 1)):
                dx[n, c, row, column] -= pull * float(x[n, c, row, column])
    return dx.astype(x.dtype)


@kernel
def naive_across(x: Array, geometry: Geometry) -> Array:
    low, high, scale, beta, k = geometry.low, geometry.high, geometry.scale, geometry.beta, geometry.k
    N, C, L = x.shape
    group = C // geometry.groups
    y = np.empty_like(x)
    for n in range(N):
        for c in range(C):
            first = c // group * group
            for p in range(L):
                s = k
                for other in range(max(first, c - low), min(first + group, c + high + 1)):
                    s += scale * float(x[n, other, p]) ** 2
                y[n, c, p] = x[n, c, p] / s**beta
    return y


@kernel
def naive_gradients_across(dy: Array, x: Array, geometry: Geometry) -> Array:
    low, high, scale, beta, k = geometry.low, geometry.high, geometry.scale, geometry.beta, geometry.k
    N, C, L = x.shape
    group = C // geometry.groups
    dx = np.zeros(x.shape)
    for n in range(N):
        for c in range(C):
            first = c // group * group
            for p in range(L):
                s = k
                for other in range(max(first, c - low), min(first + group, c + high + 1)):
                    s += scale * float(x[n, other, p]) ** 2
                dx[n, c, p] += dy[n, c, p] * s**-beta
                for other in range(max(first, c - low), min(first + group, c + high + 1)):
                    pull = float(dy[n, c, p]) * float(x[n, c, p]) * s ** (-beta - 1)
                    dx[n, other, p] -= 2 * scale * beta * float(x[n, other, p]) * pull
    return dx.astype(x.dtype)


class Norm(NamedTuple):
    """s = k + scale * (sum of squares from `low` channels below to `high` above), y = x * s**-beta; numbers as x's."""

    low: int
    high: int
    k: np.floating
    scale: np.floating
    beta: np.floating
    factor: np.floating  # the gradient's 2 * scale * beta


def norm_of(x: Array, geometry: Geometry) -> Norm:
    """In x's dtype, so that float32 stays float32."""
    numbers = (geometry.k, geometry.scale, geometry.beta, 2 * geometry.scale * geometry.beta)
    return Norm(geometry.low, geometry.high, *(x.dtype.type(number) for number in numbers))


def compute(x: Array, geometry: Geometry) -> Array:
    if geometry.region == "within":
        return within.compute(x, geometry)
    if left(geometry):
        return array_version("local_response_norm").compute(x, geometry)
    x = plain(x)
    y = np.empty_like(x)
    with threads.parallel():
        given, made = by_group(x, geometry.groups), by_group(y, geometry.groups)
        _forward[tasks(given)](given, norm_of(x, geometry), positions(), made)
    return y


def gradients(dy: Array, x: Array, geometry: Geometry) -> Array:
    if geometry.region == "within":
        return within.gradients(dy, x, geometry)
    if left(geometry):
        return array_version("local_response_norm").gradients(dy, x, geometry)
    dy, x = plain(dy), plain(x)
    dx = np.empty_like(x)
    with threads.parallel():
        given, grouped, made = (by_group(array, geometry.groups) for array in (dy, x, dx))
        _backward[tasks(given)](given, grouped, norm_of(x, geometry), positions(), made)
    return dx


def left(geometry: Geometry) -> bool:
    """Whether this is left to the array operations."""
    return geometry.beta not in ROOTS


def positions() -> int:
    """Of a block."""
    return choices.sizes("local_response_norm")["positions"]


def tasks(x: Array) -> int:
    """Blocks of positions of all images and groups of x (N,C,L)."""
    return len(x) * -(-x.shape[2] // positions())


@block_kernel
def _forward(task, _, x, norm, block, y):
    _, C, L = x.shape
    blocks = -(-L // block)
    n, first = task // blocks, task % blocks * block
    last = min(L, first + block)
    s = np.empty(last - first, x.dtype)
    for c in range(C):
        squares(x[n], c, first, norm, s)
        xc, out = x[n, c, first:last], y[n, c, first:last]
        power(s, norm.beta, out)
        for p in range(len(s)):
            out[p] = xc[p] / out[p]


@block_kernel
def _backward(task, _, dy, x, norm, block, dx):
    _, C, L = x.shape
    blocks = -(-L // block)
    n, first = task // blocks, task % blocks * block
    last = min(L, first + block)
    s = np.empty(last - first, x.dtype)
    pulls = np.empty((C, last - first), x.dtype)  # dy * x * s**(-beta-1)
    for c in range(C):
        squares(x[n], c, first, norm, s)
        xc, dyc, out, pull = x[n, c, first:last], dy[n, c, first:last], dx[n, c, first:last], pulls[c]
        power(s, norm.beta, out)
        for p in range(len(s)):
            out[p] = dyc[p] / out[p]
            pull[p] = out[p] * xc[p] / s[p]
    for c in range(C):
        s[:] = 0
        # the windows that hold c: the window mirrored
        for other in range(max(0, c - norm.high), min(C, c + norm.low + 1)):
            pull = pulls[other]
            for p in range(len(s)):
                s[p] += pull[p]
        xc, out = x[n, c, first:last], dx[n, c, first:last]
        for p in range(len(s)):
            out[p] -= norm.factor * xc[p] * s[p]


@kernel
def squares(x, c, first, norm, s):
    """s = k + scale * sum of squares over the window of channel c of x (C,L), for positions first, first+1, ..."""
    s[:] = 0
    for other in range(max(0, c - norm.low), min(len(x), c + norm.high + 1)):
        row = x[other, first : first + len(s)]
        for p in range(len(s)):
            s[p] += row[p] * row[p]
    for p in range(len(s)):
        s[p] = norm.k + norm.scale * s[p]


@kernel
def power(s: Array, beta: float, out: Array) -> None:
    """out = s**beta for a beta in ROOTS, by float64: in float32 the first root's rounding would count 1.5 times."""
    for p in range(len(s)):
        root = math.sqrt(np.float64(s[p]))
        out[p] = root if beta == 0.5 else root * math.sqrt(root)
