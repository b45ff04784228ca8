"""Flatten: axes start_dim to end_dim become one, in C order. (N,C,H,W) -> (N, C*H*W) feeds the first dense layer.

The trap: the order is channel, row, column, so weights of a dense layer trained on NHWC features must be permuted.
"""

from __future__ import annotations

import math
from typing import Any

from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError
from alexnet_np.ops.checks import axis, cached, float_arrays, gradient


def forward(x: Any, start_dim: int = 1, end_dim: int = -1) -> tuple[Array, Array]:
    """x of any shape, float32 or float64; () becomes (1,). The cache is x. Raises ArgumentError, DtypeError."""
    (x,) = float_arrays("flatten", x=x)
    rank = max(x.ndim, 1)
    start, end = axis("flatten", start_dim if x.ndim else 0, rank), axis("flatten", end_dim, rank)
    if start > end:
        raise ArgumentError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    return x.reshape(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]), x


def backward(dy: Any, cache: Array) -> Array:
    """dx is dy in x's shape."""
    (dy,), cache = float_arrays("flatten backward", dy=dy), cached("flatten", cache, object)
    return gradient("flatten", dy.reshape(cache.shape) if dy.size == cache.size else dy, cache.shape, cache)
