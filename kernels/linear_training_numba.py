"""A dense layer in a training step: its weight read as it is, and updated while its gradient is in the cache.

1. `forward`: y (M,N) = act(x (M,K) · weightᵀ + bias); a slice of a panel at a time is packed into the cache of the
   thread that multiplies it at once (linear_numba.py), and bias and ReLU follow while its outputs are there.
2. `backward`: some rows and columns of the weight at a time give their share of dx = dy · weight; then their gradient
   dyᵀ · x is computed, a few rows of it, and SGD applies it at once (sgd_numba.py). The gradient is never in memory,
   and the weight is read from there once: of AlexNet's 234 MB that spares writing one, reading two.

The trap: dx is of the weight before its update, so each block's share of dx comes first.
Parallel over panels of outputs (forward), over columns of the weight (backward): every sum has one owner and one order.
Source: Goto and van de Geijn (2008), sec. 4, for the blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.simd import MACHINE
from alexnet_np.kernels.gemm_numba import ROWS, WIDTH, Product, gemm, packed_product, tile_transposed
from alexnet_np.kernels.linear_numba import Blocks, Shape, finish_panel, pack_columns, panel_room, product_of_panel
from alexnet_np.kernels.problems import Problem
from alexnet_np.kernels.sgd_numba import rule_of, sgd_run
from alexnet_np.ops.sgd import Step

NO_UPDATE = -1  # for a rule of sgd_numba: the weight stays


@block_kernel
def product_with_bias(p, worker, x, weight, bias, relu, y, shape, blocks, work):
    """Panel p of y = act(x · weightᵀ + bias); rows of y, and the bias, have room for whole panels."""
    product_of_panel(p, x, weight, y, shape, blocks.K, work, worker * blocks.share)
    finish_panel(y, p * WIDTH, shape.M, shape.ldy, bias, relu)


class Share(NamedTuple):
    """Of a thread's workspace, in floats: what is in work at a time, where packed columns of x and the gradient of a
    few rows lie, and from one panel to the next."""

    K: int  # terms of the sums in work
    panels: int  # and panels of the weight
    size: int
    x_at: int
    gradient_at: int
    weight_step: int
    x_step: int


@block_kernel
def gradients_and_update(block, worker, dy, x, weight, velocity, dx, shape, share, wanted, numbers, work):
    """dx = dy · weight where it is wanted; then one step of SGD by weight's gradient dyᵀ · x.

    K in whole panels, some of them a block. `wanted`: whether dx is, and the rule of the update with its `numbers`.
    """
    (want, rule), (M, N, K) = wanted, (shape.M, shape.N, shape.K)
    at, start = worker * share.size, block * share.panels
    x_at, into = at + share.x_at, at + share.gradient_at
    count, column = min(share.panels, K // WIDTH - start), start * WIDTH
    if rule != NO_UPDATE:
        pack_columns(x, column, shape.ldx, M, count, work, x_at, share.x_step)
    for n in range(0, N, share.K):
        depth = min(share.K, N - n)
        if want:
            pack_columns(weight, n * K + column, K, depth, count, work, at, share.weight_step)
            product = packed_product(M, WIDTH, depth, shape.ldy, shape.ldx, 1 if n else 0)
            for p in range(count):
                gemm(dy, n, work, at + p * share.weight_step, dx, column + p * WIDTH, product)
        if rule != NO_UPDATE:
            for i in range(n, n + depth, ROWS):
                rows, width = min(ROWS, n + depth - i), count * WIDTH
                for m in range(0, M, share.K):
                    length, more = min(share.K, M - m), 1 if m else 0
                    product = Product(rows, WIDTH, length, shape.ldy, WIDTH, width, more, 1, 0)
                    for p in range(count):
                        panel = x_at + p * share.x_step + m * WIDTH
                        a, c = m * shape.ldy + i, into + p * WIDTH
                        tile_transposed(rows, dy, a, work, panel, work, c, product)
                for r in range(rows):
                    here = (i + r) * K + column
                    sgd_run(rule, weight, here, work, into + r * width, velocity, here, numbers, 0, width)


class Update(NamedTuple):
    """What SGD does to a weight: its velocity, if it has one, and the step."""

    velocity: Array | None
    step: Step


def fits(weight: Array) -> bool:
    """Whether `backward` takes it: its columns are whole panels."""
    return weight.shape[1] % WIDTH == 0


def forward(x: Array, weight: Array, bias: Array, relu: bool, y: Array, shape: Shape) -> None:
    """x, y and the weight flat."""
    block = blocks_of(shape, "forward")[0]
    with threads.parallel() as workers:
        share = panel_room(block)
        work = threads.scratch(share * workers)
        product_with_bias[-(-shape.N // WIDTH)](x, weight, bias, int(relu), y, shape, Blocks(block, 1, share), work)


def backward(dy: Array, x: Array, weight: Array, dx: Array | None, update: Update | None, shape: Shape) -> None:
    """All flat but the velocity, dx with rows of `ldx`. Where `update` is None the weight stays."""
    block, panels = blocks_of(shape, "backward")
    weight_step, x_step = panel_room(block), panel_room(shape.M)
    x_at = panels * weight_step
    gradient_at = x_at + panels * x_step
    share = Share(block, panels, gradient_at + ROWS * panels * WIDTH, x_at, gradient_at, weight_step, x_step)
    rule, numbers, velocity = NO_UPDATE, np.empty(0, np.float32), weight
    if update is not None:
        rule, numbers = rule_of(update.step, update.velocity is not None)
        velocity = weight if update.velocity is None else update.velocity.reshape(-1)
    given, wanted = (dy, x, weight, velocity, dy if dx is None else dx, shape), (int(dx is not None), rule)
    with threads.parallel() as workers:
        work = threads.scratch(share.size * workers)
        gradients_and_update[-(-shape.K // (WIDTH * panels))](*given, share, wanted, numbers, work)


def blocks_of(shape: Shape, direction: str) -> tuple[int, int]:
    """Terms of the sums, and panels, in work at a time."""
    problem = Problem("linear", "cpu", direction, batch=shape.M, C=shape.K, F=shape.N, training=True, machine=MACHINE)
    sizes = choices.choose(problem).sizes
    terms = shape.K if direction == "forward" else max(shape.M, shape.N)
    return min(terms, sizes["block_k"]), sizes["block_panels"]
