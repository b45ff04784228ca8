"""Products of Winograd's matrices with one column of vectors, as straight-line code.

1. `apply`: a matrix times a column of vectors, term by term. Serves the adjoint of the filter transform, once a step.
2. `interpolate`, `combine`, `evaluate`: products with B^T, A^T and A that use where the matrices come from. All rows of
   B^T but one share the factor (x - s) of a point s that has no mirror image, and the rows of a pair ±p are an even and
   an odd part, added and subtracted: 20 operations where the 7x7 matrix has 37 non-zeros.

Nothing here is parallel. Source: Lavin and Gray (2015), sec. 4; the factors: Winograd (1980), ch. 3. Points and
matrices: conv2d_winograd_transforms.py. Measured: in conv2d_winograd_numba.py, whose time is ~10% transforms.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from llvmlite import ir

from alexnet_np.kernels.conv2d_winograd_transforms import Matrix, finite_points, polynomial
from alexnet_np.kernels.cpu.simd import Emitter

Vectors = list[ir.Value]


class Axis(NamedTuple):
    """A tile along its rows or its columns: n - 1 points and infinity, or as a short one without the last of those."""

    n: int
    m: int
    short: bool

    @property
    def inputs(self) -> int:
        return self.n - self.short

    @property
    def outputs(self) -> int:
        return self.m - self.short

    @property
    def points(self) -> list[Fraction]:
        return finite_points(self.n)[: self.n - 1 - self.short]

    @property
    def slots(self) -> list[int]:
        """Which of the full tile's points its points, and infinity, are."""
        return [*range(len(self.points)), self.n - 1]

    def scale(self, p: Fraction) -> Fraction:
        """What B^T's row of p is multiplied by, to go with the full tile's filters."""
        return p - finite_points(self.n)[-1] if self.short else Fraction(1)


Transform = Callable[[Emitter, Axis, Vectors], Vectors]  # of a column


def dot(e: Emitter, coefficients: list[Fraction] | tuple[Fraction, ...], values: Vectors) -> ir.Value:
    """Sum of coefficient * value over the non-zero coefficients; 1 and -1 cost an addition."""
    total = None
    for c, v in sorted(zip(coefficients, values, strict=True), key=lambda term: term[0] != 1):
        if c == 0:
            continue
        if total is None:
            total = v if c == 1 else e.times(v, float(c))
        elif abs(c) == 1:
            total = e.plus(total, v) if c == 1 else e.minus(total, v)
        else:
            total = e.fma(v, e.constant(float(c)), total)
    return e.constant(0.0) if total is None else total


def apply(e: Emitter, matrix: Matrix, values: Vectors) -> Vectors:
    return [dot(e, row, values) for row in matrix]


def interpolate(e: Emitter, axis: Axis, d: Vectors) -> Vectors:
    """B^T · d, in the order of the points, infinity last."""
    rows = _interpolate(e, axis.points, d)
    return [dot(e, [axis.scale(p)], [rows[p]]) for p in axis.points] + [rows[None]]


def _interpolate(e: Emitter, points: list[Fraction], d: Vectors) -> dict[Fraction | None, ir.Value]:
    """Row p is the polynomial with the other points for roots, applied to d; row None (infinity) has them all."""
    single = next((p for p in points if p and -p not in points), None)
    if single is not None:  # every row but its own has the factor (x - single)
        others = [p for p in points if p != single]
        reduced = [dot(e, (-single, Fraction(1)), [d[j], d[j + 1]]) for j in range(len(d) - 1)]
        rows = _interpolate(e, others, reduced)
        rows[single] = dot(e, polynomial(others), d[: len(others) + 1])
        return rows
    even = polynomial([p * p for p in points if p > 0])  # in x²
    rows = {Fraction(0): dot(e, even, d[0 : 2 * len(even) : 2]), None: dot(e, even, d[1 : 2 * len(even) : 2])}
    for p in (p for p in points if p > 0):
        rest = polynomial([q * q for q in points if q > 0 and q != p])
        u, w = dot(e, rest, d[2 : 2 * len(rest) + 2 : 2]), dot(e, rest, d[1 : 2 * len(rest) + 1 : 2])
        rows[p], rows[-p] = mirror(e, u, w, p)
    return rows


