"""The transforms of one Winograd tile in straight-line vector code, channels in the lanes.

A tile's points lie apart in memory, `point` floats from one to the next. What a column is multiplied by:
conv2d_winograd_columns_numba.py.

Nothing here is parallel: each function transforms one tile, vector by vector over its channels.
Source: Lavin and Gray (2015), sec. 4.
Measured: in conv2d_winograd_numba.py, whose time is ~10% transforms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from alexnet_np.kernels.conv2d_winograd_columns_numba import (
    Axis,
    Transform,
    Vectors,
    apply,
    combine,
    evaluate,
    interpolate,
    interpolate_adjoint,
)
from alexnet_np.kernels.conv2d_winograd_transforms import (
    FAMILIES,
    POINTS,
    SHORTER,
    transforms,
)
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.image import Inside, Step
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, POINTER, Emitter, vector_function
from alexnet_np.kernels.gemm_numba import WIDTH


def family(m: int, r: int) -> int:
    """The number that compiled code knows F(m,r) by."""
    return 10 * m + r


@kernel
def variant(number, low, narrow):
    """Of a family, or of an n, the number of what serves its tiles that are short along rows, or along columns."""
    return number + 100 * low + 200 * narrow


Shape = tuple[Axis, Axis]
OfColumn = Callable[[Vectors], Vectors]


def both_sides(
    down: OfColumn, across: OfColumn, load: Callable[[int, int], ir.Value], rows: Iterable[int], cols: Iterable[int]
) -> list[Vectors]:
    """L · X · R^T for X[i][j] = load(i, j): L (`down`) on the columns first, then R (`across`) on what that gives."""
    columns = [down([load(i, j) for i in rows]) for j in cols]
    return [across([column[i] for column in columns]) for i in range(len(columns[0]))]


def emit_to_points(
    e: Emitter,
    x: ir.Value,
    step: Step,
    v: ir.Value,
    point: ir.Value,
    channels: ir.Value,
    *,
    shape: Shape,
    transform: Transform,
    size: Callable[[Axis], int],
) -> None:
    """v[p*point + c] = (L · X · R^T)[p] for the tile X at x, of `size` rows and columns; `transform` multiplies a
    column by L or by R."""
    down, across = shape

    def body(c: ir.Value) -> None:
        left, right = (partial(transform, e, axis) for axis in shape)
        given = range(size(down)), range(size(across))
        result = both_sides(left, right, lambda i, j: e.load(x, pixel(e, step, i, j, c)), *given)
        for i, values in zip(down.slots, result, strict=True):
            for j, value in zip(across.slots, values, strict=True):
                e.store(value, v, e.add(e.mul(point, down.n * i + j), c))

    e.vectors(channels, body)


def pixel(e: Emitter, step: Step, i: int, j: int, c: ir.Value) -> ir.Value:
    return e.add(e.add(e.mul(step.row, i), e.mul(step.col, j)), c)


def from_points(
    e: Emitter, v: ir.Value, point: ir.Value, shape: Shape, transform: Transform, c: ir.Value
) -> list[Vectors]:
    """L · V · R^T for the points of v, which lie as `emit_to_points` left them."""
    down, across = shape
    left, right = (partial(transform, e, axis) for axis in shape)
    load = lambda i, j: e.load(v, e.add(e.mul(point, down.n * i + j), c))  # noqa: E731
    return both_sides(left, right, load, down.slots, across.slots)


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
    shape: Shape,
) -> None:
    """y[i*row + j*col + f] = act((A^T · products · A)[i,j] + bias[f]) for i < bottom, j < right; act: ReLU or none."""
    down, across = shape
    no_floor = e.builder.icmp_signed("==", relu, e.int(0))

    def body(f: ir.Value) -> None:
        tile = from_points(e, products, point, shape, combine, f)
        shift = e.load(bias, f)
        for i in range(down.outputs):
            with e.when(e.less(i, inside.bottom)):
                for j in range(across.outputs):
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
    shape: Shape,
) -> None:
    """dx[i*row + j*col + c] += (B · v · B^T)[i,j] for the pixels inside; v lies as `emit_to_points` left it.

    `channels` is a multiple of LANES: nothing may be added twice.
    """

    down, across = shape

    def between(low: ir.Value, i: int, high: ir.Value) -> ir.Value:
        return e.builder.and_(e.less(e.sub(low, 1), i), e.less(i, high))

    def body(c: ir.Value) -> None:
        tile = from_points(e, v, point, shape, interpolate_adjoint, c)
        for i in range(down.inputs):
            with e.when(between(inside.top, i, inside.bottom)):
                for j in range(across.inputs):
                    with e.when(between(inside.left, j, inside.right)):
                        at = pixel(e, step, i, j, c)
                        e.store(e.plus(e.load(dx, at), tile[i][j]), dx, at)

    e.vectors(channels, body)


def emit_filter_adjoint(
    e: Emitter, du: ir.Value, point: ir.Value, dw: ir.Value, tap: ir.Value, filters: ir.Value, *, m: int, r: int
) -> None:
    """dw[k*tap + f] = (G^T · du · G)[k] for the r x r taps k of one channel."""
    matrix, n = tuple(zip(*transforms(m, r).G, strict=True)), m + r - 1
    full = Axis(n, m, False)

    def body(f: ir.Value) -> None:
        result = from_points(e, du, point, (full, full), lambda e, _, column: apply(e, matrix, column), f)
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

        transform = partial(apply, e, transforms(m, r).G)
        result = both_sides(transform, transform, tap, range(r), range(r))
        for i in range(n):
            for j in range(n):
                e.store(result[i][j], u, e.add(e.mul(point, n * i + j), first))


def _by_family(emit: Callable[..., Callable[..., None]]) -> dict[int, Callable[..., None]]:
    """What `emit` makes of m and r, by the number of F(m,r)."""
    return {family(m, r): emit(m=m, r=r) for m, r in FAMILIES}


def _by_shape(numbers: dict[int, tuple[int, int]], shorter: set[int], emit: Callable[..., None]) -> dict[int, Any]:
    """`emit` for every shape of tiles of the (n, m) that `numbers` names; short ones of the numbers in `shorter`."""
    found = {}
    for number, (n, m) in numbers.items():
        for low, narrow in product((False, True), repeat=2) if number in shorter else ((False, False),):
            shape = Axis(n, m, low), Axis(n, m, narrow)
            found[number + 100 * low + 200 * narrow] = partial(emit, shape=shape)
    return found


P, I = POINTER, INTEGER  # noqa: E741
TO_POINTS = (P, Step, P, I, I)
BY_FAMILY = {family(m, r): (m + r - 1, m) for m, r in FAMILIES}, {family(m, r) for m, r in SHORTER}
BY_SIZE = {n: (n, 0) for n in POINTS}, {m + r - 1 for m, r in SHORTER}  # where m does not matter
input_tile = vector_function(
    "winograd_input",
    TO_POINTS,
    _by_shape(*BY_SIZE, partial(emit_to_points, transform=interpolate, size=lambda axis: axis.inputs)),
)
output_adjoint_tile = vector_function(
    "winograd_output_adjoint",
    TO_POINTS,
    _by_shape(*BY_FAMILY, partial(emit_to_points, transform=evaluate, size=lambda axis: axis.outputs)),
)
input_adjoint_tile = vector_function(
    "winograd_input_adjoint", (P, I, P, Step, Inside, I), _by_shape(*BY_SIZE, emit_input_adjoint)
)
output_tile = vector_function("winograd_output", (P, I, P, Step, Inside, P, I, I), _by_shape(*BY_FAMILY, emit_output))
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


@block_kernel
def transform_filters(p, _, weight, filters, u):
    """u[p, f//WIDTH, c, f%WIDTH] = (G · weight[f,c] · G^T)[p], in float64 until it is stored; zeros beyond F."""
    F, C, taps_of_one = filters.F, filters.C, filters.r * filters.r
    panels = (F + WIDTH - 1) // WIDTH
    taps = np.zeros(taps_of_one * WIDTH, np.float32)
    for c in range(C):
        for f in range(min(WIDTH, F - p * WIDTH)):
            at = (p * WIDTH + f) * filters.step_f + c * filters.step_c
            for k in range(taps_of_one):
                taps[k * WIDTH + f] = weight[at + k]
        filter_tile(filters.family, taps, 0, u, (p * C + c) * WIDTH, panels * C * WIDTH)
