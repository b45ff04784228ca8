"""The logistic function: y = 1 / (1 + exp(-x)).

Gradient: dx = dy * y * (1 - y), at most dy/4: through many layers it vanishes.
The trap: exp(-x) overflows for large negative x, so it is taken of -|x| and the two halves are put together from it.
Source: LeCun, Bottou, Orr, Müller, "Efficient BackProp" (1998), sec. 4.4.
"""

from __future__ import annotations

from typing import Any

from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module
from alexnet_np.ops.checks import cached, float_arrays, gradient


def forward(x: Any) -> tuple[Array, Array]:
    """y = 1 / (1 + exp(-x)) for x of any shape, float32 or float64. The cache is y. Raises DtypeError."""
    (x,) = float_arrays("sigmoid", x=x)
    y = implementation("sigmoid", x).compute(x)
    return y, y


def backward(dy: Any, cache: Array) -> Array:
    """dx = dy * y * (1 - y)."""
    cache = cached("sigmoid", cache, object)
    dy = gradient("sigmoid", dy, cache.shape, cache)
    return implementation("sigmoid", cache).gradients(dy, cache)


def compute(x: Array) -> Array:
    xp = array_module(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1, e) / (1 + e)


def gradients(dy: Array, y: Array) -> Array:
    return dy * y * (1 - y)
