"""Convolution with less arithmetic: stride-1 3x3 and 5x5 by Winograd, and 11x11/4 turned into a 3x3.

1. Lavin and Gray's scheme: cut the output in m x m tiles; transform each n x n input tile (n = m + r - 1); n² matrix
   products over the channels, one a point, replace the r² · m² multiplications; transform back.
2. Fused by block: one thread takes some dozens of tiles through all three steps, so that what lies between them stays
   in its cache, and bias and ReLU cost nothing. Blocks run in parallel.
3. A stride S: S x S pixels become channels (space-to-depth), and an 11x11/4 filter a dense 3x3 of 48 channels.

One family of 7x7 tiles, F(5,3) and F(3,5), fits AlexNet: 55 = 11·5, 27 = 9·3, 13 < 3·5. Channels are the vector lanes,
so images lie channels-last (N,H,W,C). A frame of zeros around the input saves the copying of tiles at the border.

Blocks of tiles run in parallel. Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015),
sec. 4; points and matrices: winograd_transforms.py.
Measured (EPYC Zen 4, both cores, batch 32), ms and direct-equivalent GFLOP/s, where the machine's peak is 235:
conv 1 9.6 (560), conv 2 17.9 (800), conv 3 13.4 (535), conv 4 16.7 (575), conv 5 11.0 (580).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from alexnet_np import threads
from alexnet_np.kernels.conv2d_winograd_tiles_numba import input_tile, output_tile, transform_filters
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.jit import kernel, parallel_kernel
from alexnet_np.kernels.cpu.simd import LANES
from alexnet_np.kernels.gemm_numba import WIDTH, gemm, padded_width


class Scratch(NamedTuple):
    """One thread's share of the workspace, in floats."""

    v: int
    products: int
    patch: int
    block: int  # tiles


def plan_scratch(C: int, F: int, n: int, block: int) -> Scratch:
    # A few floats more than the block, so that the n² points do not all map onto the same cache sets.
    return Scratch(block * padded_width(C) + LANES, block * padded_width(F) + LANES, n * n * C, block)


def scratch_floats(s: Scratch, n: int) -> int:
    return n * n * (s.v + s.products) + s.patch


@kernel
def transform_tiles(x, xi, first, last, TH, TW, m, n, top, left, C, work, v_at, point, ldv, patch_at):
    """The input tiles first..last into V (points, tiles, channels); one that leaves the frame is copied first."""
    for t in range(first, last):
        image, i, j = t // (TH * TW), t // TW % TH * m - top, t % TW * m - left
        at = xi.at + image * xi.image + i * xi.row + j * xi.col
        into = v_at + (t - first) * ldv
        if i >= -xi.before and i + n <= xi.H + xi.after and j >= -xi.before and j + n <= xi.W + xi.after:
            input_tile(n, x, at, xi.row, xi.col, work, into, point, C)
        else:
            for a in range(n):
                for b in range(n):
                    pixel = patch_at + (a * n + b) * C
                    if 0 <= i + a < xi.H and 0 <= j + b < xi.W:
                        source = at + a * xi.row + b * xi.col
                        for c in range(C):
                            work[pixel + c] = x[source + c]
                    else:
                        for c in range(C):
                            work[pixel + c] = 0
            input_tile(n, work, patch_at, n * C, C, work, into, point, C)


@parallel_kernel
def forward_blocks(
    x, xi, u, u_at, bias, bias_at, relu, y, yi, N, C, F, m, r, top, left, ldv, ldm, work, share, s, blocks, workers
):  # fmt: skip
    """y = act(conv(x, U) + bias), tile block by tile block; u is packed by transform_filters."""
    n = m + r - 1
    TH, TW = (yi.H + m - 1) // m, (yi.W + m - 1) // m
    tiles = N * TH * TW
    point_u = (F + WIDTH - 1) // WIDTH * WIDTH * C
    for worker in prange(workers):
        w = np.int64(worker)
        v_at = w * share
        products_at = v_at + n * n * s.v
        patch_at = products_at + n * n * s.products
        for block in range(w * blocks // workers, (w + 1) * blocks // workers):
            first, last = block * tiles // blocks, (block + 1) * tiles // blocks
            transform_tiles(x, xi, first, last, TH, TW, m, n, top, left, C, work, v_at, s.v, ldv, patch_at)
            for p in range(n * n):
                gemm(
                    work, v_at + p * s.v, ldv, 1, 0, C, u, u_at + p * point_u,
                    work, products_at + p * s.products, ldm, last - first, F, 0,
                )  # fmt: skip
            for t in range(first, last):
                image, i, j = t // (TH * TW), t // TW % TH * m, t % TW * m
                at = yi.at + image * yi.image + i * yi.row + j * yi.col
                output_tile(
                    10 * m + r, work, products_at + (t - first) * ldm, s.products, y, at, yi.row, yi.col,
                    bias, bias_at, relu, yi.H - i, yi.W - j, F,
                )  # fmt: skip


def forward(x, xi, u, bias, relu, y, yi, N, C, F, m, r, padding, block, groups=1):
    """One convolution from Image to Image; C and F count a group's channels; block is the most tiles of a block."""
    n = m + r - 1
    tiles = N * -(-yi.H // m) * -(-yi.W // m)
    if tiles == 0:
        return
    with threads.parallel() as workers:
        blocks = -(-tiles // block)
        blocks = min(tiles, -(-blocks // workers) * workers)
        s = plan_scratch(C, F, n, -(-tiles // blocks))
        share = scratch_floats(s, n)
        work = threads.scratch(share * workers)
        for g in range(groups):
            forward_blocks(
                x, xi.channels_from(g * C), u, g * (u.size // groups), bias, g * F, relu, y, yi.channels_from(g * F),
                N, C, F, m, r, *padding, padded_width(C), padded_width(F), work, share, s, blocks, workers,
            )  # fmt: skip


def packed_filters(weight: np.ndarray, m: int, groups: int = 1, adjoint: bool = False) -> np.ndarray:
    """U for a weight (F,C/groups,r,r): (groups, n², panels, C/groups, WIDTH), flat, the panels being of filters.

    `adjoint`: its transpose for the way back, the panels of channels: (groups, n², panels, F/groups, WIDTH).
    """
    F, C, r, _ = weight.shape
    filters, taps = F // groups, r * r
    weight = np.require(weight, np.float32, ["C", "W"])
    strides, sizes = ((taps, C * taps), (C, filters)) if adjoint else ((C * taps, taps), (filters, C))
    size = (m + r - 1) ** 2 * -(-sizes[0] // WIDTH) * sizes[1] * WIDTH
    u = memory.empty((groups * size,))
    with threads.parallel():
        for g in range(groups):
            flat = weight[g * filters : (g + 1) * filters].reshape(-1)
            transform_filters(flat, *strides, *sizes, m, r, u[g * size : (g + 1) * size])
    return u
