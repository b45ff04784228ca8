"""Local response normalisation across channels: each value divided by a norm of its neighbours in other maps.

    y[c] = x[c] / s[c]**beta,   s[c] = k + a * sum over the window of x[c']**2,
    window: c - low <= c' <= c + high, cut off at the first and last channel; low and high from size

The trap: implementations differ in `a`, in k, and in which side of an even window is the longer one (CONVENTIONS
below). Weights trained under one convention are wrong under another.

Gradient: dx[c] = dy[c] * s[c]**-beta - 2*a*beta * x[c] * sum of dy[c']*x[c']*s[c']**(-beta-1)
over all c' whose window holds c.

Source: Krizhevsky, Sutskever, Hinton (2012), sec. 3.3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module
from alexnet_np.errors import ArgumentError, ShapeError
from alexnet_np.ops.checks import float_arrays, gradient, integer


def half(size: int) -> int:
    return size // 2


def rest(size: int) -> int:
    return (size - 1) // 2


# convention: (is alpha divided by size, maps below the channel, maps above it); the sides differ for even sizes only
CONVENTIONS = {
    "torch": (True, half, rest),  # torch.nn.functional.local_response_norm
    "onnx": (True, rest, half),  # ONNX LRN: floor((size-1)/2) below, ceil((size-1)/2) above
    "caffe": (True, rest, half),  # Caffe's ACROSS_CHANNELS, which takes odd sizes only
    "krizhevsky": (True, half, rest),  # cuda-convnet2's cross-map normalisation: starts at c - size/2
    "paper": (False, half, half),  # the formula as printed, so an even n spans n+1 maps; also Chainer's
    "tensorflow": (False, half, half),  # alpha undivided; its depth_radius r is size = 2r + 1
}


class Geometry(NamedTuple):
    low: int
    high: int
    scale: float  # alpha, or alpha/size
    beta: float
    k: float


class Cache(NamedTuple):
    x: Array
    geometry: Geometry


def forward(
    x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, convention: str = "torch"
) -> tuple[Array, Cache]:
    """Normalise x (N,C,...) across axis 1, at least 3 axes as torch asks; float32 or float64.

    `size` maps in the window, even or odd; `convention` a name in CONVENTIONS. (C,H,W) is read as (N,C,L), as in torch.
    Raises ShapeError, ArgumentError, DtypeError.
    """
    (x,) = float_arrays("local_response_norm", x=x)
    if x.ndim < 3:
        raise ShapeError(f"local_response_norm: x must have at least 3 axes (N,C,...), got shape {x.shape}")
    geometry = find_geometry(size, alpha, beta, k, convention)
    flat = x.reshape(*x.shape[:2], -1) if x.size else x.reshape(*x.shape[:2], 0)
    y = implementation("local_response_norm", x).compute(flat, geometry)
    return y.reshape(x.shape), Cache(x, geometry)


def backward(dy: Any, cache: Cache) -> Array:
    """dx of the formula above, for dy of x's shape."""
    x, geometry = cache
    dy = gradient("local_response_norm", dy, x.shape, x)
    flat = (*x.shape[:2], -1) if x.size else (*x.shape[:2], 0)
    dx = implementation("local_response_norm", x).gradients(dy.reshape(flat), x.reshape(flat), geometry)
    return dx.reshape(x.shape)


def compute(x: Array, geometry: Geometry) -> Array:
    return x / norm(x, geometry) ** x.dtype.type(geometry.beta)


def gradients(dy: Array, x: Array, geometry: Geometry) -> Array:
    s = norm(x, geometry)
    direct = dy / s ** x.dtype.type(geometry.beta)
    # Channel c lies in the windows of c - high ... c + low: the window mirrored.
    spread = window_sum(direct * x / s, geometry.high, geometry.low)
    return direct - x.dtype.type(2 * geometry.scale * geometry.beta) * x * spread


def norm(x: Array, geometry: Geometry) -> Array:
    """s = k + a * sum of squares over the window, (N,C,L)."""
    return x.dtype.type(geometry.k) + x.dtype.type(geometry.scale) * window_sum(x * x, geometry.low, geometry.high)


def window_sum(x: Array, low: int, high: int) -> Array:
    """sum over c - low <= c' <= c + high of x[:, c'], by adding shifted copies: no cancellation, no rounding drift."""
    C = x.shape[1]
    total = array_module(x).zeros_like(x)
    for shift in range(max(-low, 1 - C), min(high, C - 1) + 1):
        total[:, max(0, -shift) : C - max(0, shift)] += x[:, max(0, shift) : C - max(0, -shift)]
    return total


def find_geometry(size: int, alpha: float, beta: float, k: float, convention: str) -> Geometry:
    if convention not in CONVENTIONS:
        raise ArgumentError(
            f"local_response_norm: unknown convention {convention!r}; choose one of {', '.join(CONVENTIONS)}"
        )
    size = integer("local_response_norm", "size", size)
    if size < 1:
        raise ArgumentError(f"local_response_norm: size must be at least 1, got {size}")
    divided, below, above = CONVENTIONS[convention]
    return Geometry(below(size), above(size), alpha / size if divided else alpha, beta, k)
