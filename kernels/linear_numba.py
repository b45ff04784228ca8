"""The fully connected layer on packed weights: y (M,N) = act(x (M,K) · weightᵀ + bias).

1. Packed once: panels of WIDTH output units, K rows each, so that the weights are read front to back, once a call.
   With few rows the time is that of reading them; the microkernel with one row is the matrix-vector product.
2. Blocked over K within a panel: its slices are read front to back, and each stays in the second-level cache while all
   rows of x use it. (All panels for one slice of K instead: fc6 at batch 128 in 62 ms where this order takes 50.)

3. On weights as they are (`compute`, `gradients`): a slice of a panel at a time is packed, transposed where it must be,
   into the cache of the thread that multiplies it at once. Training changes the weights too often to pack them ahead.

4. Over the shards of a batch (`sum_shards`): the gradients of all that a process has, added by their tree in the cache.

Panels are divided among the threads. Source: Goto and van de Geijn (2008), sec. 4.
Measured (EPYC Zen 4, both cores), fc6, packed: batch 1 4.0 ms = 38 GB/s, batch 32 12.1 ms = 200 GFLOP/s, batch 128
43 ms = 225 GFLOP/s; NumPy takes 5.0 ms at batch 1, 20 at batch 16 (ours 5.9), 60 at batch 128.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels.array_version import array_version
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, MACHINE, POINTER, Emitter, vector_function
from alexnet_np.kernels.gemm_numba import (
    ROWS,
    WIDTH,
    Product,
    gemm,
    gemm_transposed,
    packed_product,
    padded_width,
    tile,
    tile_transposed,
)
from alexnet_np.kernels.problems import Problem
from alexnet_np.ops.linear import Gradients, Needs


def emit_transpose(e: Emitter, rows: ir.Value, stride: ir.Value, columns: ir.Value) -> None:
    """columns[k*WIDTH + f] = rows[f*stride + k] for LANES x LANES floats, by log2(LANES) perfect shuffles."""
    square = [e.load(rows, e.mul(stride, f)) for f in range(LANES)]
    half = LANES // 2
    for _ in range(LANES.bit_length() - 1):
        pairs = zip(square[:half], square[half:], strict=True)
        square = [e.interleave(a, b, first) for a, b in pairs for first in (0, half)]
    for k in range(LANES):
        e.store(square[k], columns, k * WIDTH)


transpose = vector_function("linear_transpose", (POINTER, INTEGER, POINTER), {0: emit_transpose})


def emit_scatter(e: Emitter, row: ir.Value, count: ir.Value, panels: ir.Value, step: ir.Value) -> None:
    """panels[p*step + f] = row[p*WIDTH + f] for p < count, f < WIDTH."""
    with e.loop(count) as p:
        source, target = e.at(row, e.mul(p, WIDTH)), e.at(panels, e.mul(p, step))
        for f in range(0, WIDTH, LANES):
            e.store(e.load(source, f), target, f)


scatter = vector_function("linear_scatter", (POINTER, INTEGER, POINTER, INTEGER), {0: emit_scatter})


def emit_add(e: Emitter, rows: ir.Value, count: ir.Value, sums: ir.Value, step: ir.Value) -> None:
    """sums[r*step + f] += rows[r*WIDTH + f] for r < count, f < WIDTH."""
    with e.loop(count) as r:
        given, target = e.at(rows, e.mul(r, WIDTH)), e.at(sums, e.mul(r, step))
        for f in range(0, WIDTH, LANES):
            e.store(e.plus(e.load(target, f), e.load(given, f)), target, f)


add_rows = vector_function("linear_add", (POINTER, INTEGER, POINTER, INTEGER), {0: emit_add})


FEW = 8  # rows for which reading the weights is all the work: a panel is a block
SOME = 4  # panels of a block where there are more, which read the same slices of x


class Shape(NamedTuple):
    """x (M,K), weight (N,K), y (M,N): in floats, how far a row of x, and of y, lies from the next."""

    M: int
    N: int
    K: int
    ldx: int
    ldy: int


class Blocks(NamedTuple):
    """What is in work at a time, and each thread's share of the workspace, in floats."""

    K: int  # terms of the sums
    panels: int  # packed at once where their rows lie far apart, so that they are read in longer runs
    share: int


