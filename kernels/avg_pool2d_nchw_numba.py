"""avg_pool2d in Numba, float32 and float64.

1. `naive_compute`, `naive_gradients`: every window of the formula, pixel by pixel, what it is divided by counted anew.
2. `compute`, `gradients`: parallel over the planes (n, c). Each window is clipped to the image first, so that nothing
   is padded or tested inside; the divisors are counted once for all planes. The backward adds each output's share to
   its window, plane by plane: a plane belongs to one thread, so no two threads ever add to one pixel.

Sums are float64's. Inputs in another memory order (channels-last, strided), read-only or not aligned are copied first.
Source: LeCun, Bottou, Bengio, Haffner (1998), sec. II.A.
"""

from __future__ import annotations

import numpy as np

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.memory import plain
from alexnet_np.ops.avg_pool2d import Geometry, divisors


@kernel
def naive_compute(x: Array, geometry: Geometry) -> Array:
    (KH, KW), (SH, SW), (PH, PW), (OH, OW), include_pad, divisor = geometry
    N, C, H, W = x.shape
    y = np.zeros((N, C, OH, OW), x.dtype)
    for n in range(N):
        for c in range(C):
            for i in range(OH):
                for j in range(OW):
                    total, count = 0.0, 0
                    for k in range(KH * KW):
                        h, w = i * SH + k // KW - PH, j * SW + k % KW - PW
                        inside = 0 <= h < H and 0 <= w < W
                        if inside:
                            total += x[n, c, h, w]
                        count += inside or (include_pad and h < H + PH and w < W + PW)
                    y[n, c, i, j] = total / (divisor if divisor else count)
    return y


@kernel
def naive_gradients(dy: Array, shape: tuple[int, int, int, int], geometry: Geometry) -> Array:
    (KH, KW), (SH, SW), (PH, PW), (OH, OW), include_pad, divisor = geometry
    N, C, H, W = shape
    dx = np.zeros(shape, dy.dtype)
    for n in range(N):
        for c in range(C):
            for i in range(OH):
                for j in range(OW):
                    count = 0
                    for k in range(KH * KW):
                        h, w = i * SH + k // KW - PH, j * SW + k % KW - PW
                        inside = 0 <= h < H and 0 <= w < W
                        count += inside or (include_pad and h < H + PH and w < W + PW)
                    for k in range(KH * KW):
                        h, w = i * SH + k // KW - PH, j * SW + k % KW - PW
                        if 0 <= h < H and 0 <= w < W:
                            dx[n, c, h, w] += dy[n, c, i, j] / (divisor if divisor else count)
    return dx


def compute(x: Array, geometry: Geometry) -> Array:
    N, C, H, W = x.shape
    y = np.empty((N * C, *geometry.output), x.dtype)
    with threads.parallel():
        _forward[N * C](plain(x).reshape(N * C, H, W), geometry, divisors(geometry, x.shape), y)
    return y.reshape(N, C, *geometry.output)


def gradients(dy: Array, shape: tuple[int, ...], geometry: Geometry) -> Array:
    N, C, H, W = shape
    dx = np.zeros((N * C, H, W), dy.dtype)
    with threads.parallel():
        _backward[N * C](plain(dy).reshape(N * C, *geometry.output), geometry, divisors(geometry, shape), dx)
    return dx.reshape(shape)


@block_kernel
def _forward(plane: int, _: int, x: Array, geometry: Geometry, divisors: Array, y: Array) -> None:
    """x (N*C,H,W) -> y (N*C,OH,OW)."""
    (KH, KW), (SH, SW), (PH, PW), (OH, OW), _, _ = geometry
    _, H, W = x.shape
    for i in range(OH):
        h0, h1 = max(0, i * SH - PH), min(H, i * SH - PH + KH)
        for j in range(OW):
            total = 0.0
            for h in range(h0, h1):
                for w in range(max(0, j * SW - PW), min(W, j * SW - PW + KW)):
                    total += x[plane, h, w]
            y[plane, i, j] = total / divisors[i, j]


@block_kernel
def _backward(plane: int, _: int, dy: Array, geometry: Geometry, divisors: Array, dx: Array) -> None:
    """dx (N*C,H,W) += dy (N*C,OH,OW) / divisors, over each window."""
    (KH, KW), (SH, SW), (PH, PW), (OH, OW), _, _ = geometry
    _, H, W = dx.shape
    for i in range(OH):
        h0, h1 = max(0, i * SH - PH), min(H, i * SH - PH + KH)
        for j in range(OW):
            share = dy[plane, i, j] / divisors[i, j]
            for h in range(h0, h1):
                for w in range(max(0, j * SW - PW), min(W, j * SW - PW + KW)):
                    dx[plane, h, w] += share
