"""Adaptive average pooling of channels-last images.

    y[n, i, j, c] = mean of x[n, h, w, c] over floor(i*H/OH) <= h < ceil((i+1)*H/OH), and w likewise

Rows of pixels run in parallel. Source: alexnet_np/ops/adaptive_avg_pool2d.py.
"""

from __future__ import annotations

import numpy as np

from alexnet_np.kernels.cpu.blocks import block_kernel


@block_kernel
def pool(task, _, x, xi, y, yi, C):
    """From Image to Image, whose sizes say the windows."""
    n, i = task // yi.H, task % yi.H
    h0, h1 = i * xi.H // yi.H, ((i + 1) * xi.H + yi.H - 1) // yi.H
    for j in range(yi.W):
        w0, w1 = j * xi.W // yi.W, ((j + 1) * xi.W + yi.W - 1) // yi.W
        target = yi.at + n * yi.image + i * yi.row + j * yi.col
        scale = np.float32(1) / np.float32((h1 - h0) * (w1 - w0))
        for c in range(C):
            total = np.float32(0)
            for h in range(h0, h1):
                for w in range(w0, w1):
                    total += x[xi.at + n * xi.image + h * xi.row + w * xi.col + c]
            y[target + c] = total * scale
