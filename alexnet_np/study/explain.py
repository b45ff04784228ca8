"""The arithmetic behind one number: what it was made from, done again in float64 beside what the network has.

`BY_OP` has a function for each op. Each gives the terms of one output and the value that they make; the formulas are
those of alexnet_np/ops, here with the numbers of the layer in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import ops
from alexnet_np.device import as_array, to_cpu
from alexnet_np.errors import AlexNetError
from alexnet_np.layers import stand_in
from alexnet_np.models import AlexNet, check_model
from alexnet_np.ops import sigmoid, tanh
from alexnet_np.study.receptive_field import ReceptiveField, receptive_fields
from alexnet_np.study.units import Index, Place, activations, check_index, check_layer, places, windows

ROUNDINGS = 8  # a float32 result may be this many halves of a unit in the last place of its terms' sizes away


class Term(NamedTuple):
    """One number that went in."""

    at: Index  # its place in the layer before
    x: float  # the value there
    weight: float | None  # what it was multiplied by, where it was
    value: float  # what came of it: the product, the square, the exponential


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """How one number is made."""

    formula: str
    terms: list[Term]  # by the size of their value, largest first
    padding: int = 0  # places of the window that lie in the padding, and add nothing
    bias: float | None = None
    steps: dict[str, float] = field(default_factory=dict)  # numbers on the way, by name
    winner: Index | None = None  # of max pooling
    value: float  # in float64
    size: float  # of what was added up or rounded: sum of |terms| + |bias| for sums


@dataclass(frozen=True, kw_only=True)
class Explanation(Arithmetic):
    """One number of a layer, done again (`value`) beside what the network has (`stored`)."""

    layer: str
    type: str
    index: Index
    source: str  # the layer that the terms are of; "input" is the picture
    stored: float
    receptive_field: ReceptiveField

    @property
    def difference(self) -> float:
        return abs(self.value - self.stored)

    @property
    def rounding(self) -> float:
        """How far apart float32 may put the two, summing in whatever order: 8 * 2**-24 * (sum of |terms| + |bias|)."""
        return ROUNDINGS * 2.0**-24 * self.size


def explain(model: AlexNet, x: Any, layer: str, index: Any) -> Explanation:
    """Where the number at `index` of `layer` comes from, for one picture x (C,H,W) or (1,C,H,W).

    `layer`: a name as in `model.leaves()` ("features.3"), or "softmax", the probabilities. `index`: (map, row, column),
    or the number of a unit. The network runs in evaluation, whatever mode it is in, on its own backend.
    Raises ArgumentError for a layer that is not there (naming those like it) or an index outside; ShapeError and
    DtypeError as the model does.
    """
    values = activations(check_model("explain", model), as_array(x, "explain: x"))
    size = values["input"].shape
    found = places(model, size)
    place = found[check_layer(layer, list(found))]
    at = check_index(layer, place.shape, index)
    made = arithmetic(place, to_cpu(values[place.source]), at)
    return Explanation(
        **vars(made),
        layer=layer,
        type=type(place.layer).__name__,
        index=at,
        source=place.source,
        stored=float(to_cpu(values[layer])[at]),
        receptive_field=receptive_fields(model, size[1:])[layer].of(at),
    )


def arithmetic(place: Place, x: np.ndarray, at: Index) -> Arithmetic:
    """How the number at `at` of a layer is made from the layer's input x, one image without a batch axis."""
    if place.layer.op not in BY_OP:
        raise AlexNetError(f"explain: {place.name} is a {type(place.layer).__name__}, whose arithmetic is not known")
    return BY_OP[place.layer.op](place, x.astype(np.float64), at)


def total(values: Iterable[float]) -> float:
    return float(np.sum(list(values)))


def by_size(terms: list[Term]) -> list[Term]:
    return sorted(terms, key=lambda term: -abs(term.value))


