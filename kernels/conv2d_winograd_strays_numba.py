"""Tiles that Winograd would spoil: found on the way, and computed as the definition says.

An output of a Winograd tile is a sum over all n x n inputs of the tile, in which those that it does not see cancel. A
NaN or an infinity does not cancel, and what a value thousands of times larger than the rest leaves behind is larger
than the rest. Such tiles are strays.

1. `mark` looks for them while a block of tiles is in the cache: the largest magnitude of every pixel over its channels,
   then the largest of every window of r x r pixels. A tile is stray where one window is SPREAD times another (windows
   of zeros apart), and where values are so large that products may overflow. Magnitudes are compared as the integers
   that their bits are: NaN is larger than infinity, and infinity larger than the rest.
2. `redo` computes the strays with the microkernel on copies of their outputs' windows.

Cost where there are none: three instructions for each vector of pixels that is read, and some 70 for each vector of
windows, where transforms and products take (for AlexNet's conv 3) 20 thousand a pixel.
Parallel over tiles. Source: the error, Barabasz et al. (2018); the products: conv2d_direct_numba.py.
"""

from __future__ import annotations

from functools import cache, cached_property, partial

import numpy as np
from llvmlite import ir

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.conv2d_direct_numba import packed_filters
from alexnet_np.kernels.conv2d_layer import Layer, each_group
from alexnet_np.kernels.conv2d_space_to_depth_numba import filters_to_depth
from alexnet_np.kernels.conv2d_winograd_tiles_numba import family
from alexnet_np.kernels.conv2d_winograd_tiling_numba import Tiles, corner, inside_of
from alexnet_np.kernels.conv2d_winograd_transforms import FAMILIES, Matrix, transforms
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.image import Image, Step
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.simd import INTEGER, INTS, LANES, POINTER, Emitter, vector_function
from alexnet_np.kernels.gemm_numba import WIDTH, packed_product, tile

SPREAD = 512  # between the windows of a tile: an error of 2e-7 of the largest is then 1e-4 of the smallest
GRADIENT_SPREAD = 2048  # of dy, which pooling makes sparse: windows differ more
LARGEST = float(np.finfo(np.float32).max)


def lanes(value: int) -> ir.Constant:
    return ir.Constant(INTS, [value] * LANES)


