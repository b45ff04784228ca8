"""The fully connected layer on weights stored in 16 bits: y (M,N) = act(x (M,K) · weightᵀ + bias), in float32.

With few rows of x a dense layer takes as long as reading its weights, so half the bytes are half the time, at best.
Each BLOCK weights of an output unit, side by side along K, share a float32 scale, their largest magnitude / 32767:

    weight ≈ scale * integer,  |error| <= scale / 2

No weight but zero becomes 0 (one below scale / 2 becomes ±1): zero times infinity is none. For AlexNet's layers that
leaves outputs 2e-5 off, relative (float32's own rounding: 2e-7).

1. Up to FEW rows: integers become floats in registers on their way to the multiply-add; the sums of a block are scaled
   once, when it ends. Panels and order as in linear_numba.py.
2. Up to SOME rows: likewise, a tile of them at a time, whose sums fill the registers; a block's are added to y. A slice
   of a panel stays in the cache for the next tile of rows.
3. More rows: a slice of a panel becomes floats in the thread's cache, and all rows of x use it (gemm_numba.py).

Panels are divided among the threads. Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (2018), sec. 2, for the scales; Dettmers et al., "8-bit Optimizers via Block-wise
Quantization" (2022), for one a block.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from llvmlite import ir

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.simd import INTEGER, LANES, MACHINE, POINTER, Emitter, vector_function
from alexnet_np.kernels.gemm_numba import ROWS, WIDTH, gemm, packed_product
from alexnet_np.kernels.linear_numba import Blocks, Shape, finish_panel

BLOCK = 64  # weights that share a scale
LARGEST = 32767
FEW = 4  # rows whose sums, and those of a block, stay in registers
UNROLL = 4  # steps of k in work at a time; with one row they are summed apart, so that none waits for the one before
SOME = 48  # rows up to which turning integers into floats again for each tile costs less than storing the floats
SLICE = 256  # of K, as floats in the cache
PART = 1024  # of K, as integers in the cache; whole blocks


def emit_few(
    e: Emitter,
    x: ir.Value,
    ldx: ir.Value,
    weights: ir.Value,
    scales: ir.Value,
    y: ir.Value,
    ldy: ir.Value,
    depth: ir.Value,
    *,
    rows: int,
) -> None:
    """y[i, :WIDTH] = sum over blocks b of scales[b, :] * sum over k in b of x[i, k] * weights[k, :] for i < rows."""
    vectors, apart = range(MACHINE.vectors), UNROLL if rows == 1 else 1
    zero = e.constant(0.0)
    totals = [[e.variable(zero) for _ in vectors] for _ in range(rows)]
    sums = [[[e.variable(zero) for _ in range(apart)] for _ in vectors] for _ in range(rows)]

    def step(k: ir.Value, u: int) -> None:
        columns = [e.load_shorts(weights, e.add(e.mul(k, WIDTH), v * LANES)) for v in vectors]
        for i in range(rows):
            factor = e.broadcast(x, e.add(e.mul(ldx, i), k))
            for v in vectors:
                slot = sums[i][v][u % apart]
                e.set(slot, e.fma(factor, columns[v], e.get(slot)))

    with e.loop(e.builder.udiv(e.add(depth, BLOCK - 1), e.int(BLOCK))) as block:
        first = e.mul(block, BLOCK)
        rest = e.sub(depth, first)
        length = e.builder.select(e.less(rest, BLOCK), rest, e.int(BLOCK))
        for slot in (slot for row in sums for vector in row for slot in vector):
            e.set(slot, zero)
        whole = e.builder.udiv(length, e.int(UNROLL))
        with e.loop(whole) as group:
            for u in range(UNROLL):
                step(e.add(first, e.add(e.mul(group, UNROLL), u)), u)
        done = e.mul(whole, UNROLL)
        with e.loop(e.sub(length, done)) as k:
            step(e.add(first, e.add(done, k)), 0)
        for v in vectors:
            scale = e.load(scales, e.add(e.mul(block, WIDTH), v * LANES))
            for i in range(rows):
                of_block = [e.get(slot) for slot in sums[i][v]]
                while len(of_block) > 1:
                    of_block = [e.plus(a, b) for a, b in zip(of_block[::2], of_block[1::2], strict=True)]
                e.set(totals[i][v], e.fma(of_block[0], scale, e.get(totals[i][v])))
    for i in range(rows):
        for v in vectors:
            e.store(e.get(totals[i][v]), y, e.add(e.mul(ldy, i), v * LANES))


def emit_tile(
    e: Emitter,
    x: ir.Value,
    ldx: ir.Value,
    weights: ir.Value,
    scales: ir.Value,
    y: ir.Value,
    ldy: ir.Value,
    depth: ir.Value,
    more: ir.Value,
    *,
    rows: int,
) -> None:
    """As emit_few; `more`: added to what y holds. A block's sums are scaled and added to y as it ends."""
    vectors, zero = range(MACHINE.vectors), e.constant(0.0)
    starts, ends = ([e.mul(stride, i) for i in range(rows)] for stride in (ldx, ldy))
    sums = [[e.variable(zero) for _ in vectors] for _ in range(rows)]
    panel, source, scale = e.variable(weights), e.variable(x), e.variable(scales)

    def steps(count: int) -> None:
        for _ in range(count):
            here, x_k = e.get(panel), e.get(source)
            columns = [e.load_shorts(here, v * LANES) for v in vectors]
            for i in range(rows):
                factor = e.broadcast(x_k, starts[i])
                for v in vectors:
                    e.set(sums[i][v], e.fma(factor, columns[v], e.get(sums[i][v])))
            e.set(panel, e.at(here, WIDTH // 2))  # of floats, which are twice as long
            e.set(source, e.at(x_k, 1))

    with e.when(e.less(more, 1)):
        for i in range(rows):
            for v in vectors:
                e.store(zero, y, e.add(ends[i], v * LANES))
    with e.loop(e.builder.udiv(e.add(depth, BLOCK - 1), e.int(BLOCK))) as block:
        rest = e.sub(depth, e.mul(block, BLOCK))
        length = e.builder.select(e.less(rest, BLOCK), rest, e.int(BLOCK))
        whole = e.builder.udiv(length, e.int(UNROLL))
        with e.loop(whole):
            steps(UNROLL)
        with e.loop(e.sub(length, e.mul(whole, UNROLL))):
            steps(1)
        factors = [e.load(e.get(scale), v * LANES) for v in vectors]
        for i in range(rows):
            for v in vectors:
                at = e.add(ends[i], v * LANES)
                e.store(e.fma(e.get(sums[i][v]), factors[v], e.load(y, at)), y, at)
                e.set(sums[i][v], zero)
        e.set(scale, e.at(e.get(scale), WIDTH))


def emit_widen(e: Emitter, weights: ir.Value, scales: ir.Value, floats: ir.Value, depth: ir.Value) -> None:
    """floats[k, :WIDTH] = scales[k // BLOCK, :] * weights[k, :] for k < depth."""
    with e.loop(depth) as k:
        block = e.builder.udiv(k, e.int(BLOCK))
        for v in range(MACHINE.vectors):
            at = e.add(e.mul(k, WIDTH), v * LANES)
            scale = e.load(scales, e.add(e.mul(block, WIDTH), v * LANES))
            e.store(e.product(e.load_shorts(weights, at), scale), floats, at)


P, I = POINTER, INTEGER  # noqa: E741
few_rows = vector_function(
    "linear_int16_few", (P, I, P, P, P, I, I), {m: partial(emit_few, rows=m) for m in range(1, FEW + 1)}
)
tile_of_rows = vector_function(
    "linear_int16_tile", (P, I, P, P, P, I, I, I), {m: partial(emit_tile, rows=m) for m in range(1, ROWS + 1)}
)
widen = vector_function("linear_int16_widen", (P, P, P, I), {0: emit_widen})


@block_kernel
def pack(p, _, weight, N, K, packed, scales):
    """weight (N,K), flat, as integers (panels, K, WIDTH) and scales (panels, ceil(K/BLOCK), WIDTH), zeros beyond N.

    A scale is not finite where one of its weights is not.
    """
    blocks = (K + BLOCK - 1) // BLOCK
    for f in range(WIDTH):
        for b in range(blocks):
            first, last, most = b * BLOCK, min((b + 1) * BLOCK, K), np.float32(0)
            source = (p * WIDTH + f) * K
            if p * WIDTH + f < N:
                for k in range(first, last):
                    size = abs(weight[source + k])
                    if not size <= most:  # NaN too
                        most = size
                        if size != size:
                            break
            scale = most / np.float32(LARGEST)
            scales[(p * blocks + b) * WIDTH + f] = scale
            good = 0 < scale < np.inf
            for k in range(first, last):
                value = np.rint(weight[source + k] / scale) if good else np.float32(0)
                if value == 0 and good:
                    value = np.sign(weight[source + k])
                packed[(p * K + k) * WIDTH + f] = np.int16(max(min(value, LARGEST), -LARGEST))


@block_kernel
def product(p, worker, x, packed, scales, bias, relu, y, shape, blocks, work):
    """Panel p of y = act(x · weightᵀ + bias); rows of y, and the bias, have room for whole panels."""
    M, K = shape.M, shape.K
    of_panel, at = (K + BLOCK - 1) // BLOCK, worker * blocks.share
    if M <= FEW:
        scale_at = p * of_panel * WIDTH
        few_rows(M, x, 0, shape.ldx, packed, p * K * WIDTH, scales, scale_at, y, p * WIDTH, shape.ldy, K)
    elif M <= SOME:
        tiles, ldx, ldy = (M + ROWS - 1) // ROWS, shape.ldx, shape.ldy
        for k in range(0, K, PART):
            depth, scale_at = min(PART, K - k), (p * of_panel + k // BLOCK) * WIDTH
            weight_at, more = (p * K + k) * WIDTH, 1 if k else 0
            for h in range(tiles):
                i, end = h * M // tiles, (h + 1) * M // tiles
                source, into = i * ldx + k, i * ldy + p * WIDTH
                rows = end - i
                tile_of_rows(rows, x, source, ldx, packed, weight_at, scales, scale_at, y, into, ldy, depth, more)
    else:
        for k in range(0, K, blocks.K):
            depth, more = min(blocks.K, K - k), 1 if k else 0
            widen(0, packed, (p * K + k) * WIDTH, scales, (p * of_panel + k // BLOCK) * WIDTH, work, at, depth)
            gemm(x, k, work, at, y, p * WIDTH, packed_product(M, WIDTH, depth, shape.ldx, shape.ldy, more))
    finish_panel(y, p * WIDTH, M, shape.ldy, bias, relu)


def forward(x: Array, packed: Array, scales: Array, bias: Array, relu: bool, y: Array, shape: Shape) -> None:
    """The layer on a weight that `pack` has packed, x and y flat; see `product`."""
    share = SLICE * WIDTH + LANES
    with threads.parallel() as workers:
        blocks, work = Blocks(SLICE, 1, share), threads.scratch(share * workers)
        product[-(-shape.N // WIDTH)](x, packed, scales, bias, int(relu), y, shape, blocks, work)


def room(N: int, K: int) -> tuple[int, int]:
    """How many integers and scales a weight (N,K) becomes."""
    units = -(-N // WIDTH) * WIDTH
    return units * K, units * -(-K // BLOCK)
