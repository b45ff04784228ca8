"""Local response normalisation: each value divided by a norm of its neighbours, in other maps or around it in its own.

    y = x / s**beta,   s = k + a * sum of x'**2 over the window

    region "across"    the window is maps c - low ... c + high at the same place, cut off at the first and last channel
                       of the group (`groups` > 1: towers that do not see each other)
    region "within"    rows i - low ... i + high and columns j - low ... j + high of the same map, zeros outside

`a` is alpha, or alpha divided by the window's size (across) or its square (within). The trap: implementations differ in
`a`, in k, and in which side of an even window is the longer one (CONVENTIONS below). Weights trained under one
convention are wrong under another; `convert` carries the constants over where that can be done exactly.

Gradient: dx = dy * s**-beta - 2*a*beta * x * sum of dy'*x'*s'**(-beta-1) over all places whose window holds x's.

Source: Krizhevsky, Sutskever, Hinton (2012), sec. 3.3; within a map: the authors' layers-145.cfg, "rnorm"
(computerhistory/AlexNet-Source-Code), and Caffe's WITHIN_CHANNEL (src/caffe/layers/lrn_layer.cpp).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from alexnet_np.arguments import integer, number, shown
from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module
from alexnet_np.errors import ArgumentError, ShapeError
from alexnet_np.ops.checks import brief, cached, float_arrays, gradient

Region = Literal["across", "within"]
REGIONS = ("across", "within")
WIDEST = 2**62  # a window is cut to the channels there are before a kernel sees it


def half(size: int) -> int:
    return size // 2


def rest(size: int) -> int:
    return (size - 1) // 2


# convention: (is alpha divided by the window, maps below the channel, maps above it); the sides differ for even sizes
CONVENTIONS = {
    "torch": (True, half, rest),  # torch.nn.functional.local_response_norm
    "onnx": (True, rest, half),  # ONNX LRN: floor((size-1)/2) below, ceil((size-1)/2) above
    "matlab": (True, rest, half),  # MATLAB's crossChannelNormalizationLayer
    "caffe": (True, rest, half),  # takes odd sizes only; within a map k is always 1
    "krizhevsky": (True, half, rest),  # cuda-convnet's cross-map normalisation: starts at c - size/2
    "paper": (False, half, half),  # the formula as printed, so an even n spans n+1 maps; also Chainer's
    "matconvnet": (False, rest, half),  # vl_nnnormalize: kappa is k, alpha undivided
    "tensorflow": (False, half, half),  # alpha undivided; its depth_radius r is size = 2r + 1, never even
}
ODD_ONLY = ("caffe", "tensorflow")


class Geometry(NamedTuple):
    low: int
    high: int
    scale: float  # a: alpha, or alpha divided by the window
    beta: float
    k: float
    groups: int = 1
    region: Region = "across"


class Cache(NamedTuple):
    x: Array
    geometry: Geometry

    def __repr__(self) -> str:
        return brief(self)


def forward(
    x: Any,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    convention: str = "torch",
    region: Region = "across",
    groups: int = 1,
) -> tuple[Array, Cache]:
    """Normalise x (N,C,...), float32 or float64; across maps at least 3 axes as torch asks, within them (N,C,H,W).

    `size` values along each axis of the window; `convention` a name in CONVENTIONS; `groups` divides the channels into
    so many parts that do not see each other. (C,H,W) is read as (N,C,L), as in torch.
    Raises ShapeError, ArgumentError, DtypeError.
    """
    (x,) = float_arrays("local_response_norm", x=x)
    geometry = find_geometry(size, alpha, beta, k, convention, region, groups)
    if geometry.region == "within" and x.ndim != 4:
        raise ShapeError(f"local_response_norm: within maps x must be (N,C,H,W), got shape {x.shape}")
    if x.ndim < 3:
        raise ShapeError(f"local_response_norm: x must have at least 3 axes (N,C,...), got shape {x.shape}")
    if x.shape[1] % geometry.groups:
        raise ShapeError(f"local_response_norm: {x.shape[1]} channels do not divide into groups={geometry.groups}")
    y = implementation("local_response_norm", x).compute(_as_computed(x, geometry), geometry)
    return y.reshape(x.shape), Cache(x, geometry)


def backward(dy: Any, cache: Cache) -> Array:
    """dx of the formula above, for dy of x's shape."""
    x, geometry = cached("local_response_norm", cache, Cache)
    dy = gradient("local_response_norm", dy, x.shape, x)
    flat_dy, flat_x = _as_computed(dy, geometry), _as_computed(x, geometry)
    return implementation("local_response_norm", x).gradients(flat_dy, flat_x, geometry).reshape(x.shape)


