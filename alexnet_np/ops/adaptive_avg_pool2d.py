"""Adaptive average pooling: any H x W to a fixed OH x OW, each output the mean of its own window.

    rows of output i: floor(i*H/OH) up to ceil((i+1)*H/OH), exclusive; columns alike; windows may overlap

It lets torchvision's network take any input from 63x63 up: features of any size become 6x6 before the dense layers.
The trap: with H = OH it is the identity, and with H < OH windows repeat pixels.
Source: He et al., "Spatial pyramid pooling" (2014), sec. 2.2, for the windows; torch.nn.AdaptiveAvgPool2d for their
exact bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from alexnet_np.arguments import integer, room, shown
from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module
from alexnet_np.errors import ArgumentError, ShapeError
from alexnet_np.ops.checks import batched, brief, cached, float_arrays, gradient


class Cache(NamedTuple):
    x: Array
    output: tuple[int, int]
    unbatched: bool

    def __repr__(self) -> str:
        return brief(self)


def forward(x: Any, output_size: Any) -> tuple[Array, Cache]:
    """x (N,C,H,W) or (C,H,W) -> y (N,C,OH,OW); float32 or float64.

    `output_size`: an int, or a pair in which None keeps that side. Raises ShapeError, ArgumentError, DtypeError.
    """
    (x,) = float_arrays("adaptive_avg_pool2d", x=x)
    x, unbatched = batched("adaptive_avg_pool2d", x)
    if min(x.shape[2:]) < 1:
        raise ShapeError(f"adaptive_avg_pool2d: x has an empty side: {x.shape}")
    output = find_output(output_size, x.shape[2:])
    room("adaptive_avg_pool2d", "y", (*x.shape[:2], *output), x.dtype.itemsize)
    y = implementation("adaptive_avg_pool2d", x).compute(x, output)
    return (y[0] if unbatched else y), Cache(x, output, unbatched)


def backward(dy: Any, cache: Cache) -> Array:
    """dx[p] = sum over the windows that hold pixel p of dy / (pixels in that window)."""
    x, output, unbatched = cached("adaptive_avg_pool2d", cache, Cache)
    shape = (*x.shape[:2], *output)
    dy = gradient("adaptive_avg_pool2d", dy, shape[1:] if unbatched else shape, x)
    dx = implementation("adaptive_avg_pool2d", x).gradients(dy[None] if unbatched else dy, x.shape)
    return dx[0] if unbatched else dx


def compute(x: Array, output: tuple[int, int]) -> Array:
    if x.shape[2:] == output:
        return x.copy()
    y = array_module(x).empty((*x.shape[:2], *output), x.dtype)
    for (i, rows), (j, cols) in windows(x.shape[2:], output):
        y[:, :, i, j] = x[:, :, rows, cols].mean((2, 3))
    return y


def gradients(dy: Array, shape: tuple[int, ...]) -> Array:
    if dy.shape == shape:
        return dy.copy()
    dx = array_module(dy).zeros(shape, dy.dtype)
    for (i, rows), (j, cols) in windows(shape[2:], dy.shape[2:]):
        pixels = (rows.stop - rows.start) * (cols.stop - cols.start)
        dx[:, :, rows, cols] += (dy[:, :, i, j] / dy.dtype.type(pixels))[:, :, None, None]
    return dx


Window = tuple[int, slice]


def windows(size: tuple[int, ...], output: tuple[int, ...]) -> Iterator[tuple[Window, Window]]:
    (H, W), (OH, OW) = size, output
    for i in range(OH):
        rows = slice(i * H // OH, -(-(i + 1) * H // OH))  # floor, ceil
        for j in range(OW):
            yield (i, rows), (j, slice(j * W // OW, -(-(j + 1) * W // OW)))


def find_output(output_size: Any, size: tuple[int, ...]) -> tuple[int, int]:
    op, name = "adaptive_avg_pool2d", "output_size"
    sides = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size, output_size)
    if len(sides) != 2 or any(not (want is None or hasattr(want, "__index__")) for want in sides):
        raise ArgumentError(f"{op}: {name} must be an int or a pair of ints or None, got {shown(output_size)}")
    height, width = (
        have if want is None else integer(op, name, want, 0) for want, have in zip(sides, size, strict=True)
    )
    return height, width
