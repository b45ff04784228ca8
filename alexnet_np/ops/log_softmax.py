"""Log-softmax along one axis: y_i = (x_i - max x) - log sum over j of exp(x_j - max x).

The trap: log(softmax(x)) loses everything below 1e-38 (float32); this form keeps it.
Source: Goodfellow, Bengio, Courville, "Deep Learning" (2016), sec. 4.1 and 6.2.2.3.
"""

from __future__ import annotations

from typing import Any

from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module
from alexnet_np.ops.checks import axis, cached, float_arrays, gradient
from alexnet_np.ops.softmax import Cache


def forward(x: Any, dim: int = -1) -> tuple[Array, Cache]:
    """x of any shape, float32 or float64. Raises ArgumentError, DtypeError."""
    (x,) = float_arrays("log_softmax", x=x)
    dim = axis("log_softmax", dim, max(x.ndim, 1))
    y = implementation("log_softmax", x).compute(x.reshape(x.shape or (1,)), dim).reshape(x.shape)
    return y, Cache(y, dim)


def backward(dy: Any, cache: Cache) -> Array:
    """dx = dy - exp(y) * sum over the axis of dy."""
    y, dim = cached("log_softmax", cache, Cache)
    dy = gradient("log_softmax", dy, y.shape, y)
    rank1 = y.shape or (1,)
    return implementation("log_softmax", y).gradients(dy.reshape(rank1), y.reshape(rank1), dim).reshape(y.shape)


def compute(x: Array, dim: int) -> Array:
    if x.size == 0:
        return x.copy()
    xp = array_module(x)
    shifted = x - x.max(dim, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(dim, keepdims=True))


def gradients(dy: Array, y: Array, dim: int) -> Array:
    return dy - array_module(y).exp(y) * dy.sum(dim, keepdims=True)
