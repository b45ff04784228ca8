"""Softmax along one axis: y_i = exp(x_i - max x) / sum over j of exp(x_j - max x).

Subtracting the maximum changes nothing in exact arithmetic and keeps exp from overflowing.
Source: Bridle (1990); gradient: Goodfellow, Bengio, Courville, "Deep Learning" (2016), sec. 6.2.2.3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module
from alexnet_np.ops.checks import axis, brief, cached, float_arrays, gradient


class Cache(NamedTuple):
    y: Array
    dim: int

    def __repr__(self) -> str:
        return brief(self)


def forward(x: Any, dim: int = -1) -> tuple[Array, Cache]:
    """x of any shape, float32 or float64. Raises ArgumentError, DtypeError."""
    return forward_along("softmax", x, dim)


def backward(dy: Any, cache: Cache) -> Array:
    """dx = y * (dy - sum over the axis of dy*y)."""
    return backward_along("softmax", dy, cache)


def forward_along(op: str, x: Any, dim: int) -> tuple[Array, Cache]:
    """The forward of softmax or log_softmax: a scalar is an axis of one."""
    (x,) = float_arrays(op, x=x)
    dim = axis(op, dim, max(x.ndim, 1))
    y = implementation(op, x).compute(x.reshape(x.shape or (1,)), dim).reshape(x.shape)
    return y, Cache(y, dim)


def backward_along(op: str, dy: Any, cache: Cache) -> Array:
    y, dim = cached(op, cache, Cache)
    dy = gradient(op, dy, y.shape, y)
    rank1 = y.shape or (1,)
    return implementation(op, y).gradients(dy.reshape(rank1), y.reshape(rank1), dim).reshape(y.shape)


def compute(x: Array, dim: int) -> Array:
    if x.size == 0:
        return x.copy()
    xp = array_module(x)
    y = xp.exp(x - x.max(dim, keepdims=True))
    y /= y.sum(dim, keepdims=True)
    return y


def gradients(dy: Array, y: Array, dim: int) -> Array:
    return y * (dy - (dy * y).sum(dim, keepdims=True))