TILE = ROWS * WIDTH


@kernel
def pack_panel(weight, p, first, depth, N, K, packed, at):
    """Columns first..first+depth of the WIDTH rows of `weight` (N,K) from p*WIDTH on, transposed; zeros beyond N."""
    units = min(WIDTH, N - p * WIDTH)
    squares, whole = units // LANES * LANES, depth - depth % LANES
    for k in range(0, whole, LANES):
        for f in range(0, squares, LANES):
            transpose(0, weight, (p * WIDTH + f) * K + first + k, K, packed, at + k * WIDTH + f)
    for f in range(WIDTH):
        for k in range(whole if f < squares else 0, depth):
            value = weight[(p * WIDTH + f) * K + first + k] if f < units else np.float32(0)
            packed[at + k * WIDTH + f] = value


@block_kernel
def pack_weight(p, _, weight, N, K, packed):
    """weight (N,K), flat, as panels (ceil(N/WIDTH), K, WIDTH), zeros beyond N."""
    pack_panel(weight, p, 0, K, N, K, packed, p * K * WIDTH)


@block_kernel
def product_of_rows(p, worker, x, weight, y, shape, blocks, work):
    """Panel p of y = x · weightᵀ for a weight as it is; rows of y have room for whole panels."""
    product_of_panel(p, x, weight, y, shape, blocks.K, work, worker * blocks.share)


@kernel
def product_of_panel(p, x, weight, y, shape, block, work, at):
    """The same by a thread whose share of the workspace begins at `at`: `block` terms of the sums at a time."""
    for k in range(0, shape.K, block):
        depth, more = min(block, shape.K - k), 1 if k else 0
        pack_panel(weight, p, k, depth, shape.N, shape.K, work, at)
        gemm(x, k, work, at, y, p * WIDTH, packed_product(shape.M, WIDTH, depth, shape.ldx, shape.ldy, more))


@kernel
def finish_panel(y, first, M, ldy, bias, relu):
    """y = act(y + bias) in the panel of outputs that begins with the `first`, of M rows."""
    for i in range(M):
        at = i * ldy + first
        for f in range(WIDTH):
            value = y[at + f] + bias[first + f]
            y[at + f] = np.float32(0) if relu and value < 0 else value


@kernel
def pack_columns(b, b_at, ldb, depth, count, packed, at, step):
    """`count` panels side by side, `depth` rows of b from b_at on; each `step` floats after the one before."""
    for k in range(depth):
        scatter(0, b, b_at + k * ldb, count, packed, at + k * WIDTH, step)


@block_kernel
def product_over_rows(p, worker, dy, x, dweight, shape, blocks, work):
    """Panel p of dweight = dyᵀ · x, K in whole panels."""
    M, N, K = shape.M, shape.N, shape.K
    at = worker * blocks.share
    for first in range(0, M, blocks.K):
        depth, more = min(blocks.K, M - first), 1 if first else 0
        pack_columns(x, first * shape.ldx + p * WIDTH, shape.ldx, depth, 1, work, at, 0)
        product = packed_product(N, WIDTH, depth, shape.ldy, K, more)
        gemm_transposed(dy, first * shape.ldy, work, at, dweight, p * WIDTH, product)


