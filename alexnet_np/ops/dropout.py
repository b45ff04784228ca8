"""Dropout, inverted: in training each unit is zeroed with probability p and the others are scaled by 1/(1-p).

    y = x * mask / (1 - p),   mask = [uniform >= p],   and y = x in evaluation

The trap: the 2012 paper scales at test time instead (by 1-p); inverted dropout, torch's, leaves the test network alone.
The mask is a function of the seed alone (alexnet_np/random.py), the same on every backend.
Source: Hinton et al. (2012); Krizhevsky, Sutskever, Hinton (2012), sec. 4.2; Srivastava et al. (2014), sec. 10.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from alexnet_np.arguments import flag, integer, number
from alexnet_np.arguments import seed as check_seed
from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module, as_array
from alexnet_np.errors import ArgumentError, DtypeError, ShapeError
from alexnet_np.ops.checks import brief, cached, float_arrays, gradient
from alexnet_np.random import uniform

LEAST_SEED = -(2**63)  # torch takes negative ones too, and means the same 64 bits


class Cache(NamedTuple):
    x: Array
    mask: Array | None  # boolean, of x's shape; None where dropout did nothing
    p: float

    def __repr__(self) -> str:
        return brief(self)


def forward(
    x: Any, p: float = 0.5, training: bool = True, seed: int | None = None, mask: Any = None, first: int = 0
) -> tuple[Array, Cache]:
    """Drop units of x, any shape, float32 or float64. In training give `seed` (an int of up to 64 bits) or `mask`.

    `mask` is True (or non-zero) where a unit is kept. p = 1 drops everything. `first`: where x is a part of a larger
    array, how many elements of that come before it; the parts are then dropped as the whole would be.
    Raises ArgumentError, ShapeError, DtypeError.
    """
    (x,) = float_arrays("dropout", x=x)
    p, training = number("dropout", "p", p, 0, 1), flag("dropout", "training", training)
    if not training or (p == 0.0 and mask is None):
        return x.copy(), Cache(x, None, p)
    if mask is not None:
        mask = as_array(mask, "dropout: mask")
        if mask.shape != x.shape:
            raise ShapeError(f"dropout: mask has shape {mask.shape}, x has {x.shape}")
        if mask.dtype.kind not in "biuf":
            raise DtypeError(f"dropout: mask holds {mask.dtype}, not numbers; True (or not 0) keeps a unit")
        mask = mask.astype(bool)
    elif seed is not None:
        mask = implementation("dropout", x).draw_mask(
            x, p, check_seed("dropout", seed, LEAST_SEED), integer("dropout", "first", first, 0, 2**62)
        )
    else:
        raise ArgumentError("dropout: in training give seed=<int> or mask=<array of x's shape>")
    return implementation("dropout", x).compute(x, mask, p), Cache(x, mask, p)


def backward(dy: Any, cache: Cache) -> Array:
    """dx = dy * mask / (1 - p), and dy in evaluation."""
    x, mask, p = cached("dropout", cache, Cache)
    dy = gradient("dropout", dy, x.shape, x)
    return dy.copy() if mask is None else implementation("dropout", x).compute(dy, mask, p)


def columns_of_mask(x: Array, p: float, seed: int, row: int, columns: tuple[int, int]) -> Array:
    """The mask of x (N,F), which of a larger array has the rows from `row` on and, from columns[0] on, some columns.

    `columns`: the first of them, and how many the larger array has.
    """
    begin, features = columns
    whole = array_module(x).empty((len(x), features), x.dtype)
    return implementation("dropout", x).draw_mask(whole, p, seed, row * features)[:, begin : begin + x.shape[1]]


def draw_mask(x: Array, p: float, seed: int, first: int = 0) -> Array:
    return (uniform(x.size, seed, xp=array_module(x), first=first) >= p).reshape(x.shape)


def compute(x: Array, mask: Array, p: float) -> Array:
    """The map is linear and its own adjoint, so this serves both directions."""
    scale = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    return array_module(x).where(mask, x * x.dtype.type(scale), x.dtype.type(0))
