"""Space to depth: a stride-S convolution as a stride-1 convolution over S x S times the channels.

    d[n, i, j, (c*S + a)*S + b] = xp[n, c, i*S + a, j*S + b]        xp: x zero-padded; d channels-last

and the filters likewise: an 11x11/4 filter of 3 channels becomes a 3x3 of 48 (its twelfth row and column are 0).
Rows of d run in parallel. Source: MLPerf's ResNet submissions (2018) for TPUs; the identity is a re-indexing.
Measured (EPYC Zen 4, both cores), 3x224x224: 0.09-0.12 ms an image, S floats at a time; one at a time 0.25.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.simd import INTEGER, POINTER, Emitter, vector_function
from alexnet_np.kernels.problems import STRIDES


def emit_row(e: Emitter, x: ir.Value, d: ir.Value, count: ir.Value, pitch: ir.Value, *, S: int) -> None:
    """d[j*pitch + b] = x[j*S + b] for j < count, b < S: one load and one store of S floats each."""
    few = ir.VectorType(ir.FloatType(), S).as_pointer()
    with e.loop(count) as j:
        pixels = e.builder.load(e.builder.bitcast(e.at(x, e.mul(j, S)), few), align=4)
        e.builder.store(pixels, e.builder.bitcast(e.at(d, e.mul(j, pitch)), few), align=4)


copy_row = vector_function(
    "space_to_depth_row", (POINTER, POINTER, INTEGER, INTEGER), {S: partial(emit_row, S=S) for S in STRIDES}
)


class Folding(NamedTuple):
    """Images (C,H,W) of which S x S pixels become channels, the first `top` above and `left` to the left of them."""

    C: int
    H: int
    W: int
    S: int
    top: int
    left: int


@block_kernel
def space_to_depth(task, _, x, first, f, d, di, CD):
    """Images from `first` on of x (N,C,H,W), flat, into di (channels CD >= C*S*S, the rest zeros); S in STRIDES."""
    C, H, W, S = f.C, f.H, f.W, f.S
    j0 = (f.left + S - 1) // S  # blocks j0..j1 lie inside x from left to right
    j1 = max(j0, min(di.W, (W + f.left) // S))
    n, i = task // di.H, task % di.H
    row = di.at + n * di.image + i * di.row
    if CD > C * S * S:
        for e in range(di.W * CD):
            d[row + e] = 0
    for c in range(C):
        for a in range(S):
            y = i * S + a - f.top
            inside = 0 <= y < H
            source = (((first + n) * C + c) * H + y) * W - f.left
            target = row + (c * S + a) * S
            if inside:
                copy_row(S, x, source + j0 * S, d, target + j0 * CD, j1 - j0, CD)
            for j in range(di.W):
                if not inside or j < j0 or j >= j1:
                    for b in range(S):
                        within = inside and f.left <= j * S + b < W + f.left
                        d[target + j * CD + b] = x[source + j * S + b] if within else np.float32(0)


@block_kernel
def depth_to_space(task, _, d, di, f, x):
    """The adjoint: x (N,C,H,W), flat, from the images di; pixels outside are dropped."""
    C, H, W, S = f.C, f.H, f.W, f.S
    y, c, n = task % H, task // H % C, task // (H * C)
    i, a = (y + f.top) // S, (y + f.top) % S
    source = di.at + n * di.image + i * di.row + (c * S + a) * S
    for pixel in range(W):
        j, b = (pixel + f.left) // S, (pixel + f.left) % S
        inside = i < di.H and j < di.W
        x[task * W + pixel] = d[source + j * di.col + b] if inside else np.float32(0)


def filters_to_depth(weight: np.ndarray, S: int) -> np.ndarray:
    """weight (F,C,K,K) -> (F, C*S*S, r, r) with r = ceil(K/S)."""
    F, C, K, _ = weight.shape
    r = -(-K // S)
    padded = np.zeros((F, C, r * S, r * S), weight.dtype)
    padded[:, :, :K, :K] = weight
    blocks = padded.reshape(F, C, r, S, r, S).transpose(0, 1, 3, 5, 2, 4)
    return np.ascontiguousarray(blocks).reshape(F, C * S * S, r, r)


def filters_from_depth(dweight: np.ndarray, S: int, K: int) -> np.ndarray:
    """The adjoint of `filters_to_depth`: (F, C*S*S, r, r) -> (F,C,K,K)."""
    F, CD, r, _ = dweight.shape
    blocks = dweight.reshape(F, CD // (S * S), S, S, r, r).transpose(0, 1, 4, 2, 5, 3)
    return np.ascontiguousarray(blocks.reshape(F, CD // (S * S), r * S, r * S)[:, :, :K, :K])
