"""The transforms of one Winograd tile in straight-line vector code, channels in the lanes.

1. `apply`: a matrix times a column of vectors, term by term. Serves the adjoint of the filter transform, once a step.
2. `interpolate`, `combine`, `evaluate`: products with B^T, A^T and A that use where the matrices come from. All rows of
   B^T but one share the factor (x - s) of a point s that has no mirror image, and the rows of a pair ±p are an even and
   an odd part, added and subtracted: 20 operations where the 7x7 matrix has 37 non-zeros.

Nothing here is parallel: each function transforms one tile, vector by vector over its channels.
Source: Lavin and Gray (2015), sec. 4; the factors: Winograd (1980), ch. 3. Points and matrices: winograd_transforms.py.
Measured: in conv2d_winograd_numba.py, whose time is ~10% transforms.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import prange

from alexnet_np.kernels.conv2d_winograd_transforms import (
    FAMILIES,
    POINTS,
    Matrix,
    finite_points,
    polynomial,
    transforms,
)
from alexnet_np.kernels.cpu.image import Inside, Step
from alexnet_np.kernels.cpu.jit import parallel_kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, POINTER, Emitter, vector_function
from alexnet_np.kernels.gemm_numba import WIDTH

Vectors = list[ir.Value]
Transform = Callable[[Emitter, Vectors], Vectors]  # of a column


def family(m: int, r: int) -> int:
    """The number that compiled code knows F(m,r) by."""
    return 10 * m + r


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


def interpolate(e: Emitter, points: list[Fraction], d: Vectors) -> Vectors:
    """B^T · d, in the order of `points`, infinity last."""
    rows = _interpolate(e, points, d)
    return [rows[p] for p in points] + [rows[None]]


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


def interpolate_adjoint(e: Emitter, points: list[Fraction], values: Vectors) -> Vectors:
    """B · values, the adjoint of `interpolate`, by the same factors backwards."""
    return _interpolate_adjoint(e, points, dict(zip([*points, None], values, strict=True)))


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


def combine(e: Emitter, points: list[Fraction], m: int, products: Vectors) -> Vectors:
    """A^T · products: y[i] = sum over points of p^i * products[p], and infinity's product in the last."""
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


def evaluate(e: Emitter, points: list[Fraction], dy: Vectors) -> Vectors:
    """A · dy, the adjoint of `combine`: the polynomial with coefficients dy at every point, and its last one."""
    values: dict[Fraction, ir.Value] = {}
    for p in points:
        powers = [p**i for i in range(len(dy))]
        if p > 0 and -p in points:
            u, w = dot(e, powers[::2], dy[::2]), dot(e, powers[1::2], dy[1::2])
            values[p], values[-p] = e.plus(u, w), e.minus(u, w)
        elif p not in values:
            values[p] = dot(e, powers, dy)
    return [*(values[p] for p in points), dy[-1]]


def both_sides(
    transform: Callable[[Vectors], Vectors], load: Callable[[int, int], ir.Value], rows: int, cols: int
) -> list[Vectors]:
    """L · X · L^T for X[i][j] = load(i, j): the columns first, then the rows of what that gives."""
    columns = [transform([load(i, j) for i in range(rows)]) for j in range(cols)]
    return [transform([column[i] for column in columns]) for i in range(len(columns[0]))]


def emit_to_points(
    e: Emitter,
    x: ir.Value,
    step: Step,
    v: ir.Value,
    point: ir.Value,
    channels: ir.Value,
    *,
    side: int,
    transform: Transform,
) -> None:
    """v[p*point + c] = (L · X · L^T)[p] for the side x side tile X at x; `transform` multiplies a column by L."""

    def body(c: ir.Value) -> None:
        result = both_sides(partial(transform, e), lambda i, j: e.load(x, pixel(e, step, i, j, c)), side, side)
        n = len(result)
        for i in range(n):
            for j in range(n):
                e.store(result[i][j], v, e.add(e.mul(point, n * i + j), c))

    e.vectors(channels, body)


def pixel(e: Emitter, step: Step, i: int, j: int, c: ir.Value) -> ir.Value:
    return e.add(e.add(e.mul(step.row, i), e.mul(step.col, j)), c)


def from_points(
    e: Emitter, v: ir.Value, point: ir.Value, n: int, transform: Callable[[Vectors], Vectors], c: ir.Value
) -> list[Vectors]:
    """L · V · L^T for the n x n points of v, which lie as `emit_to_points` left them."""
    return both_sides(transform, lambda i, j: e.load(v, e.add(e.mul(point, n * i + j), c)), n, n)


def emit_output(
    e: Emitter,
    products: ir.Value,
    point: ir.Value,
    y: ir.Value,
    step: Step,
    inside: Inside,
    bias: ir.Value,
    relu: ir.Value,
    filters: ir.Value,
    *,
    m: int,
    r: int,
) -> None:
    """y[i*row + j*col + f] = act((A^T · products · A)[i,j] + bias[f]) for i < bottom, j < right; act: ReLU or none."""
    n = m + r - 1
    no_floor = e.builder.icmp_signed("==", relu, e.int(0))

    def body(f: ir.Value) -> None:
        tile = from_points(e, products, point, n, partial(combine, e, finite_points(n), m), f)
        shift = e.load(bias, f)
        for i in range(m):
            with e.when(e.less(i, inside.bottom)):
                for j in range(m):
                    with e.when(e.less(j, inside.right)):
                        value = e.plus(tile[i][j], shift)
                        value = e.builder.select(no_floor, value, e.relu(value))
                        e.store(value, y, pixel(e, step, i, j, f))

    e.vectors(filters, body)


