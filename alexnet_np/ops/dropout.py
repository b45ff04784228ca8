"""Dropout, inverted: in training each unit is zeroed with probability p and the others are scaled by 1/(1-p).

    y = x * mask / (1 - p),   mask = [uniform >= p],   and y = x in evaluation

The trap: the 2012 paper scales at test time instead (by 1-p); inverted dropout, torch's, leaves the test network alone.
The mask is a function of the seed alone (alexnet_np/random.py), the same on every backend.
Source: Hinton et al. (2012); Krizhevsky, Sutskever, Hinton (2012), sec. 4.2; Srivastava et al. (2014), sec. 10.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module, as_array
from alexnet_np.errors import ArgumentError, ShapeError
from alexnet_np.ops.checks import float_arrays, gradient, integer
from alexnet_np.random import uniform


class Cache(NamedTuple):
    x: Array
    mask: Array | None  # boolean, of x's shape; None where dropout did nothing
    p: float


def forward(
    x: Any, p: float = 0.5, training: bool = True, seed: int | None = None, mask: Any = None
) -> tuple[Array, Cache]:
    """Drop units of x, any shape, float32 or float64. In training give `seed` (an int of up to 64 bits) or `mask`.

    `mask` is True (or non-zero) where a unit is kept. p = 1 drops everything.
    Raises ArgumentError, ShapeError, DtypeError.
    """
    (x,) = float_arrays("dropout", x=x)
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(f"dropout: p must be between 0 and 1, got {p}")
    if not training or (p == 0.0 and mask is None):
        return x.copy(), Cache(x, None, p)
    if mask is not None:
        mask = as_array(mask, "dropout: mask").astype(bool)
        if mask.shape != x.shape:
            raise ShapeError(f"dropout: mask has shape {mask.shape}, x has {x.shape}")
    elif seed is not None:
        mask = implementation("dropout", x).draw_mask(x, p, integer("dropout", "seed", seed))
    else:
        raise ArgumentError("dropout: in training give seed=<int> or mask=<array of x's shape>")
    return implementation("dropout", x).compute(x, mask, p), Cache(x, mask, p)


def backward(dy: Any, cache: Cache) -> Array:
    """dx = dy * mask / (1 - p), and dy in evaluation."""
    x, mask, p = cache
    dy = gradient("dropout", dy, x.shape, x)
    return dy.copy() if mask is None else implementation("dropout", x).compute(dy, mask, p)


def draw_mask(x: Array, p: float, seed: int) -> Array:
    return (uniform(x.size, seed, xp=array_module(x)) >= p).reshape(x.shape)


def compute(x: Array, mask: Array, p: float) -> Array:
    """The map is linear and its own adjoint, so this serves both directions."""
    scale = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    return array_module(x).where(mask, x * x.dtype.type(scale), x.dtype.type(0))