def tapped(place: Place, at: Index) -> tuple[list[tuple[int, int, int, int]], int]:
    """(row, column, place in the window) for every pixel that an output looks at, and how many lie in the padding."""
    rows, columns = windows(place.layer, place.input_shape)
    H, W = place.input_shape[-2:]
    every = list(product(enumerate(rows[at[1]]), enumerate(columns[at[2]])))
    inside = [(i, j, kh, kw) for (kh, i), (kw, j) in every if 0 <= i < H and 0 <= j < W]
    return inside, len(every) - len(inside)


def weights(place: Place, unit: int) -> tuple[np.ndarray, float | None]:
    """The weights and the bias of one output, in float64."""
    weight, bias = place.layer.weight, place.layer.bias  # type: ignore[attr-defined]
    row = to_cpu(weight.data[unit]).astype(np.float64)
    return row, None if bias is None else float(to_cpu(bias.data[unit]))


def weighted_sum(formula: str, terms: list[Term], bias: float | None, padding: int = 0) -> Arithmetic:
    products = [term.value for term in terms]
    summed = total(products)
    value, size = summed + (bias or 0.0), total(map(abs, products)) + abs(bias or 0.0)
    steps = {"sum of products": summed}
    return Arithmetic(
        formula=formula, terms=by_size(terms), padding=padding, bias=bias, steps=steps, value=value, size=size
    )


def conv2d(place: Place, x: np.ndarray, at: Index) -> Arithmetic:
    filters, bias = weights(place, at[0])
    CG, KH, KW = filters.shape
    first = at[0] // (place.shape[0] * CG // place.input_shape[0]) * CG  # of the channels of its group
    inside, padding = tapped(place, at)
    terms = []
    for c in range(CG):
        for i, j, kh, kw in inside:
            value, weight = float(x[first + c, i, j]), float(filters[c, kh, kw])
            terms.append(Term((first + c, i, j), value, weight, value * weight))
    formula = f"y = bias + sum over {CG} maps of {KH}x{KW} pixels of weight * x"
    return weighted_sum(formula, terms, bias, padding * CG)


def linear(place: Place, x: np.ndarray, at: Index) -> Arithmetic:
    row, bias = weights(place, at[0])
    terms = [Term((i,), v, w, v * w) for i, (v, w) in enumerate(zip(x.tolist(), row.tolist(), strict=True))]
    return weighted_sum(f"y = bias + sum over {len(terms):,} units of weight * x", terms, bias)


def max_pool2d(place: Place, x: np.ndarray, at: Index) -> Arithmetic:
    inside, padding = tapped(place, at)
    terms = [Term((at[0], i, j), v, None, v) for i, j, *_ in inside for v in [float(x[at[0], i, j])]]
    best = next((t for t in terms if math.isnan(t.x)), None) or max(terms, key=lambda t: t.x)  # the first of equals
    formula = f"y = the largest of {len(terms)} pixels"
    return Arithmetic(
        formula=formula, terms=by_size(terms), padding=padding, winner=best.at, value=best.x, size=abs(best.x)
    )


def divisors_of(place: Place) -> np.ndarray:
    """(OH,OW): what an average pooling divides its sums by."""
    x = stand_in((1, *place.input_shape))
    return ops.avg_pool2d.divisors(ops.avg_pool2d.find_geometry(x, **place.layer.arguments()), x.shape)


def avg_pool2d(place: Place, x: np.ndarray, at: Index) -> Arithmetic:
    inside, padding = tapped(place, at)
    divisor = float(divisors_of(place)[at[1:]])
    terms = [Term((at[0], i, j), v, 1 / divisor, v / divisor) for i, j, *_ in inside for v in [float(x[at[0], i, j])]]
    return weighted_sum(f"y = the sum of {len(terms)} pixels over {divisor:g}", terms, None, padding)


def adaptive_avg_pool2d(place: Place, x: np.ndarray, at: Index) -> Arithmetic:
    inside, padding = tapped(place, at)
    share = 1 / len(inside)
    terms = [Term((at[0], i, j), v, share, share * v) for i, j, *_ in inside for v in [float(x[at[0], i, j])]]
    return weighted_sum(f"y = the mean of {len(terms)} pixels", terms, None, padding)