@block_kernel
def product_over_shards(p, worker, dy, x, cut, dweight, shape, blocks, work):
    """Panel p of dweight (N,K) of 2^n shards, whose rows are cut[s] ... cut[s+1] of dy and x; K in whole panels.

    A tile at a time, whose sums wait in the cache for each other, so that the gradient is written once. Nothing in it
    depends on how many shards come at once: the bits are those of the shards, whoever computes them.
    """
    M, N, K, count = shape.M, shape.N, shape.K, len(cut) - 1
    at = worker * blocks.share
    waiting = at + M * WIDTH  # sums of 2, 4, 8 ... shards, as bits of a counter; the first of them in dweight
    pack_columns(x, p * WIDTH, shape.ldx, M, 1, work, at, 0)
    for i in range(0, N, ROWS):
        rows, into, level = min(ROWS, N - i), i * K + p * WIDTH, -1
        for s in range(count):
            level += 1 - s % 2
            a, b, depth = cut[s] * shape.ldy + i, at + cut[s] * WIDTH, cut[s + 1] - cut[s]
            if level == 0:
                product = Product(rows, WIDTH, depth, shape.ldy, WIDTH, K, s % 2, 1, 0)
                tile_transposed(rows, dy, a, work, b, dweight, into, product)
            else:
                product = Product(rows, WIDTH, depth, shape.ldy, WIDTH, WIDTH, s % 2, 1, 0)
                tile_transposed(rows, dy, a, work, b, work, waiting + level * TILE, product)
            done = (s + 1) // 2
            while s % 2 == 1 and done % 2 == 0:
                top, level, done = waiting + level * TILE, level - 1, done // 2
                if level == 0:
                    add_rows(0, work, top, rows, dweight, into, K)
                else:
                    add_rows(0, work, top, rows, work, top - TILE, WIDTH)


