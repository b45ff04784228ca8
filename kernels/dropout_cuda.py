"""Dropout on the GPU, the same mask as everywhere; see dropout.cu. The signatures of alexnet_np/ops/dropout.py."""

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import BLOCK, ceil_div, contiguous, empty, launch, launch_each

WORDS = 4  # elements a thread decides: the words of a Philox block


def draw_mask(x: Array, p: float, seed: int, first: int = 0) -> Array:
    begin, skipped = divmod(first, WORDS)
    mask = empty((skipped + x.size,), x, np.bool_)
    grid = (ceil_div(mask.size, BLOCK * WORDS),)
    arguments = (mask, mask.size, np.float32(p), np.uint64(begin), np.uint64(seed & 0xFFFFFFFFFFFFFFFF))
    launch("dropout", "dropout_mask", grid, (BLOCK,), *arguments, real=x.dtype, WORDS=WORDS)
    return mask[skipped:].reshape(x.shape)


def compute(x: Array, mask: Array, p: float) -> Array:
    x, mask = contiguous(x), contiguous(mask)
    y = empty(x.shape, x)
    launch_each("dropout", "dropout_apply", x.size, x, mask, y, scale_of(p), real=x.dtype, WORDS=WORDS)
    return y


def compute_seeded(x: Array, p: float, seed: Array) -> Array:
    """`compute` with the mask of `draw_mask`, which is not kept; `seed` is one uint64 on the GPU."""
    x = contiguous(x)
    y = empty(x.shape, x)
    grid = (ceil_div(x.size, BLOCK * WORDS),)
    arguments = (x, y, seed, np.float32(p), scale_of(p), x.size)
    launch("dropout", "dropout_seeded", grid, (BLOCK,), *arguments, real=x.dtype, WORDS=WORDS)
    return y


def scale_of(p: float) -> float:
    return 1.0 / (1.0 - p) if p < 1.0 else 0.0
