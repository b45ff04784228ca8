"""Dropout: the mask from Philox4x32-10, four uniform numbers a block of ten rounds, blocks in parallel.

The numbers are those of alexnet_np/random.py, bit for bit: element e takes word e % 4 of block e // 4.
Source: Salmon, Moraes, Dror, Shaw (2011); semantics: alexnet_np/ops/dropout.py.
"""

from __future__ import annotations

import numpy as np

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels.array_version import array_version
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.relu_numba import in_memory_order
from alexnet_np.random import M0, M1, MASK, ROUNDS, W0, W1


@kernel
def philox(block, key0, key1):
    """The four words of `block` (stream 0), as uint64 holding 32 bits each."""
    low = np.uint64(MASK)
    c0, c1, c2, c3 = block & low, block >> np.uint64(32), np.uint64(0), np.uint64(0)
    k0, k1 = key0, key1
    for _ in range(ROUNDS):
        p0, p1 = c0 * np.uint64(M0), c2 * np.uint64(M1)
        c0, c1, c2, c3 = (p1 >> np.uint64(32)) ^ c1 ^ k0, p1 & low, (p0 >> np.uint64(32)) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(W0)) & low, (k1 + np.uint64(W1)) & low
    return c0, c1, c2, c3


@block_kernel
def draw(task, _, key0, key1, p, begin, mask, chunk):
    """mask[e] = uniform number 4 * begin + e >= p; mask has whole blocks of four, `chunk` of them a task."""
    blocks = mask.size // 4
    first = task * chunk
    for block in range(first, min(first + chunk, blocks)):
        w0, w1, w2, w3 = philox(np.uint64(begin + block), key0, key1)
        mask[4 * block] = np.float32(w0 >> np.uint64(8)) * np.float32(2**-24) >= p
        mask[4 * block + 1] = np.float32(w1 >> np.uint64(8)) * np.float32(2**-24) >= p
        mask[4 * block + 2] = np.float32(w2 >> np.uint64(8)) * np.float32(2**-24) >= p
        mask[4 * block + 3] = np.float32(w3 >> np.uint64(8)) * np.float32(2**-24) >= p


@block_kernel
def scale_kept(task, _, x, mask, scale, y, chunk):
    """y = x*scale where the mask says so, else 0."""
    first = task * chunk
    for i in range(first, min(first + chunk, x.size)):
        y[i] = x[i] * scale if mask[i] else np.float32(0)


@block_kernel
def scale_rows(n, _, x, xi, mask, scale, y, yi, C):
    """The same of rows, from Image to Image of one pixel; mask is (N,C), flat."""
    for c in range(C):
        kept = mask[n * C + c]
        y[yi.at + n * yi.image + c] = x[xi.at + n * xi.image + c] * scale if kept else np.float32(0)


def draw_mask(x: Array, p: float, seed: int, first: int = 0) -> Array:
    begin, skipped = divmod(first, 4)
    mask = np.empty(-(-(skipped + x.size) // 4) * 4, np.bool_)
    draw_into(mask, p, seed, begin)
    return mask[skipped : skipped + x.size].reshape(x.shape)


def draw_into(mask: Array, p: float, seed: int, begin: int = 0) -> None:
    """The mask of `seed`, in whole blocks of four, from block `begin` on."""
    key = np.uint64(seed & MASK), np.uint64((seed >> 32) & MASK)
    with threads.parallel():
        chunk = choices.sizes("dropout")["chunk"]
        draw[-(-mask.size // (4 * chunk))](*key, p, begin, mask, chunk)


def compute(x: Array, mask: Array, p: float) -> Array:
    y = memory.empty_like(x)
    lines = in_memory_order(x, y)
    if lines is None or not x.flags.c_contiguous:  # the mask is in C order
        return array_version("dropout").compute(x, mask, p)
    kept = np.require(mask, requirements=["C", "W"]).reshape(-1)
    with threads.parallel():
        scale = np.float32(1 / (1 - p) if p < 1 else 0)
        chunk = choices.sizes("dropout")["chunk"]
        scale_kept[-(-x.size // chunk)](lines[0], kept, scale, lines[1], chunk)
    return y
