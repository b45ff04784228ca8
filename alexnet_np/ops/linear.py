"""The fully connected layer: y = x · weightᵀ + bias, over the last axis.

The trap: weight is (out_features, in_features), torch's order; Caffe's and Keras's files differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module
from alexnet_np.errors import ShapeError
from alexnet_np.ops.checks import Needs, brief, cached, float_arrays, gradient, wanted

Gradients = tuple[Array | None, Array | None, Array | None]


class Cache(NamedTuple):
    x: Array
    weight: Array
    has_bias: bool

    def __repr__(self) -> str:
        return brief(self)


def forward(x: Any, weight: Any, bias: Any = None) -> tuple[Array, Cache]:
    """x (..., in) with weight (out, in) or (in,) and bias (out,) or () -> y (..., out) or (...); float32 or float64.

    Raises ShapeError, DtypeError.
    """
    x, weight, bias = float_arrays("linear", "bias", x=x, weight=weight, bias=bias)
    if weight.ndim not in (1, 2) or x.ndim < 1 or x.shape[-1] != weight.shape[-1]:
        raise ShapeError(f"linear: x {x.shape} does not fit weight {weight.shape}: their last axes must be equal")
    if bias is not None and bias.shape != weight.shape[:-1]:
        raise ShapeError(f"linear: bias has shape {bias.shape}, weight {weight.shape} needs {weight.shape[:-1]}")
    y = implementation("linear", x).compute(as_rows(x), as_matrix(weight), bias)
    return y.reshape((*x.shape[:-1], *weight.shape[:-1])), Cache(x, weight, bias is not None)


def backward(dy: Any, cache: Cache, needs: Needs = (True, True, True)) -> Gradients:
    """dx = dy · weight;  dweight = dyᵀ · x;  dbias = sum of dy over the rows. Those not in `needs` are None."""
    x, weight, has_bias = cached("linear", cache, Cache)
    dy = gradient("linear", dy, (*x.shape[:-1], *weight.shape[:-1]), x)
    rows, matrix = as_rows(x), as_matrix(weight)
    dx_wanted, dweight_wanted, dbias_wanted = wanted("linear", needs)
    needs = (dx_wanted, dweight_wanted, dbias_wanted and has_bias)
    dx, dweight, dbias = implementation("linear", x).gradients(dy.reshape(len(rows), len(matrix)), rows, matrix, needs)
    return (
        None if dx is None else dx.reshape(x.shape),
        None if dweight is None else dweight.reshape(weight.shape),
        None if dbias is None else dbias.reshape(weight.shape[:-1]),
    )


def compute(x: Array, weight: Array, bias: Array | None) -> Array:
    y = array_module(x).matmul(x, weight.T)  # (rows, in) · (in, out)
    if bias is not None:
        y += bias
    return y


def gradients(dy: Array, x: Array, weight: Array, needs: Needs) -> Gradients:
    xp = array_module(x)
    dx = xp.matmul(dy, weight) if needs[0] else None
    dweight = xp.matmul(dy.T, x) if needs[1] else None
    dbias = dy.sum(0) if needs[2] else None
    return dx, dweight, dbias


def weight_gradient(dy: Sequence[Array], x: Sequence[Array], out: Array) -> Array:
    """dweight of 2^n shards of a batch, dy[s] (rows, out) and x[s] (rows, in): each one's dyᵀ · x, added by a tree.

    ((0 + 1) + (2 + 3)) + ...: the bits that 2, 4 ... processes with a branch of the tree each give together. `out`
    takes it, and is returned: memory that stays spares the system a good part of the time that the sum takes.
    """
    implementation("linear", x[0]).sum_shards(dy, x, out)
    return out


def sum_shards(dy: Sequence[Array], x: Sequence[Array], out: Array) -> None:
    sums = [array_module(out).matmul(each.T, rows) for each, rows in zip(dy, x, strict=True)]
    while len(sums) > 1:
        sums = [first + second for first, second in zip(sums[::2], sums[1::2], strict=True)]
    out[...] = sums[0]


def as_rows(x: Array) -> Array:
    """(..., in) -> (rows, in)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def as_matrix(weight: Array) -> Array:
    """torch lets a weight be (in,): one output without an axis of its own."""
    return weight if weight.ndim == 2 else weight[None]