def _as_computed(x: Array, geometry: Geometry) -> Array:
    """What implementations take: (N,C,L) across maps, (N,C,H,W) within them."""
    if geometry.region == "within":
        return x
    return x.reshape(*x.shape[:2], -1) if x.size else x.reshape(*x.shape[:2], 0)


def compute(x: Array, geometry: Geometry) -> Array:
    return x / norm(x, geometry) ** x.dtype.type(geometry.beta)


def gradients(dy: Array, x: Array, geometry: Geometry) -> Array:
    s = norm(x, geometry)
    direct = dy / s ** x.dtype.type(geometry.beta)
    # A place lies in the windows that reach it from the other side: the window mirrored.
    spread = window_sum(direct * x / s, geometry._replace(low=geometry.high, high=geometry.low))
    return direct - x.dtype.type(2 * geometry.scale * geometry.beta) * x * spread


def norm(x: Array, geometry: Geometry) -> Array:
    """s = k + a * sum of squares over the window, of x's shape."""
    return x.dtype.type(geometry.k) + x.dtype.type(geometry.scale) * window_sum(x * x, geometry)


def window_sum(x: Array, geometry: Geometry) -> Array:
    """The sum over every place's window: across the maps of a group, or down the rows and then along them."""
    low, high = geometry.low, geometry.high
    if geometry.region == "within":
        return shifted_sum(shifted_sum(x, 2, low, high), 3, low, high)
    return shifted_sum(by_group(x, geometry.groups), 1, low, high).reshape(x.shape)


def by_group(x: Array, groups: int) -> Array:
    """x (N,C,...) as (N*groups, C/groups, ...): the groups of an image as images of their own."""
    return x if groups == 1 else x.reshape(len(x) * groups, x.shape[1] // groups, *x.shape[2:])


def shifted_sum(x: Array, axis: int, low: int, high: int) -> Array:
    """sum over i - low <= i' <= i + high of x[i'] along `axis`, by adding shifted copies: no rounding drifts."""
    length, total = x.shape[axis], array_module(x).zeros_like(x)
    before = (slice(None),) * axis
    for shift in range(max(-low, 1 - length), min(high, length - 1) + 1):
        into, source = slice(max(0, -shift), length - max(0, shift)), slice(max(0, shift), length - max(0, -shift))
        total[*before, into] += x[*before, source]
    return total


def find_geometry(
    size: int,
    alpha: float,
    beta: float,
    k: float,
    convention: str,
    region: Region = "across",
    groups: int = 1,
) -> Geometry:
    op = "local_response_norm"
    if not isinstance(convention, str) or convention not in CONVENTIONS:
        raise ArgumentError(f"{op}: unknown convention {shown(convention)}; choose one of {', '.join(CONVENTIONS)}")
    if not isinstance(region, str) or region not in REGIONS:
        raise ArgumentError(f"{op}: region must be 'across' or 'within', got {shown(region)}")
    size, groups = integer(op, "size", size, 1, WIDEST), integer(op, "groups", groups, 1)
    alpha, beta, k = number(op, "alpha", alpha), number(op, "beta", beta), number(op, "k", k)
    if convention in ODD_ONLY and size % 2 == 0:
        raise ArgumentError(f"{op}: {convention} takes odd sizes only, got {size}")
    if convention == "caffe" and region == "within" and k != 1:
        raise ArgumentError(f"{op}: within maps Caffe ignores k and takes 1, got {k:g}; give k=1")
    divided, below, above = CONVENTIONS[convention]
    window = (size if region == "across" else size * size) if divided else 1
    return Geometry(below(size), above(size), alpha / window, beta, k, groups, region)


def convert(
    size: int, alpha: float, beta: float, k: float, source: str, target: str, region: Region = "across"
) -> dict[str, Any]:
    """size, alpha, beta and k that mean in `target` exactly what these mean in `source`.

    Only alpha moves: times the window towards a dialect that divides, divided by it away from one.
    Raises ArgumentError where the two windows are not the same (even sizes), or the target has no such constants.
    """
    want = find_geometry(size, alpha, beta, k, source, region)
    window = size if region == "across" else size * size
    known = isinstance(target, str) and target in CONVENTIONS
    moved = want.scale * (window if CONVENTIONS[target][0] else 1) if known else alpha
    have = find_geometry(size, moved, beta, k, target, region)
    if (have.low, have.high) != (want.low, want.high):
        raise ArgumentError(
            f"local_response_norm: a window of {size} reaches {want.low} below and {want.high} above in {source}, "
            f"{have.low} and {have.high} in {target}: it cannot be converted"
        )
    return {"size": size, "alpha": moved, "beta": beta, "k": k}
