"""Local response normalisation within each map, in Numba: one code for both orders in which images lie in memory.

1. The sum over a square is that over rows of the sums over columns: for one row of pixels first down the window's rows,
   then along it, each a loop over consecutive floats. Every window is summed afresh, as in the kernels across maps.
2. Channels-last, a row is W*C floats and a neighbour C floats away; plane by plane it is W floats, and one away.
   Nothing else differs.
3. The backward goes over the images twice: first what every place pulls on its window, then who pulls on every place.

Rows run in parallel where images lie channels-last, else planes. s**0.75 is t * sqrt(t) with t = sqrt(s), by float64.
Formula and gradient: alexnet_np/ops/local_response_norm.py.
Source: the authors' layers-145.cfg, "rnorm"; Caffe's WITHIN_CHANNEL (src/caffe/layers/lrn_layer.cpp).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.blocks import block_kernel
from alexnet_np.kernels.cpu.image import Image, channels_last, framed, lies_channels_last
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.memory import plain
from alexnet_np.ops.local_response_norm import Geometry


class Norm(NamedTuple):
    """y = x * (k + scale * (sum of squares from `low` before to `high` after, in rows and columns))**-beta."""

    low: int
    high: int
    scale: np.floating  # numbers as x's
    beta: np.floating
    k: np.floating
    factor: np.floating  # the gradient's 2 * scale * beta


class Rows(NamedTuple):
    """How images are cut, and what of a pixel counts."""

    images: int
    width: int  # floats from a pixel to the next
    bands: int  # parts of an image, for threads
    channels: int  # of the width; the rest is zeros


def norm_of(dtype: np.dtype, geometry: Geometry, H: int, W: int) -> Norm:
    numbers = (geometry.scale, geometry.beta, geometry.k, 2 * geometry.scale * geometry.beta)
    scale, beta, k, factor = (dtype.type(number) for number in numbers)
    low, high = (min(side, max(H, W)) for side in (geometry.low, geometry.high))
    return Norm(low, high, scale, beta, k, factor)


@kernel
def window_sums(x, at, i, image, reach, width, squared, down, total):
    """total = the sums over the windows of the pixels of row i of the image at `at`; reach: (before, after)."""
    low, high = reach
    down[:] = 0
    for h in range(max(0, i - low), min(image.H, i + high + 1)):
        row = at + h * image.row
        if squared:
            for t in range(len(down)):
                down[t] += x[row + t] * x[row + t]
        else:
            for t in range(len(down)):
                down[t] += x[row + t]
    total[:] = 0
    for shift in range(-low, high + 1):
        first, last, away = max(0, -shift) * width, (image.W - max(0, shift)) * width, shift * width
        for t in range(first, last):
            total[t] += down[t + away]


@kernel
def clear(y, at, W, rows):
    """Zeros in what fills a vector up: k may be 0, and 0 / 0 is no zero."""
    if rows.channels < rows.width:
        for j in range(W):
            y[at + j * rows.width + rows.channels : at + (j + 1) * rows.width] = 0


@kernel
def power(s, beta):
    """s**beta."""
    if beta == 0.75 or beta == 0.5:
        root = math.sqrt(np.float64(s))
        return root if beta == 0.5 else root * math.sqrt(root)
    return np.float64(s) ** np.float64(beta)


@block_kernel
def normalise(task, _, x, xi, y, yi, rows, norm):
    """From Image to Image."""
    n, band = task // rows.bands, task % rows.bands
    down, total = np.empty(xi.W * rows.width, x.dtype), np.empty(xi.W * rows.width, x.dtype)
    source, target = xi.at + n * xi.image, yi.at + n * yi.image
    for i in range(band * xi.H // rows.bands, (band + 1) * xi.H // rows.bands):
        window_sums(x, source, i, xi, (norm.low, norm.high), rows.width, True, down, total)
        given, made = source + i * xi.row, target + i * yi.row
        for t in range(len(total)):
            y[made + t] = x[given + t] / power(norm.k + norm.scale * total[t], norm.beta)
        clear(y, made, xi.W, rows)


@block_kernel
def pull_on_windows(task, _, dy, gi, x, xi, pull, pi, dx, di, rows, norm):
    """dx = dy * s**-beta, and pull = dy * x * s**(-beta-1)."""
    n, band = task // rows.bands, task % rows.bands
    down, total = np.empty(xi.W * rows.width, x.dtype), np.empty(xi.W * rows.width, x.dtype)
    source = xi.at + n * xi.image
    for i in range(band * xi.H // rows.bands, (band + 1) * xi.H // rows.bands):
        window_sums(x, source, i, xi, (norm.low, norm.high), rows.width, True, down, total)
        given, entered = gi.at + n * gi.image + i * gi.row, source + i * xi.row
        pulled, made = pi.at + n * pi.image + i * pi.row, di.at + n * di.image + i * di.row
        for t in range(len(total)):
            s = norm.k + norm.scale * total[t]
            direct = dy[given + t] / power(s, norm.beta)
            pull[pulled + t] = direct * x[entered + t] / s
            dx[made + t] = direct


@block_kernel
def pulled_by_windows(task, _, pull, pi, x, xi, dx, di, rows, norm):
    """dx -= 2*scale*beta * x * the sum of pull over the windows that hold a place: the window mirrored."""
    n, band = task // rows.bands, task % rows.bands
    down, total = np.empty(xi.W * rows.width, x.dtype), np.empty(xi.W * rows.width, x.dtype)
    for i in range(band * xi.H // rows.bands, (band + 1) * xi.H // rows.bands):
        window_sums(pull, pi.at + n * pi.image, i, pi, (norm.high, norm.low), rows.width, False, down, total)
        entered, made = xi.at + n * xi.image + i * xi.row, di.at + n * di.image + i * di.row
        for t in range(len(total)):
            dx[made + t] -= norm.factor * x[entered + t] * total[t]
        clear(dx, made, xi.W, rows)


Lying = tuple[Array, Image]  # flat memory, and where images lie in it


def normalise_images(x: Lying, y: Lying, rows: Rows, geometry: Geometry) -> None:
    """y of the formula."""
    norm = norm_of(x[0].dtype, geometry, x[1].H, x[1].W)
    with threads.parallel():
        normalise[rows.images * rows.bands](*x, *y, rows, norm)


def differentiate_images(dy: Lying, x: Lying, dx: Lying, rows: Rows, geometry: Geometry) -> None:
    """dx of the formula."""
    image = framed(rows.width, x[1].H, x[1].W)
    pull = (np.empty(rows.images * image.image, x[0].dtype), image)
    norm = norm_of(x[0].dtype, geometry, image.H, image.W)
    with threads.parallel():
        pull_on_windows[rows.images * rows.bands](*dy, *x, *pull, *dx, rows, norm)
        pulled_by_windows[rows.images * rows.bands](*pull, *x, *dx, rows, norm)


def compute(x: Array, geometry: Geometry) -> Array:
    """x (N,C,H,W) in any order."""
    y, made, rows = _result(x)
    normalise_images(_lying(x, rows), made, rows, geometry)
    return y


def gradients(dy: Array, x: Array, geometry: Geometry) -> Array:
    dx, made, rows = _result(x)
    differentiate_images(_lying(dy, rows), _lying(x, rows), made, rows, geometry)
    return dx


def _result(x: Array) -> tuple[Array, Lying, Rows]:
    """An array of x's shape that lies as x does, its memory, and how that is cut."""
    N, C, H, W = x.shape
    if lies_channels_last(x):
        last = memory.empty((N, H, W, C))
        return last.transpose(0, 3, 1, 2), (last.reshape(-1), framed(C, H, W)), Rows(N, C, H, C)
    planes = np.empty(x.shape, x.dtype)
    return planes, (planes.reshape(-1), framed(1, H, W)), Rows(N * C, 1, 1, 1)


def _lying(x: Array, rows: Rows) -> Lying:
    """x in the memory order that `rows` cuts."""
    _, _, H, W = x.shape
    return channels_last(x) if rows.bands == H and rows.width > 1 else (plain(x).reshape(-1), framed(1, H, W))
