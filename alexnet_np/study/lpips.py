"""LPIPS: how far apart two pictures look, by what AlexNet's five ReLUs make of them.

    x    = (picture - shift) / scale, channel by channel; pictures hold -1..1
    f_l  = the output of ReLU l, of C maps; n = sqrt(sum over C of f_l^2); u_l = f_l / (n + 1e-10)
    d_l  = sum over C of w_l * (u_l(a) - u_l(b))^2, a map                        w_l: the published linear head, >= 0
    d    = sum over l of the mean of d_l over its map; or, `spatial`, of d_l enlarged to the picture, bilinear

The classifier and the last pooling never run. Identical pictures are at distance 0, with a gradient of 0: that of n at
0 is taken as 0, where the reference package gives NaN (PerceptualSimilarity, issue 69).
Traps: pictures of 0..1 need `normalize`, and those of 0..255 are too far apart by orders of magnitude; the distance
depends on the pictures' size; v0.0 had other heads and no shift and scale.

Source: Zhang, Isola, Efros, Shechtman, Wang, "The unreasonable effectiveness of deep features as a perceptual metric"
(2018), arXiv:1801.03924, sec. 3; the heads of version 0.1: package lpips 0.1.4, weights/v0.1/alex.pth, BSD-2-Clause
(assets/LICENSE-lpips).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import arguments, weights
from alexnet_np.backend import use_backend
from alexnet_np.device import Array, array_module, as_array, beside, to_cpu
from alexnet_np.errors import ArgumentError, ShapeError
from alexnet_np.files import package
from alexnet_np.identity import alexnet
from alexnet_np.layers import Layer, ReLU, WeightedLayer
from alexnet_np.models import AlexNet, check_model

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPSILON = 1e-10  # outside the root
SMALLEST = 31  # pixels: of a smaller side nothing is left for the last ReLU
FAR = 3.0  # beyond this nothing is a picture of -1..1
CHUNK = 16  # pairs at a time where no gradient is wanted
HEADS = "lpips_alex_v0.1.pth"


class Tap(NamedTuple):
    """One ReLU's part of the distance."""

    unit: Array  # (2N,C,h,w): u of a, then of b
    norm: Array  # (2N,1,h,w): n
    head: Array  # (C,1,1)


class Cache(NamedTuple):
    """What backward needs."""

    layers: list[tuple[Layer, Any]]  # every layer up to the last ReLU, with its op's cache
    taps: list[Tap]
    shape: tuple[int, ...]  # of a
    normalize: bool
    spatial: bool

    def __repr__(self) -> str:
        return f"Cache({len(self.taps)} ReLUs, {self.shape})"


def lpips(
    a: Any,
    b: Any,
    model: AlexNet | None = None,
    normalize: bool = False,
    spatial: bool = False,
    per_layer: bool = False,
) -> Any:
    """The distance of each of N pairs of pictures: (N,1,1,1), or with `spatial` the map (N,1,H,W).

    a, b: (N,3,H,W) or (3,H,W), RGB in -1..1, or with `normalize` in 0..1; sides of at least 31.
    `model`: the backbone, a torchvision network of full width; by default that of the published weights. Its dtype and
    backend compute. `per_layer`: also the five ReLUs' parts, whose sum it is: (distance, [five arrays]).
    Raises ArgumentError, ShapeError, DtypeError, and what fetching the published weights raises.
    """
    a, b, model = _checked("lpips", a, b, model)
    pieces = [slice(i, i + CHUNK) for i in range(0, len(a), CHUNK)]
    found = [_forward(a[rows], b[rows], model, normalize, spatial)[1] for rows in pieces]
    parts = [array_module(a).concatenate(each) for each in zip(*found, strict=True)]
    return (_sum(parts), parts) if arguments.flag("lpips", "per_layer", per_layer) else _sum(parts)


def forward(
    a: Any, b: Any, model: AlexNet | None = None, normalize: bool = False, spatial: bool = False
) -> tuple[Array, Cache]:
    """The same distance, and what `backward` needs: the activations of all pictures at once."""
    cache, parts = _forward(*_checked("lpips", a, b, model), normalize, spatial)
    return _sum(parts), cache


