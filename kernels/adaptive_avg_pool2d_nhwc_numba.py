"""Adaptive average pooling of channels-last images, straight into the rows that the first dense layer reads.

    y[n, (c*OH + i)*OW + j] = mean of x[n, h, w, c] over floor(i*H/OH) <= h < ceil((i+1)*H/OH), and w likewise

With (OH,OW) = (H,W) it only changes the order, from channels-last to the (C,H,W) that the weights expect.
Images run in parallel. Source: alexnet_np/ops/adaptive_avg_pool2d.py.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from alexnet_np.kernels.cpu.jit import parallel_kernel


@parallel_kernel
def pool_to_rows(x, xi, N, C, OH, OW, y, ldy):
    """Row n of y, ldy floats from the next, gets the C*OH*OW means of image n."""
    for task in prange(N * OH):
        n, i = np.int64(task) // OH, np.int64(task) % OH
        h0, h1 = i * xi.H // OH, ((i + 1) * xi.H + OH - 1) // OH
        for j in range(OW):
            w0, w1 = j * xi.W // OW, ((j + 1) * xi.W + OW - 1) // OW
            scale = np.float32(1) / np.float32((h1 - h0) * (w1 - w0))
            for c in range(C):
                total = np.float32(0)
                for h in range(h0, h1):
                    for w in range(w0, w1):
                        total += x[xi.at + n * xi.image + h * xi.row + w * xi.col + c]
                y[n * ldy + (c * OH + i) * OW + j] = total * scale
