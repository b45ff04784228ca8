"""Convolution with no fast algorithm: an implicit matrix product straight from the channels-last image.

1. The rows of the product's A are windows. In a channels-last image the KW*C floats of a window's row lie together, and
   the next output's window begins stride*C floats further on: the microkernel reads overlapping rows where they lie and
   sums over the KH rows of the window ("taps") while the output tile stays in registers. No column matrix, no copy.
   With groups or dilation a tap is a single pixel of the group's channels, and each pixel row is added on.

One image (or some rows of it) a task; within it one panel of filters at a time, which stays in the second-level cache.
The image must lie in a frame of zeros as wide as the padding.
Source: Chellapilla et al. (2006); without columns: Georganas et al., "Anatomy of High-Performance Deep Learning
Convolutions on SIMD Architectures" (2018).
Measured (EPYC Zen 4, both cores, batch 32): 185-215 GFLOP/s on conv 2 to 5, 136-159 on conv 1, whose taps are short.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.conv2d_layer import Layer, each_group
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.image import Image, framed
from alexnet_np.kernels.cpu.simd import LANES
from alexnet_np.kernels.gemm_numba import ROWS, WIDTH, Product, pack, padded_bias, tile
from alexnet_np.ops.conv2d import Geometry

SHARES = 4  # tasks a thread, at least: one that loses its core should not hold up the others for long


class Windows(NamedTuple):
    """Where the values of an output's window lie, in floats: `outer` blocks of `taps` runs of K, and whose steps."""

    K: int
    taps: int
    tap_step: int
    outer: int
    outer_step: int
    down: int  # from an output's window to that of the output below it
    across: int  # and to the right of it


class Work(NamedTuple):
    """How it is divided: `band` output rows a task, and `share` floats of the workspace a thread."""

    band: int
    share: int


@block_kernel
def forward_rows(task, worker, x, xi, packed, bias, y, yi, group, windows, work, tiles):
    """y[h,w] = act(bias + sum of x[h*down + w*across + o*outer_step + t*tap_step + k] * packed[o,t,k])."""
    panels, bands = (group.F + WIDTH - 1) // WIDTH, (yi.H + work.band - 1) // work.band
    panel_size, pieces = windows.taps * windows.K * WIDTH, (yi.W + ROWS - 1) // ROWS
    c = worker * work.share
    once = Product(ROWS, WIDTH, windows.K, windows.across, WIDTH, WIDTH, 0, windows.taps, windows.tap_step)
    more = Product(ROWS, WIDTH, windows.K, windows.across, WIDTH, WIDTH, 1, windows.taps, windows.tap_step)
    n, first = task // bands, task % bands * work.band
    for p in range(panels):
        width, shift = min(WIDTH, group.F - p * WIDTH), group.bias_at + p * WIDTH
        for h in range(first, min(first + work.band, yi.H)):
            source = xi.at + n * xi.image + h * windows.down
            target = yi.at + n * yi.image + h * yi.row + p * WIDTH
            for piece in range(pieces):
                j, end = piece * yi.W // pieces, (piece + 1) * yi.W // pieces
                for o in range(windows.outer):
                    window = source + j * windows.across + o * windows.outer_step
                    panel = group.filters_at + (p * windows.outer + o) * panel_size
                    tile(end - j, x, window, packed, panel, tiles, c, more if o else once)
                for pixel in range(end - j):
                    for f in range(width):
                        value = tiles[c + pixel * WIDTH + f] + bias[shift + f]
                        if group.relu and value < 0:
                            value = np.float32(0)
                        y[target + (j + pixel) * yi.col + f] = value


def forward(
    x: Array, xi: Image, packed: Array, bias: Array, y: Array, yi: Image, layer: Layer, geometry: Geometry
) -> None:
    """One convolution from Image to Image. The frame of xi must reach as far as the windows do."""
    if layer.images * yi.H * yi.W == 0:
        return
    windows, (top, _, left, _) = windows_of(xi, layer, geometry), geometry.padding
    origin = xi._replace(at=xi.at - top * xi.row - left * xi.col)
    with threads.parallel() as workers:
        band = -(-yi.H // max(1, -(-SHARES * workers // layer.images)))
        work = Work(band, ROWS * WIDTH + LANES)
        tiles = threads.scratch(work.share * workers)
        for group, source, target in each_group(layer, origin, yi, packed.size):
            forward_rows[layer.images * -(-yi.H // band)](
                x, source, packed, bias, y, target, group, windows, work, tiles
            )


def windows_of(xi: Image, layer: Layer, geometry: Geometry) -> Windows:
    (KH, KW), (SH, SW), (DH, DW), C = geometry.kernel, geometry.stride, geometry.dilation, layer.C
    steps = SH * xi.row, SW * xi.col
    if layer.groups == 1 and DW == 1 and xi.col == C:  # the floats of a window's row lie together
        return Windows(KW * C, KH, DH * xi.row, 1, 0, *steps)
    return Windows(C, KW, DW * xi.col, KH, DH * xi.row, *steps)


def compute(x: Array, weight: Array, bias: Array | None, geometry: Geometry) -> Array:
    """y (N,F,OH,OW), channels-last, of float32 x and weight; x is framed and the filters are packed on the way."""
    top, bottom, left, right = geometry.padding
    framed_x = np.pad(x.transpose(0, 2, 3, 1), ((0, 0), (top, bottom), (left, right), (0, 0)))
    (N, H, W, C), (F, CG), G = framed_x.shape, weight.shape[:2], geometry.groups
    y = memory.empty((N, *geometry.output, F))
    xi = Image((top * W + left) * C, H * W * C, W * C, C, H - top - bottom, W - left - right)
    packed, layer = packed_filters(weight, G), Layer(N, CG, F // G, G)
    yi = framed(F, *geometry.output)
    forward(framed_x.reshape(-1), xi, packed, padded_bias(bias, F), y.reshape(-1), yi, layer, geometry)
    return y.transpose(0, 3, 1, 2)


def packed_filters(weight: np.ndarray, groups: int = 1) -> np.ndarray:
    """weight (F,C/groups,KH,KW) as (groups, panels, KH*KW*C/groups, WIDTH), flat."""
    F, C, KH, KW = weight.shape
    rows = weight.reshape(groups, F // groups, C, KH, KW).transpose(0, 3, 4, 2, 1).reshape(groups, KH * KW * C, -1)
    return np.concatenate([pack(group).reshape(-1) for group in rows])