@block_kernel
def product_with_columns(block, worker, dy, weight, dx, shape, blocks, work):
    """dx = dy · weight, K in whole panels, some of them a block.

    As fast as BLAS, and it does not leave NumPy's BLAS threads spinning: for tens of milliseconds the next kernels'
    threads would have to share the cores with them.
    """
    M, N, K = shape.M, shape.N, shape.K
    step, at, start = panel_room(blocks.K), worker * blocks.share, block * blocks.panels
    count = min(blocks.panels, K // WIDTH - start)
    for n in range(0, N, blocks.K):
        depth, more = min(blocks.K, N - n), 1 if n else 0
        pack_columns(weight, n * K + start * WIDTH, K, depth, count, work, at, step)
        product = packed_product(M, WIDTH, depth, shape.ldy, shape.ldx, more)
        for p in range(count):
            gemm(dy, n, work, at + p * step, dx, (start + p) * WIDTH, product)


@kernel
def panel_room(depth):
    """Floats from one packed panel to the next: a few more than it has, so that they do not map onto one another."""
    return depth * WIDTH + LANES


@block_kernel
def product_of_packed(block, _, x, packed, bias, relu, y, shape, blocks):
    """Some panels of y = act(x · weightᵀ + bias); rows of y, and the bias, have room for whole panels."""
    M, K = shape.M, shape.K
    first, heights = block * blocks.panels, (M + ROWS - 1) // ROWS
    last = min(first + blocks.panels, (shape.N + WIDTH - 1) // WIDTH)
    for p in range(first, last):
        for k in range(0, K, blocks.K):
            product = packed_product(M, WIDTH, min(blocks.K, K - k), shape.ldx, shape.ldy, 1 if k else 0)
            panel = (p * K + k) * WIDTH
            for h in range(heights):
                i, end = h * M // heights, (h + 1) * M // heights
                tile(end - i, x, i * shape.ldx + k, packed, panel, y, i * shape.ldy + p * WIDTH, product)
        finish_panel(y, p * WIDTH, M, shape.ldy, bias, relu)


def forward(x: Array, packed: Array, bias: Array, relu: bool, y: Array, shape: Shape) -> None:
    """The layer on a packed weight, x and y flat; see product_of_packed."""
    problem = Problem("linear", batch=shape.M, C=shape.K, F=shape.N, planned=True, machine=MACHINE)
    block, panels = min(shape.K, choices.choose(problem).sizes["block_k"]), SOME if shape.M > FEW else 1
    with threads.parallel():
        blocks = -(-shape.N // (WIDTH * panels))
        product_of_packed[blocks](x, packed, bias, int(relu), y, shape, Blocks(block, panels, 0))


def compute(x: Array, weight: Array, bias: Array | None) -> Array:
    choice = choose(x, weight, "forward")
    if choice.algorithm == "arrays":
        return array_version("linear").compute(x, weight, bias)
    (M, K), N = x.shape, len(weight)
    rows, ldx = _spread(x)
    ldy = -(-N // WIDTH) * WIDTH
    y = memory.empty((M, ldy))
    blocks = -(-N // WIDTH)
    _divided(product_of_rows[blocks], rows, weight.reshape(-1), y.reshape(-1), Shape(M, N, K, ldx, ldy), choice)
    y = y if ldy == N else y[:, :N].copy()
    if bias is not None:
        y += bias
    return y


def gradients(dy: Array, x: Array, weight: Array, needs: Needs) -> Gradients:
    choice = choose(x, weight, "backward")
    if choice.algorithm == "arrays":
        return array_version("linear").gradients(dy, x, weight, needs)
    (M, K), N = x.shape, len(weight)
    rows, ldy = _spread(dy)
    dx = memory.empty((M, K)) if needs[0] else None
    if dx is not None:
        product = product_with_columns[-(-K // (WIDTH * choice.sizes["block_panels"]))]
        _divided(product, rows, weight.reshape(-1), dx.reshape(-1), Shape(M, N, K, K, ldy), choice)
    dweight = memory.empty((N, K)) if needs[1] else None
    if dweight is not None:
        given, ldx = _spread(x)
        product = product_over_rows[K // WIDTH]
        _divided(product, rows, given, dweight.reshape(-1), Shape(M, N, K, ldx, ldy), choice)
    return dx, dweight, dy.sum(0) if needs[2] else None


def sum_shards(dy: Sequence[Array], x: Sequence[Array], out: Array) -> None:
    """As ops.linear.sum_shards. Which way is taken depends on nothing that differs from shard to shard."""
    N, K = dy[0].shape[1], x[0].shape[1]
    if x[0].dtype != np.float32 or K % WIDTH:
        array_version("linear").sum_shards(dy, x, out)
        return
    given, ldy = _stacked(dy)
    inputs, ldx = _stacked(x)
    cut = np.cumsum([0, *map(len, x)])
    M = int(cut[-1])
    share = M * WIDTH + (1 + len(x).bit_length()) * TILE
    with threads.parallel() as workers:
        shape, work = Shape(M, N, K, ldx, ldy), threads.scratch(share * workers)
        product_over_shards[K // WIDTH](given, inputs, cut, out.reshape(-1), shape, Blocks(0, 1, share), work)


def _divided(product: Any, a: Array, b: Array, c: Array, shape: Shape, choice: choices.Choice) -> None:
    """Run a product of two operands into a third by all threads."""
    block, panels = min(max(shape), choice.sizes["block_k"]), choice.sizes["block_panels"]
    share = panels * panel_room(block)
    with threads.parallel() as workers:
        product(a, b, c, shape, Blocks(block, panels, share), threads.scratch(share * workers))


def choose(x: Array, weight: Array, direction: str) -> choices.Choice:
    layout = "C order" if weight.flags.c_contiguous and weight.flags.writeable else "strided"
    (M, K), N, dtype = x.shape, len(weight), str(x.dtype)
    return choices.choose(Problem("linear", "cpu", direction, dtype, M, K, N, layout=layout, machine=MACHINE))


def _spread(x: Array) -> tuple[Array, int]:
    """A copy of x with rows that do not all fall on the same cache sets, flat, and their distance."""
    stride = padded_width(x.shape[1])
    spread = memory.empty((len(x), stride))
    spread[:, : x.shape[1]] = x
    return spread.reshape(-1), stride


def _stacked(parts: Sequence[Array]) -> tuple[Array, int]:
    """All rows in one array, flat, that do not all fall on the same cache sets; and their distance."""
    stride, at = padded_width(parts[0].shape[1]), 0
    stacked = memory.empty((sum(map(len, parts)), stride))
    for part in parts:
        stacked[at : at + len(part), : part.shape[1]] = part
        at += len(part)
    return stacked.reshape(-1), stride