def interpolate_adjoint(e: Emitter, axis: Axis, values: Vectors) -> Vectors:
    """B · values, the adjoint of `interpolate`, by the same factors backwards."""
    rows: dict[Fraction | None, ir.Value] = {None: values[-1]}
    rows |= {p: dot(e, [axis.scale(p)], [value]) for p, value in zip(axis.points, values, strict=False)}
    return _interpolate_adjoint(e, axis.points, rows)


def _interpolate_adjoint(e: Emitter, points: list[Fraction], rows: dict[Fraction | None, ir.Value]) -> Vectors:
    single = next((p for p in points if p and -p not in points), None)
    if single is not None:
        others = [p for p in points if p != single]
        inner = _interpolate_adjoint(e, others, rows)
        own = polynomial(others)
        d = []
        for j in range(len(inner) + 1):
            terms = [(-single, inner[j])] if j < len(inner) else []
            terms += [(Fraction(1), inner[j - 1])] if j else []
            terms += [(own[j], rows[single])] if j < len(own) else []
            d.append(dot(e, [c for c, _ in terms], [v for _, v in terms]))
        return d
    even = polynomial([p * p for p in points if p > 0])
    terms_of: list[list[tuple[Fraction, ir.Value]]] = [[] for _ in range(len(points) + 1)]
    for i, c in enumerate(even):
        terms_of[2 * i].append((c, rows[Fraction(0)]))
        terms_of[2 * i + 1].append((c, rows[None]))
    for p in (p for p in points if p > 0):
        rest = polynomial([q * q for q in points if q > 0 and q != p])
        u, w = e.plus(rows[p], rows[-p]), e.minus(rows[p], rows[-p])
        for i, c in enumerate(rest):
            terms_of[2 * i + 2].append((c, u))
            terms_of[2 * i + 1].append((c * p, w))
    return [dot(e, [c for c, _ in terms], [v for _, v in terms]) for terms in terms_of]


def mirror(e: Emitter, u: ir.Value, w: ir.Value, factor: Fraction) -> tuple[ir.Value, ir.Value]:
    """u + factor*w and u - factor*w."""
    if factor == 1:
        return e.plus(u, w), e.minus(u, w)
    return e.fma(w, e.constant(float(factor)), u), e.fma(w, e.constant(-float(factor)), u)


def combine(e: Emitter, axis: Axis, products: Vectors) -> Vectors:
    """A^T · products: y[i] = sum over points of p^i * products[p], and infinity's product in the last."""
    points, m = axis.points, axis.outputs
    at = dict(zip([*points, None], products, strict=True))
    pairs = [p for p in points if p > 0 and -p in points]
    sums = {p: (e.plus(at[p], at[-p]), e.minus(at[p], at[-p])) for p in pairs}  # for even and for odd powers
    alone = [p for p in points if p and -p not in points]
    y = []
    for i in range(m):
        terms = [(p**i, sums[p][i % 2]) for p in pairs] + [(p**i, at[p]) for p in alone]
        terms += [(Fraction(1), at[Fraction(0)])] if i == 0 else []
        terms += [(Fraction(1), at[None])] if i == m - 1 else []
        y.append(dot(e, [c for c, _ in terms], [v for _, v in terms]))
    return y


def evaluate(e: Emitter, axis: Axis, dy: Vectors) -> Vectors:
    """A · dy, the adjoint of `combine`: the polynomial with coefficients dy at every point, and its last one."""
    points = axis.points
    values: dict[Fraction, ir.Value] = {}
    for p in points:
        powers = [p**i for i in range(len(dy))]
        if p > 0 and -p in points:
            u, w = dot(e, powers[::2], dy[::2]), dot(e, powers[1::2], dy[1::2])
            values[p], values[-p] = e.plus(u, w), e.minus(u, w)
        elif p not in values:
            values[p] = dot(e, powers, dy)
    return [*(values[p] for p in points), dy[-1]]
