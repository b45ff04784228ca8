"""Both transforms of a Winograd convolution's filters in one pass: U for the forward, its transpose for the way back.

A training step changes the weights, so it transforms them every time. What the forward reads, (points, panels of F, C,
WIDTH), and what dV = S·Uᵀ reads, (points, panels of C, F, WIDTH), hold the same numbers: a block of WIDTH filters and
WIDTH channels is transformed once, and turned round by shuffles while it is in the cache.

Blocks of filters and channels run in parallel. Source: conv2d_winograd_numba.py, conv2d_winograd_gradients_numba.py.
"""

from __future__ import annotations

import numpy as np

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.conv2d_winograd_tiles_numba import Filters, family, filter_tile
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.simd import LANES
from alexnet_np.kernels.gemm_numba import WIDTH
from alexnet_np.kernels.linear_numba import transpose


@block_kernel
def transform_both(task, _, weight, filters, points, u, adjoint, turned):
    """U into `u` and, if `adjoint`, its transpose into `turned`; F and C are whole vectors."""
    F, C, taps_of_one = filters.F, filters.C, filters.r * filters.r
    panels, turned_panels = (F + WIDTH - 1) // WIDTH, (C + WIDTH - 1) // WIDTH
    p, q = task // turned_panels, task % turned_panels
    taps = np.zeros(taps_of_one * WIDTH, np.float32)
    f_end, c_end = min(WIDTH, F - p * WIDTH), min(WIDTH, C - q * WIDTH)
    for c in range(c_end):
        for f in range(f_end):
            at = (p * WIDTH + f) * filters.step_f + (q * WIDTH + c) * filters.step_c
            for k in range(taps_of_one):
                taps[k * WIDTH + f] = weight[at + k]
        filter_tile(filters.family, taps, 0, u, (p * C + q * WIDTH + c) * WIDTH, panels * C * WIDTH)
    if adjoint:
        for point in range(points):
            source = ((point * panels + p) * C + q * WIDTH) * WIDTH
            target = ((point * turned_panels + q) * F + p * WIDTH) * WIDTH
            for c in range(0, c_end, LANES):
                for f in range(0, f_end, LANES):
                    transpose(0, u, source + c * WIDTH + f, WIDTH, turned, target + f * WIDTH + c)


def filters_room(F: int, C: int, n: int) -> int:
    """Floats of U for tiles of n x n: of F filters and C channels forward, of C and F turned round."""
    return n * n * -(-F // WIDTH) * WIDTH * C


def transform(weight: Array, m: int, u: Array, turned: Array | None) -> None:
    """One group's weight (F,C,r,r) into u, flat, and into `turned`, where it is not None: it holds zeros at first."""
    F, C, r, _ = weight.shape
    filters = Filters(F, C, C * r * r, r * r, r, family(m, r))
    with threads.parallel():
        into = u if turned is None else turned
        transform_both[-(-F // WIDTH) * -(-C // WIDTH)](
            weight.reshape(-1), filters, (m + r - 1) ** 2, u, int(turned is not None), into
        )
