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

import numpy as np
from numba import prange

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.image import framed
from alexnet_np.kernels.cpu.jit import parallel_kernel
from alexnet_np.kernels.cpu.simd import LANES
from alexnet_np.kernels.gemm_numba import ROWS, WIDTH, pack, padded_bias, tile
from alexnet_np.ops.conv2d import Geometry


@parallel_kernel
def forward_rows(
    x, xi, packed, packed_at, bias, bias_at, relu, y, yi, N, F,
    taps, tap_stride, K, outer, outer_stride, step_h, step_w, band, work, share, workers,
):  # fmt: skip
    """y[h,w] = act(bias + sum of x[h*step_h + w*step_w + o*outer_stride + t*tap_stride + k] * packed[o,t,k])."""
    panels, bands = (F + WIDTH - 1) // WIDTH, (yi.H + band - 1) // band
    tiles = (yi.W + ROWS - 1) // ROWS
    for worker in prange(workers):
        w = np.int64(worker)
        c = w * share
        for task in range(w * N * bands // workers, (w + 1) * N * bands // workers):
            n, first = task // bands, task % bands * band
            for p in range(panels):
                width = min(WIDTH, F - p * WIDTH)
                for h in range(first, min(first + band, yi.H)):
                    source = xi.at + n * xi.image + h * step_h
                    target = yi.at + n * yi.image + h * yi.row + p * WIDTH
                    for t in range(tiles):
                        j, end = t * yi.W // tiles, (t + 1) * yi.W // tiles
                        for o in range(outer):
                            tile(
                                end - j, x, source + j * step_w + o * outer_stride, step_w, taps, tap_stride, K,
                                packed, packed_at + (p * outer + o) * taps * K * WIDTH, WIDTH,
                                work, c, WIDTH, 1 if o else 0,
                            )  # fmt: skip
                        for pixel in range(end - j):
                            for f in range(width):
                                value = work[c + pixel * WIDTH + f] + bias[bias_at + p * WIDTH + f]
                                if relu and value < 0:
                                    value = np.float32(0)
                                y[target + (j + pixel) * yi.col + f] = value


def forward(x, xi, packed, bias, relu, y, yi, N, C, F, kernel, stride, dilation, padding, groups=1):
    """One convolution from Image to Image; C and F count a group's channels; padding is (top, left).

    The frame of xi must reach as far as the windows do.
    """
    (KH, KW), (SH, SW), (DH, DW) = kernel, stride, dilation
    whole_rows = groups == 1 and DW == 1 and xi.col == C  # the floats of a window's row lie together
    taps, tap_stride, K = (KH, DH * xi.row, KW * C) if whole_rows else (KW, DW * xi.col, C)
    outer, outer_stride = (1, 0) if whole_rows else (KH, DH * xi.row)
    origin = xi._replace(at=xi.at - padding[0] * xi.row - padding[1] * xi.col)
    if N * yi.H * yi.W == 0:
        return
    with threads.parallel() as workers:
        band = yi.H if workers <= N else -(-yi.H * N // workers)
        share = ROWS * WIDTH + LANES
        work = threads.scratch(share * workers)
        for g in range(groups):
            forward_rows(
                x, origin.channels_from(g * C), packed, g * (packed.size // groups), bias, g * F, relu,
                y, yi.channels_from(g * F), N, F, taps, tap_stride, K, outer, outer_stride, SH * xi.row, SW * xi.col,
                band, work, share, workers,
            )  # fmt: skip


def compute(x: Array, weight: Array, bias: Array | None, geometry: Geometry) -> Array:
    """y (N,F,OH,OW), channels-last, of float32 x and weight; x is framed and the filters are packed on the way."""
    top, bottom, left, right = geometry.padding
    framed_x = np.pad(x.transpose(0, 2, 3, 1), ((0, 0), (top, bottom), (left, right), (0, 0)))
    (N, H, W, C), F = framed_x.shape, len(weight)
    y = memory.empty((N, *geometry.output, F))
    forward(
        framed_x.reshape(-1), framed(C, H, W), packed_filters(weight, geometry.groups), padded_bias(bias, F), 0,
        y.reshape(-1), framed(F, *geometry.output), N, weight.shape[1], F // geometry.groups,
        geometry.kernel, geometry.stride, geometry.dilation, (0, 0), geometry.groups,
    )  # fmt: skip
    return y.transpose(0, 3, 1, 2)


def packed_filters(weight: np.ndarray, groups: int = 1) -> np.ndarray:
    """weight (F,C/groups,KH,KW) as (groups, panels, KH*KW*C/groups, WIDTH), flat."""
    F, C, KH, KW = weight.shape
    rows = weight.reshape(groups, F // groups, C, KH, KW).transpose(0, 3, 4, 2, 1).reshape(groups, KH * KW * C, -1)
    return np.concatenate([pack(group).reshape(-1) for group in rows])