def local_response_norm(place: Place, x: np.ndarray, at: Index) -> Arithmetic:
    window = ops.local_response_norm.find_geometry(**place.layer.arguments())
    terms = [Term(near, v, None, v * v) for near in window_of(window, x.shape, at) for v in [float(x[near])]]
    squares = total(term.value for term in terms)
    base = window.k + window.scale * squares
    power = float(np.power(base, window.beta))
    value = float(x[at]) / power
    constants = f"k {window.k:g}, a {window.scale:g}, beta {window.beta:g}"
    formula = f"y = x / (k + a * sum of {len(terms)} squares) ** beta, {constants}"
    steps = {"x": float(x[at]), "sum of squares": squares, "base": base, "base ** beta": power}
    return Arithmetic(formula=formula, terms=by_size(terms), steps=steps, value=value, size=abs(value))


def window_of(window: ops.local_response_norm.Geometry, shape: tuple[int, ...], at: Index) -> list[Index]:
    """The places that the normalisation of `at` looks at: (C,H,W) of `shape`."""

    def near(position: int, first: int, end: int) -> range:
        return range(max(first, position - window.low), min(end, position + window.high + 1))

    c, i, j = at
    if window.region == "within":
        return [(c, row, column) for row in near(i, 0, shape[1]) for column in near(j, 0, shape[2])]
    group = shape[0] // window.groups
    first = c // group * group
    return [(n, i, j) for n in near(c, first, first + group)]


def softmax(place: Place, x: np.ndarray, at: Index) -> Arithmetic:
    largest = float(x.max())
    terms = [Term((i,), v, None, math.exp(v - largest)) for i, v in enumerate(x.tolist())]
    own, denominator = terms[at[0]].value, total(term.value for term in terms)
    steps = {"largest logit": largest, "exp(x - largest)": own, "denominator": denominator}
    formula = f"y = exp(x - largest) / sum over {len(terms):,} classes of exp(x' - largest)"
    value = own / denominator
    # exp of a rounded difference: an error of |x - largest| units in its last place becomes one of the exponential
    return Arithmetic(
        formula=formula, terms=by_size(terms), steps=steps, value=value, size=value * (1 + largest - terms[at[0]].x)
    )


def each(formula: str, function: Callable[[float], float]) -> Callable[[Place, np.ndarray, Index], Arithmetic]:
    """Of a layer that computes each number from one."""

    def made(place: Place, x: np.ndarray, at: Index) -> Arithmetic:
        index = at if x.ndim == len(at) else tuple(map(int, np.unravel_index(at[0], x.shape)))  # flattened
        given = float(x[index])
        value = function(given)
        return Arithmetic(formula=formula, terms=[Term(index, given, None, value)], value=value, size=abs(value))

    return made


def logistic(x: float) -> float:
    e = math.exp(-abs(x))
    return (1 if x >= 0 else e) / (1 + e)


BY_OP: dict[Any, Callable[[Place, np.ndarray, Index], Arithmetic]] = {
    ops.conv2d: conv2d,
    ops.linear: linear,
    ops.max_pool2d: max_pool2d,
    ops.avg_pool2d: avg_pool2d,
    ops.adaptive_avg_pool2d: adaptive_avg_pool2d,
    ops.local_response_norm: local_response_norm,
    ops.softmax: softmax,
    ops.relu: each("y = max(0, x)", lambda x: x if x > 0 or math.isnan(x) else 0.0),
    tanh: each("y = tanh(x)", math.tanh),
    sigmoid: each("y = 1 / (1 + exp(-x))", logistic),
    ops.dropout: each("y = x: in evaluation dropout does nothing", float),
    ops.flatten: each("y = x: only numbered anew", float),
    None: each("y = x", float),  # a layer that was taken out
}
