"""Images as bytes to a network's input, channels-last: x[c] = table[c, pixels[order[c]]].

1. A table of 256 values a channel, filled by alexnet_np/data/preprocess.py itself: its very bits, without arithmetic.
2. Where a convolution of stride S follows, S x S pixels become channels on the way (conv2d_space_to_depth_numba.py).

Rows of the result run in parallel.
"""

from __future__ import annotations

import numpy as np

from alexnet_np.kernels.cpu.blocks import block_kernel


@block_kernel
def bytes_to_depth(task, _, x, xi, table, order, d, di, f):
    """d[(c*S + a)*S + b] of pixel (i,j) = table[c*256 + x[order[c]] of pixel (i*S + a - top, j*S + b - left)].

    From Image to Image, x's counted in bytes; zeros outside of x, and in those channels that fill a vector up. `f`: a
    Folding (conv2d_space_to_depth_numba.py).
    """
    C, S = f.C, f.S
    n, i = task // di.H, task % di.H
    for j in range(di.W):
        target = di.at + n * di.image + i * di.row + j * di.col
        for a in range(S):
            h = i * S + a - f.top
            for b in range(S):
                w = j * S + b - f.left
                pixel = xi.at + n * xi.image + h * xi.row + w * xi.col
                inside = 0 <= h < xi.H and 0 <= w < xi.W
                for c in range(C):
                    value = table[c * 256 + x[pixel + order[c]]] if inside else np.float32(0)
                    d[target + (c * S + a) * S + b] = value
        for e in range(C * S * S, di.col):
            d[target + e] = 0
