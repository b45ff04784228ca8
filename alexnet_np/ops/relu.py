"""The rectified linear unit: y = max(x, 0). The gradient at exactly 0 is 0, as in torch; NaN stays NaN.

Source: Nair and Hinton (2010); Krizhevsky, Sutskever, Hinton (2012), sec. 3.1.
"""

from __future__ import annotations

from typing import Any

from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module
from alexnet_np.ops.checks import cached, float_arrays, gradient


def forward(x: Any) -> tuple[Array, Array]:
    """y = max(x, 0) for x of any shape, float32 or float64; never in place. The cache is y: positive where x was."""
    (x,) = float_arrays("relu", x=x)
    y = implementation("relu", x).compute(x)
    return y, y


def backward(dy: Any, cache: Array) -> Array:
    """dx = dy where x > 0, else 0."""
    cache = cached("relu", cache, object)
    dy = gradient("relu", dy, cache.shape, cache)
    return implementation("relu", cache).gradients(dy, cache)


def compute(x: Array) -> Array:
    return array_module(x).maximum(x, x.dtype.type(0))


def gradients(dy: Array, y: Array) -> Array:
    # torch's rule is "y <= 0 stops the gradient", which lets it pass where y is NaN.
    return array_module(dy).where(y <= 0, dy.dtype.type(0), dy)
