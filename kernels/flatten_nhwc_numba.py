"""Flattening channels-last images to the rows that a dense layer reads.

    y[n, (c*H + h)*W + w] = x[n, h, w, c]

from channels-last to the order (C,H,W) that the weights expect. Rows of pixels run in parallel.
"""

from __future__ import annotations

import numpy as np

from alexnet_np.kernels.cpu.blocks import block_kernel


@block_kernel
def to_rows(task, _, x, xi, y, yi, C):
    """From Image to Image, y's of one pixel each."""
    n, h = task // xi.H, task % xi.H
    row = yi.at + n * yi.image + h * xi.W
    for w in range(xi.W):
        pixel = xi.at + n * xi.image + h * xi.row + w * xi.col
        for c in range(C):
            y[row + c * xi.H * xi.W + w] = x[pixel + c]


@block_kernel
def from_rows(task, _, dy, yi, dx, xi, C, width):
    """The adjoint: dx[n, h, w, c] = dy[n, (c*H + h)*W + w]; zeros in the channels from C up to `width`."""
    n, h = task // xi.H, task % xi.H
    row = yi.at + n * yi.image + h * xi.W
    for w in range(xi.W):
        pixel = xi.at + n * xi.image + h * xi.row + w * xi.col
        for c in range(C):
            dx[pixel + c] = dy[row + c * xi.H * xi.W + w]
        for c in range(C, width):
            dx[pixel + c] = np.float32(0)