def emit_input_adjoint(
    e: Emitter,
    v: ir.Value,
    point: ir.Value,
    dx: ir.Value,
    step: Step,
    inside: Inside,
    channels: ir.Value,
    *,
    n: int,
) -> None:
    """dx[i*row + j*col + c] += (B · v · B^T)[i,j] for the pixels inside; v lies as `emit_to_points` left it.

    `channels` is a multiple of LANES: nothing may be added twice.
    """

    def between(low: ir.Value, i: int, high: ir.Value) -> ir.Value:
        return e.builder.and_(e.less(e.sub(low, 1), i), e.less(i, high))

    def body(c: ir.Value) -> None:
        tile = from_points(e, v, point, n, partial(interpolate_adjoint, e, finite_points(n)), c)
        for i in range(n):
            with e.when(between(inside.top, i, inside.bottom)):
                for j in range(n):
                    with e.when(between(inside.left, j, inside.right)):
                        at = pixel(e, step, i, j, c)
                        e.store(e.plus(e.load(dx, at), tile[i][j]), dx, at)

    e.vectors(channels, body)


def emit_filter_adjoint(
    e: Emitter, du: ir.Value, point: ir.Value, dw: ir.Value, tap: ir.Value, filters: ir.Value, *, m: int, r: int
) -> None:
    """dw[k*tap + f] = (G^T · du · G)[k] for the r x r taps k of one channel."""
    matrix = tuple(zip(*transforms(m, r).G, strict=True))

    def body(f: ir.Value) -> None:
        result = from_points(e, du, point, m + r - 1, partial(apply, e, matrix), f)
        for i in range(r):
            for j in range(r):
                e.store(result[i][j], dw, e.add(e.mul(tap, r * i + j), f))

    e.vectors(filters, body)


def emit_filter(single: Emitter, taps: ir.Value, u: ir.Value, point: ir.Value, *, m: int, r: int) -> None:
    """u[p*point + f] = (G · taps · G^T)[p] for one channel of WIDTH filters, in float64."""
    e, n = single.in_double(), m + r - 1
    for first in range(0, WIDTH, LANES):

        def tap(i: int, j: int, first: int = first) -> ir.Value:
            return e.load(taps, (r * i + j) * WIDTH + first)

        result = both_sides(partial(apply, e, transforms(m, r).G), tap, r, r)
        for i in range(n):
            for j in range(n):
                e.store(result[i][j], u, e.add(e.mul(point, n * i + j), first))


def _transform(function: Callable[..., Vectors], n: int) -> Transform:
    return lambda e, column: function(e, finite_points(n), column)


def _by_family(emit: Callable[..., Callable[..., None]]) -> dict[int, Callable[..., None]]:
    """What `emit` makes of m and r, by the number of F(m,r)."""
    return {family(m, r): emit(m=m, r=r) for m, r in FAMILIES}


P, I = POINTER, INTEGER  # noqa: E741
TO_POINTS = (P, Step, P, I, I)
input_tile = vector_function(
    "winograd_input",
    TO_POINTS,
    {n: partial(emit_to_points, side=n, transform=_transform(interpolate, n)) for n in POINTS},
)
output_adjoint_tile = vector_function(
    "winograd_output_adjoint",
    TO_POINTS,
    _by_family(lambda m, r: partial(emit_to_points, side=m, transform=_transform(evaluate, m + r - 1))),
)
input_adjoint_tile = vector_function(
    "winograd_input_adjoint", (P, I, P, Step, Inside, I), {n: partial(emit_input_adjoint, n=n) for n in POINTS}
)
output_tile = vector_function(
    "winograd_output", (P, I, P, Step, Inside, P, I, I), _by_family(partial(partial, emit_output))
)
filter_tile = vector_function("winograd_filter", (P, P, I), _by_family(partial(partial, emit_filter)))
filter_adjoint_tile = vector_function(
    "winograd_filter_adjoint", (P, I, P, I, I), _by_family(partial(partial, emit_filter_adjoint))
)


class Filters(NamedTuple):
    """Filters of r x r taps: those of filter f and channel c begin at f*step_f + c*step_c, in floats."""

    F: int
    C: int
    step_f: int
    step_c: int
    r: int
    family: int


@parallel_kernel
def transform_filters(weight, filters, u):
    """u[p, f//WIDTH, c, f%WIDTH] = (G · weight[f,c] · G^T)[p], in float64 until it is stored; zeros beyond F."""
    F, C, taps_of_one = filters.F, filters.C, filters.r * filters.r
    panels = (F + WIDTH - 1) // WIDTH
    for panel in prange(panels):
        p = np.int64(panel)
        taps = np.zeros(taps_of_one * WIDTH, np.float32)
        for c in range(C):
            for f in range(min(WIDTH, F - p * WIDTH)):
                at = (p * WIDTH + f) * filters.step_f + c * filters.step_c
                for k in range(taps_of_one):
                    taps[k * WIDTH + f] = weight[at + k]
            filter_tile(filters.family, taps, 0, u, (p * C + c) * WIDTH, panels * C * WIDTH)