def backward(ddistance: Any, cache: Cache) -> tuple[Array, Array]:
    """da, db (N,3,H,W), in the units of a and b, for the gradient of the distance."""
    arguments.instance("lpips", "cache", cache, Cache, "what lpips.forward returned")
    xp, taps = array_module(cache.taps[0].unit), list(cache.taps)
    N, (H, W) = cache.shape[0], cache.shape[2:]
    dy = beside(as_array(ddistance, "lpips: ddistance"), taps[0].unit).astype(taps[0].unit.dtype)
    wanted = (N, 1, H, W) if cache.spatial else (N, 1, 1, 1)
    if dy.shape != wanted:
        raise ShapeError(f"lpips: ddistance has shape {dy.shape}, the distance {wanted}")
    dx: Array | None = None
    for layer, kept in reversed(cache.layers):
        if isinstance(layer, ReLU):
            mine = _tap_gradient(taps.pop(), dy, cache.spatial)
            dx = mine if dx is None else dx + mine
        with nullcontext() if layer.backend is None else use_backend(layer.backend):
            weighted = isinstance(layer, WeightedLayer)
            dx = layer.op.backward(dx, kept, (True, False, False))[0] if weighted else layer.op.backward(dx, kept)
    assert dx is not None
    dx = dx / _channels(xp, SCALE, dx.dtype) * (2 if cache.normalize else 1)
    return dx[:N], dx[N:]


class LPIPS:
    """The distance as a metric over many batches, used as torchmetrics' and as the reference package's.

        metric = anp.LPIPS(normalize=True)
        metric.update(a, b)           # as often as there are batches
        metric.compute()              # the mean over all pairs, or with reduction="sum" their sum
        metric.reset()

        loss = metric(a, b)           # of this batch alone; counts too
        da, db = metric.backward()    # the gradient of what the last call returned

    Raises what `lpips` raises; ArgumentError for compute without pairs, and backward without a call.
    """

    def __init__(self, model: AlexNet | None = None, normalize: bool = False, reduction: str = "mean") -> None:
        self.model = None if model is None else _backbone("LPIPS", model)
        self.normalize = arguments.flag("LPIPS", "normalize", normalize)
        self.reduction = arguments.choice("LPIPS", "reduction", reduction, ("mean", "sum"))
        self.reset()

    def reset(self) -> None:
        """Forget every pair."""
        self.total, self.pairs = 0.0, 0
        self._last: tuple[Cache, int] | None = None

    def update(self, a: Any, b: Any) -> None:
        """Count these pairs."""
        self._count(lpips(a, b, self.model, self.normalize))

    def compute(self) -> float:
        """Over all pairs since the last reset."""
        if not self.pairs:
            raise ArgumentError("LPIPS: no pairs yet; call update(a, b) first")
        return self.total / (self.pairs if self.reduction == "mean" else 1)

    def __call__(self, a: Any, b: Any) -> float:
        """Count these pairs, and keep what `backward` needs of them."""
        distance, kept = forward(a, b, self.model, self.normalize)
        self._last = kept, len(distance)
        return self._count(distance) / (len(distance) if self.reduction == "mean" else 1)

    def backward(self, dloss: float = 1.0) -> tuple[Array, Array]:
        """da, db of the last call."""
        if self._last is None:
            raise ArgumentError("LPIPS: nothing to go back through; call it with two pictures first")
        kept, pairs = self._last
        share = arguments.number("LPIPS", "dloss", dloss) / (pairs if self.reduction == "mean" else 1)
        unit = kept.taps[0].unit
        return backward(array_module(unit).full((pairs, 1, 1, 1), share, unit.dtype), kept)

    def _count(self, distance: Array) -> float:
        mine = float(distance.sum())
        self.total, self.pairs = self.total + mine, self.pairs + len(distance)
        return mine

    def __repr__(self) -> str:
        so_far = f", {self.compute():.4f} over {self.pairs}" if self.pairs else ""
        return f"LPIPS(normalize={self.normalize}, reduction={self.reduction!r}{so_far})"


@cache
def published() -> AlexNet:
    """The backbone of the published weights. Raises WeightsError where they cannot be fetched."""
    return alexnet("torchvision", weights="IMAGENET1K_V1")


@cache
def heads() -> list[np.ndarray]:
    """The five linear heads of version 0.1, each (C,1,1) float32."""
    found = weights.read(package() / "assets" / HEADS)
    return [found[f"lin{i}.model.1.weight"][0] for i in range(5)]


def _checked(where: str, a: Any, b: Any, model: AlexNet | None) -> tuple[Array, Array, AlexNet]:
    """Both as (N,3,H,W) of the network's dtype and place, and the network."""
    model = published() if model is None else _backbone(where, model)
    first = next(model.parameters()).data
    found = []
    for name, given in (("a", a), ("b", b)):
        x = as_array(given, f"{where}: {name}")
        x = x[None] if x.ndim == 3 else x
        if x.ndim != 4 or x.shape[1] != 3:
            raise ShapeError(f"{where}: {name} must be pictures (N,3,H,W), got {x.shape}")
        if x.dtype.kind != "f":
            raise ArgumentError(
                f"{where}: {name} holds {x.dtype}; give floats in -1..1, such as {name}/127.5 - 1 of a picture of bytes"
            )
        if min(x.shape[2:]) < SMALLEST:
            sides = f"{x.shape[2]}x{x.shape[3]}"
            raise ShapeError(f"{where}: {name} is {sides}, the smallest picture is {SMALLEST}x{SMALLEST}; enlarge it")
        found.append(beside(x, first).astype(first.dtype, copy=False))
    if found[0].shape != found[1].shape:
        raise ShapeError(f"{where}: a is {found[0].shape}, b {found[1].shape}; both must have the same size")
    largest = max((float(abs(x).max()) for x in found if x.size), default=0.0)
    if largest > FAR:
        said = f"{where}: values up to {largest:g}, where pictures have -1..1; make x/127.5 - 1 of bytes"
        warnings.warn(said, stacklevel=3)
    return found[0], found[1], model


