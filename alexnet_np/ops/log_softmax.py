"""Log-softmax along one axis: y_i = (x_i - max x) - log sum over j of exp(x_j - max x).

The trap: log(softmax(x)) loses everything below 1e-38 (float32); this form keeps it.
Source: Goodfellow, Bengio, Courville, "Deep Learning" (2016), sec. 4.1 and 6.2.2.3.
"""

from __future__ import annotations

from typing import Any

from alexnet_np.device import Array, array_module
from alexnet_np.ops.softmax import Cache, backward_along, forward_along


def forward(x: Any, dim: int = -1) -> tuple[Array, Cache]:
    """x of any shape, float32 or float64. Raises ArgumentError, DtypeError."""
    return forward_along("log_softmax", x, dim)


def backward(dy: Any, cache: Cache) -> Array:
    """dx = dy - exp(y) * sum over the axis of dy."""
    return backward_along("log_softmax", dy, cache)


def compute(x: Array, dim: int) -> Array:
    if x.size == 0:
        return x.copy()
    xp = array_module(x)
    shifted = x - x.max(dim, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(dim, keepdims=True))


def gradients(dy: Array, y: Array, dim: int) -> Array:
    return dy - array_module(y).exp(y) * dy.sum(dim, keepdims=True)