def larger(e: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    return e.builder.select(e.builder.icmp_signed(">", a, b), a, b)


def bits_of(e: Emitter, pointer: ir.Value, offset: ir.Value) -> ir.Value:
    """LANES magnitudes as integers of the same order."""
    return e.builder.and_(e.builder.bitcast(e.load(pointer, offset), INTS), lanes(0x7FFFFFFF))


def as_floats(e: Emitter, bits: ir.Value) -> ir.Value:
    return e.builder.bitcast(bits, e.vector)


def emit_magnitudes(
    e: Emitter, x: ir.Value, col: ir.Value, pixels: ir.Value, channels: ir.Value, magnitudes: ir.Value
) -> None:
    """magnitudes[p] = max over c of |x[p*col + c]|, NaN where one is."""
    with e.loop(pixels) as p:
        pixel, most = e.at(x, e.mul(p, col)), e.variable(lanes(0))
        e.vectors(channels, lambda c: e.set(most, larger(e, e.get(most), bits_of(e, pixel, c))))
        found, half = e.get(most), LANES // 2
        while half:
            turned = ir.Constant(INTS, [i ^ half for i in range(LANES)])
            found, half = larger(e, found, e.builder.shuffle_vector(found, found, turned)), half // 2
        one = e.builder.extract_element(as_floats(e, found), ir.IntType(32)(0))
        e.builder.store(one, e.at(magnitudes, p))


def emit_windows(
    e: Emitter,
    magnitudes: ir.Value,
    row: ir.Value,
    columns: ir.Value,
    high: ir.Value,
    low: ir.Value,
    *,
    m: int,
    r: int,
) -> None:
    """Of the m windows of r x r pixels that begin in each column, the largest and the smallest magnitude but zero.

    NaN in `low` where there is none; `columns` is a multiple of LANES.
    """
    with e.loop(e.builder.udiv(columns, e.int(LANES))) as block:
        w = e.mul(block, LANES)
        wide = []
        for q in range(m + r - 1):
            most = bits_of(e, magnitudes, e.add(e.mul(row, q), w))
            for b in range(1, r):
                most = larger(e, most, bits_of(e, magnitudes, e.add(e.mul(row, q), e.add(w, b))))
            wide.append(most)
        largest, smallest = lanes(0), lanes(0x7FFFFFFF)
        for i in range(m):
            window = wide[i]
            for a in range(1, r):
                window = larger(e, window, wide[i + a])
            largest = larger(e, largest, window)
            seen = e.builder.select(e.builder.icmp_signed("==", window, lanes(0)), lanes(0x7FFFFFFF), window)
            smallest = e.builder.select(e.builder.icmp_signed("<", seen, smallest), seen, smallest)
        e.store(as_floats(e, largest), high, w)
        e.store(as_floats(e, smallest), low, w)


P, I = POINTER, INTEGER  # noqa: E741
magnitudes_of_row = vector_function("winograd_magnitudes", (P, I, I, I, P), {0: emit_magnitudes})
SEEN = {(count, size) for m, r in FAMILIES for count, size in ((m, r), (r, m), (m + r - 1, r))}
windows_of_rows = vector_function(
    "winograd_windows",
    (P, I, I, P, P),
    {family(count, size): partial(emit_windows, m=count, r=size) for count, size in SEEN},
)


@kernel
def columns_of(tiles):
    """How many columns of windows a row of tiles has at most, in whole vectors."""
    return (tiles.cols * tiles.m + tiles.r + LANES - 1) // LANES * LANES


@kernel
def map_room(tiles):
    """Floats that `mark` needs: n rows of magnitudes, and the largest and smallest windows."""
    columns = columns_of(tiles)
    return tiles.n * (columns + LANES) + 2 * columns


@kernel
def least_window(work, map_at, row, rows, columns, height, width):
    """The smallest magnitude but zero of the windows of height x width that begin in rows x columns: (from, to)."""
    least = np.float32(np.inf)
    for a in range(rows[0], rows[1]):
        for b in range(columns[0], columns[1]):
            window = np.float32(0)
            for i in range(height):
                for j in range(width):
                    window = max(window, work[map_at + (a + i) * row + b + j])
            if 0 < window < least:
                least = window
    return least


@kernel
def least_at_border(tiles, seen, h, w, own, work, map_at, row, least):
    """The smallest window of the tile at (h,w), where `least` is it as if it had all m x m outputs; `own`: how many it
    has."""
    m, count, size = tiles.m, seen // 10, seen % 10
    if tiles.first_row >= 0:  # beyond the border there are no inputs
        rows = max(0, tiles.first_row - h), min(count, tiles.H - h)
        columns = max(0, tiles.first_col - w), min(count, tiles.W - w)
        if rows[0] > 0 or columns[0] > 0 or rows[1] < count or columns[1] < count:
            return least_window(work, map_at, row, rows, columns, size, size)
    elif seen != tiles.family and min(own[0], own[1]) < m:  # and no outputs: a weight sees fewer pixels
        every = 0, tiles.r
        return least_window(work, map_at, row, every, every, own[0], own[1])
    return least


@kernel
def mark(x, xi, tiles, C, first, last, limit, spread, seen, work, map_at, strays_at):
    """1 in work[strays_at + t] for each stray t of the tiles first..last; the others stay as they are.

    `limit`: the largest magnitude whose products are sure not to overflow. `spread`: what windows may differ by.
    `seen`: the windows, a key of windows_of_rows: family(m, r), what each output sees; family(r, m), what each weight
    does; and of dy family(n, r), what each input does.
    """
    n, left = tiles.n, tiles.left
    columns = columns_of(tiles)
    row = columns + LANES
    high = map_at + n * row
    low = high + columns
    image_there, top_there = np.int64(-1), np.int64(0)
    for t in range(first, last):
        image, h, w, tall, wide = corner(tiles, t)
        top = h - tiles.top
        if image != image_there or top != top_there:
            known = 0
            if image == image_there and 0 < top - top_there < n:  # the next row of tiles: they overlap
                known = n - (top - top_there)
                for k in range(known * row):
                    work[map_at + k] = work[map_at + (top - top_there) * row + k]
            for q in range(known, n):
                at = map_at + q * row
                for k in range(row):
                    work[at + k] = 0
                if 0 <= top + q < xi.H:
                    source = xi.at + image * xi.image + (top + q) * xi.row
                    magnitudes_of_row(0, x, source, xi.col, min(xi.W, row - left), C, work, at + left)
            windows_of_rows(seen, work, map_at, row, columns, work, high, work, low)
            image_there, top_there = image, top
        most, least = work[high + w], np.float32(np.inf)
        ordinary = True
        for k in range(w, w + seen // 10):
            ordinary = ordinary and work[high + k] <= limit  # false for NaN
            most = max(most, work[high + k])
            if work[low + k] < least:
                least = work[low + k]
        least = least_at_border(tiles, seen, h, w, (tall, wide), work, map_at + w, row, least)
        if not ordinary or most > spread * least:
            work[strays_at + t] = 1


class Exact:
    """A convolution's filters as the definition has them, (F,C/groups,r,r), for the tiles that are strays.

    What they are computed with is packed when the first is found: `weight` may not change before that. Where it is to
    be folded (stride S > 1), it is, and `used` says which of a window's r x r x C values a true filter sees.
    `limit`: what F(m,r) may be given at most, so that no sum overflows; nothing where a filter is not finite.
    """

    def __init__(self, weight: Array, m: int, groups: int = 1, S: int = 1) -> None:
        self._weight, self.groups, self.S = weight, groups, S
        self.limit = limit(weight, m, S)

    @cached_property
    def weight(self) -> Array:
        return filters_to_depth(self._weight, self.S) if self.S > 1 else self._weight

    @cached_property
    def used(self) -> Array:
        """(r,r,C/groups), flat."""
        ones = np.ones((1, *self._weight.shape[1:]), np.uint8)
        return (filters_to_depth(ones, self.S) if self.S > 1 else ones).transpose(0, 2, 3, 1).reshape(-1)

    @cached_property
    def panels(self) -> Array:
        """As conv2d_direct_numba.packed_filters has them."""
        return packed_filters(self.weight, self.groups)

    @cached_property
    def taps(self) -> Array:
        """(F,r,r,C/groups), flat."""
        return np.ascontiguousarray(self.weight.transpose(0, 2, 3, 1)).reshape(-1)


@kernel
def mark_outputs(x, xi, group, tiles, first, last, limit, work, map_at, strays_at, found):
    """A mark a tile in work[strays_at + t] for the tiles first..last, and 1 in found[0] where one is a stray.

    Of a convolution's groups the first one clears the marks: a tile is a stray if it is one in any.
    """
    if group.bias_at == 0:
        for t in range(first, last):
            work[strays_at + t] = 0
    mark(x, xi, tiles, group.C, first, last, limit, SPREAD, tiles.family, work, map_at, strays_at)
    for t in range(first, last):
        if work[strays_at + t] != 0:
            found[0] = 1


def limit(weight: Array, m: int, S: int) -> float:
    """Every matrix of F(m,r) counts with its largest sum of a row or column, twice; 8 is for another order of sums."""
    largest = max(float(weight.max(initial=0)), -float(weight.min(initial=0)))
    if not largest <= LARGEST:  # NaN too
        return -1.0
    F, C, _, K = weight.shape
    growth = 8.0 * max(F, C * S * S) * growth_of(m, -(-K // S))
    return min(LARGEST, LARGEST / growth / max(largest, 1e-30))


@cache
def growth_of(m: int, r: int) -> float:
    growth = 1.0
    for matrix in transforms(m, r):
        growth *= max(row_sum(matrix), row_sum(tuple(zip(*matrix, strict=True)))) ** 2
    return growth


def row_sum(matrix: Matrix) -> float:
    return float(max(sum(abs(value) for value in row) for row in matrix))


@kernel
def copy_window(x, at, step, inside, r, C, used, work, window):
    """The r x r pixels at x[at] side by side; zeros outside of the image and for what no filter sees."""
    for a in range(r):
        for b in range(r):
            here = inside.top <= a < inside.bottom and inside.left <= b < inside.right
            source, into = at + a * step.row + b * step.col, (a * r + b) * C
            for c in range(C):
                work[window + into + c] = x[source + c] if here and used[into + c] else np.float32(0)


@block_kernel
def redo_tiles(block, worker, x, filters, used, bias, y, images_of, problem, strays, work):
    """y of the tiles `strays`, for one group.

    `images_of`: x's Image and y's; `problem`: the group, the tiles, and how many floats of a pixel are the group's,
    zeros beyond group.F.
    """
    (xi, yi), (group, tiles, lanes) = images_of, problem
    m, r, C, F = tiles.m, tiles.r, group.C, group.F
    step, window = Step(xi.row, xi.col), r * r * C
    flat, c = work.reshape(-1), worker * work.shape[1]
    product = packed_product(m, WIDTH, window, window, WIDTH, 0)
    image, h, w, high, wide = corner(tiles, strays[block])
    for i in range(h, h + high):
        for b in range(wide):
            a, j = i - tiles.top, w + b - tiles.left
            at = xi.at + image * xi.image + a * xi.row + j * xi.col
            copy_window(x, at, step, inside_of(xi, a, j), r, C, used, flat, c + m * WIDTH + b * window)
        for f in range(0, lanes, WIDTH):
            if f < F:
                tile(wide, flat, c + m * WIDTH, filters, group.filters_at + f * window, flat, c, product)
            for b in range(wide):
                at = yi.at + image * yi.image + i * yi.row + (w + b) * yi.col + f
                for g in range(min(WIDTH, lanes - f)):
                    value = np.float32(0)
                    if f + g < F:
                        value = flat[c + b * WIDTH + g] + bias[group.bias_at + f + g]
                        if group.relu and value < 0:
                            value = np.float32(0)
                    y[at + g] = value


def redo(
    x: Array, xi: Image, exact: Exact, bias: Array, y: Array, yi: Image, layer: Layer, tiles: Tiles, strays: Array
) -> None:
    """The outputs of the tiles `strays` anew. `layer` is what Winograd computed: with filters of zeros, perhaps, or
    groups as one."""
    (F, C), groups = exact.weight.shape[:2], exact.groups
    real = Layer(layer.images, C, F // groups, groups, layer.relu)
    room = layer.F * layer.groups
    with threads.parallel() as workers:
        work = np.empty((workers, tiles.m * (WIDTH + tiles.r**2 * C) + LANES), np.float32)
        for g, (group, source, target) in enumerate(each_group(real, xi, yi, exact.panels.size)):
            problem = group, tiles, room - g * group.F if g == groups - 1 else group.F
            redo_tiles[len(strays)](x, exact.panels, exact.used, bias, y, (source, target), problem, strays, work)