def _backbone(where: str, model: Any) -> AlexNet:
    check_model(where, model)
    maps = [layer.weight.shape[0] for layer in model.features if isinstance(layer, WeightedLayer)]
    wanted = [len(head) for head in heads()]
    relus = sum(isinstance(layer, ReLU) for layer in model.features)
    if maps != wanted or relus != len(wanted):
        raise ArgumentError(
            f"{where}: the published heads are of torchvision's network at full width, with {wanted} maps and a ReLU "
            f"after each; got {model.preset} with {maps}"
        )
    return model


def _forward(a: Array, b: Array, model: AlexNet, normalize: bool, spatial: bool) -> tuple[Cache, list[Array]]:
    """What backward needs, and the five parts of the distance."""
    normalize, spatial = arguments.flag("lpips", "normalize", normalize), arguments.flag("lpips", "spatial", spatial)
    xp, N, (H, W) = array_module(a), len(a), a.shape[2:]
    x = xp.concatenate([a, b])
    x = 2 * x - 1 if normalize else x
    x = (x - _channels(xp, SHIFT, x.dtype)) / _channels(xp, SCALE, x.dtype)
    kept: list[tuple[Layer, Any]] = []
    taps: list[Tap] = []
    parts: list[Array] = []
    for layer in model.features:
        with nullcontext() if layer.backend is None else use_backend(layer.backend):
            x, mine = layer.compute(x)
        kept.append((layer, mine))
        if isinstance(layer, ReLU):
            norm = xp.sqrt((x * x).sum(1, keepdims=True))
            taps.append(Tap(x / (norm + EPSILON), norm, beside(heads()[len(taps)], x).astype(x.dtype)))
            unit, head = taps[-1].unit, taps[-1].head
            apart = (head * (unit[:N] - unit[N:]) ** 2).sum(1, keepdims=True)
            parts.append(_enlarged(apart, (H, W)) if spatial else apart.mean((2, 3), keepdims=True))
            if len(taps) == len(heads()):
                break
    return Cache(kept, taps, a.shape, normalize, spatial), parts


def _tap_gradient(tap: Tap, ddistance: Array, spatial: bool) -> Array:
    """df of both pictures at one ReLU."""
    xp, N, (h, w) = array_module(tap.unit), len(ddistance), tap.unit.shape[2:]
    dapart = _enlarged_gradient(ddistance, (h, w)) if spatial else ddistance / (h * w)
    du = 2 * tap.head * (tap.unit[:N] - tap.unit[N:]) * dapart
    du = xp.concatenate([du, -du])
    along = (du * tap.unit).sum(1, keepdims=True)
    length = tap.norm + EPSILON
    dnorm = tap.unit * length / xp.where(tap.norm == 0, 1, tap.norm)  # f/n, and 0 where both are
    return (du - dnorm * along) / length


def _sum(parts: Sequence[Array]) -> Array:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _channels(xp: Any, numbers: tuple[float, ...], dtype: Any) -> Array:
    return xp.asarray(numbers, np.float32).astype(dtype)[:, None, None]  # the published ones are float32


def _enlarged(x: Array, size: tuple[int, int]) -> Array:
    """(N,1,h,w) -> (N,1,H,W), bilinear, align_corners=False: two matrices, whose transposes are the gradient's."""
    rows, columns = (_interpolation(x, n, to) for n, to in zip(x.shape[2:], size, strict=True))
    return rows @ x @ columns.T


def _enlarged_gradient(dy: Array, size: tuple[int, int]) -> Array:
    rows, columns = (_interpolation(dy, n, to) for n, to in zip(size, dy.shape[2:], strict=True))
    return rows.T @ dy @ columns


def _interpolation(like: Array, n: int, to: int) -> Array:
    """(to,n): what each of `to` places takes of n, by the distance of their centres."""
    at = np.maximum((np.arange(to) + 0.5) * n / to - 0.5, 0)
    low = np.minimum(at.astype(int), n - 1)
    high, share = np.minimum(low + 1, n - 1), at - low
    matrix = np.zeros((to, n))
    np.add.at(matrix, (np.arange(to), low), 1 - share)
    np.add.at(matrix, (np.arange(to), high), share)
    return beside(matrix.astype(to_cpu(like[:0]).dtype), like)
