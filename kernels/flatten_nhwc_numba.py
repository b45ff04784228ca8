"""Flattening channels-last images to the rows that a dense layer reads.

    y[n, (c*H + h)*W + w] = x[n, h, w, c]

from channels-last to the order (C,H,W) that the weights expect. Rows of pixels run in parallel.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from alexnet_np.kernels.cpu.jit import parallel_kernel


@parallel_kernel
def to_rows(x, xi, y, yi, N, C):
    """From Image to Image, y's of one pixel each."""
    for task in prange(N * xi.H):
        n, h = np.int64(task) // xi.H, np.int64(task) % xi.H
        row = yi.at + n * yi.image + h * xi.W
        for w in range(xi.W):
            pixel = xi.at + n * xi.image + h * xi.row + w * xi.col
            for c in range(C):
                y[row + c * xi.H * xi.W + w] = x[pixel + c]


@parallel_kernel
def from_rows(dy, yi, dx, xi, N, C, width):
    """The adjoint: dx[n, h, w, c] = dy[n, (c*H + h)*W + w]; zeros in the channels from C up to `width`."""
    for task in prange(N * xi.H):
        n, h = np.int64(task) // xi.H, np.int64(task) % xi.H
        row = yi.at + n * yi.image + h * xi.W
        for w in range(xi.W):
            pixel = xi.at + n * xi.image + h * xi.row + w * xi.col
            for c in range(C):
                dx[pixel + c] = dy[row + c * xi.H * xi.W + w]
            for c in range(C, width):
                dx[pixel + c] = np.float32(0)
