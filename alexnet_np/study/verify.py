"""A network side by side with torch: every layer's forward and gradients, and the whole net's, against float64 truth.

The truth is torch in float64 with the very same weights. Errors are relative, ||a - truth|| / ||truth|| (L2). In
float32, torch's own float32 error stands beside ours: it is what the arithmetic allows.

float32 has kinks: where a value before a ReLU is within rounding of 0, or two values under a max pool within rounding
of each other, two correct implementations decide differently, and from there on one unit's gradient differs wholly.
So layers are judged one by one, each implementation given the SAME x and the SAME dy (the truth's, rounded to float32):
then all decide alike, and the errors are those of that layer's own arithmetic. The whole net runs end to end as well.
There the logits are compared as they are, but for the float32 gradients the truth and torch decide at every kink as the
model did: the same ReLUs pass, the same pixels win (`held`).
The numba backend's convolutions may be Winograd's, which is faster and rounds more: they have a limit of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import arguments
from alexnet_np.backend import current_backend
from alexnet_np.device import Array, beside, to_cpu
from alexnet_np.errors import ArgumentError
from alexnet_np.layers import Conv2d, Layer, MaxPool2d, ReLU
from alexnet_np.models import AlexNet, check_model
from alexnet_np.study.torch_net import Arrays, TorchNet, import_torch, import_torchvision, torch_module
from alexnet_np.text import html_table

__all__ = [
    "Comparison",
    "LayerReport",
    "Report",
    "TorchNet",
    "import_torch",
    "import_torchvision",
    "relative_error",
    "torch_module",
    "verify",
]

# How far ours may be from the truth. In float32: RATIO times torch's own error, or FLOOR where that is next to nothing.
FLOAT32_RATIO = 1.5
FLOAT32_FLOOR = 3 * float(np.finfo(np.float32).eps)  # a GEMM sums hundreds of products in its own order: up to 2.3 eps
FLOAT32_WINOGRAD = 2e-5  # it adds and subtracts before it multiplies, on the numba backend: up to 7e-6 was measured
FLOAT32_NET_GRADIENT = 1e-5  # it has gone through every layer: up to 1.3e-6 was measured
FLOAT32_NET_WINOGRAD = 1e-4  # likewise: up to 1.0e-5
FLOAT64_LAYER = 1e-12
FLOAT64_NET = 1e-10


@dataclass(frozen=True)
class Comparison:
    """One array: how far ours, and torch's in the same dtype, lie from the truth."""

    quantity: str  # of a layer: forward, dx, dweight, dbias; of the net: logits, dx, or a parameter's name
    ours: float
    torch: float | None  # None in float64, where torch is the truth
    limit: float

    @property
    def ok(self) -> bool:
        return self.ours <= self.limit

    @property
    def ratio(self) -> float | None:
        """Our error over torch's; None where torch has none."""
        return self.ours / self.torch if self.torch else None


@dataclass(frozen=True)
class LayerReport:
    name: str  # as in state_dict: "features.0"
    type: str
    comparisons: list[Comparison]

    @property
    def ok(self) -> bool:
        return all(comparison.ok for comparison in self.comparisons)


@dataclass(frozen=True)
class Report:
    dtype: str
    winograd: bool  # whether convolutions may be Winograd's, and are allowed its error
    peer: str  # whose network: "torchvision 0.28.0", or "torch 2.13.0" where torchvision has none such
    layers: list[LayerReport]  # each layer by itself
    net: list[Comparison]  # end to end: logits, dx, then every parameter's gradient

    @property
    def ok(self) -> bool:
        return self.first_divergence is None and all(comparison.ok for comparison in self.net)

    def _repr_html_(self) -> str:
        """What a notebook shows: every error, ours beside torch's, and the verdicts."""
        named = [(layer.name, layer.type, c) for layer in self.layers for c in layer.comparisons]
        named += [("end to end", "", c) for c in self.net]
        rows = [
            (
                name,
                kind,
                c.quantity,
                f"{c.ours:.1e}",
                "" if c.torch is None else f"{c.torch:.1e}",
                f"{c.limit:.1e}",
                "✓" if c.ok else "✗",
            )
            for name, kind, c in named
        ]
        verdict = "agrees with" if self.ok else "DIVERGES from"
        head = ("layer", "type", "quantity", "ours", "torch", "allowed", "")
        return html_table(head, rows, words=3, caption=f"{verdict} {self.peer}, {self.dtype}, errors against float64")

    @property
    def first_divergence(self) -> LayerReport | None:
        return next((layer for layer in self.layers if not layer.ok), None)


def verify(model: AlexNet, x: Any, seed: int = 0, advance: Callable[[int], object] = lambda done: None) -> Report:
    """Compare `model` with torch on x (N,C,H,W), of the model's dtype and device, dropout off.

    dlogits is drawn from N(0, 1) by `seed`. The model's gradients and mode are left as they were.
    `advance` is called with 1 when the whole net has been compared, and after every layer.
    Raises MissingPackageError without torch (and torchvision, for its preset), and what the model raises for a wrong x.
    """
    x = check_model("verify", model).check_input(x)
    seed = arguments.seed("verify", seed)
    if model.towers > 1:
        raise ArgumentError("verify: torch has no towers to compare with; set model.towers = 1 for the grouped network")
    dtype = str(model.dtype)
    winograd = dtype == "float32" and (model.backend or current_backend(x)) == "numba"
    with _borrowed(model):
        logits = model(x)
        dlogits = np.random.default_rng(seed).standard_normal(logits.shape).astype(dtype)
        judges = _Judges(TorchNet(model, "float64"), TorchNet(model, dtype) if dtype != "float64" else None, winograd)
        inputs, dys, net = _compare_net(model, x, logits, dlogits, judges)
        advance(1)
        reports = []
        for (name, layer), layer_x, dy in zip(model.leaves(), inputs, dys, strict=True):
            reports.append(_compare_layer(name, layer, layer_x.astype(dtype), dy.astype(dtype), judges, like=x))
            advance(1)
    return Report(dtype, winograd, judges.truth.peer, reports, net)


class _Judges(NamedTuple):
    truth: TorchNet  # in float64
    torch: TorchNet | None  # in the model's dtype; None in float64, where torch is the truth
    winograd: bool


def _compare_net(
    model: AlexNet, x: Array, logits: Array, dlogits: np.ndarray, judges: _Judges
) -> tuple[list[np.ndarray], list[np.ndarray], list[Comparison]]:
    """End to end; and every layer's true input and true dy, for `_compare_layer`."""
    ours = {"logits": logits, "dx": model.backward(beside(dlogits, x), retain_graph=True)}
    ours.update({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    inputs, dys, truth = judges.truth.run(to_cpu(x), dlogits)
    theirs = None
    if judges.torch is not None:
        theirs = {"logits": judges.torch(to_cpu(x))}
        for net, arrays in ((judges.truth, truth), (judges.torch, theirs)):
            with held(net, model):
                gradients = net.run(to_cpu(x), dlogits)[2]
            arrays.update({quantity: array for quantity, array in gradients.items() if quantity != "logits"})
    floors = {quantity: _net_floor(quantity, str(model.dtype), judges.winograd) for quantity in ours}
    return inputs, dys, _compare(ours, theirs, truth, floors)


@contextmanager
def held(net: TorchNet, model: AlexNet) -> Iterator[None]:
    """Inside, `net` decides at every ReLU and max pool as `model` did in its last forward."""
    torch, handles = import_torch(), []

    def replace(name: str, compute: Callable[[Any], Any]) -> None:
        handles.append(net.modules[name].register_forward_hook(lambda module, given, y: compute(given[0])))

    for name, layer in model.leaves():
        if isinstance(layer, ReLU):
            replace(name, torch.from_numpy(~(to_cpu(layer.kept()) <= 0)).mul)
        elif isinstance(layer, MaxPool2d):
            replace(name, partial(_take, torch.from_numpy(_winners(layer.kept()))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _take(winners: Any, x: Any) -> Any:
    """Of every map the pixels whose places `winners` (a tensor, N,C,OH,OW) has."""
    return x.flatten(2).gather(2, winners.flatten(2)).view(winners.shape)


def _winners(pooled: Any) -> np.ndarray:
    """Which pixel of its map each window of a max pool took: row * width + column."""
    (_, KW), (SH, SW), (PH, PW), (DH, DW), (OH, OW) = pooled.geometry
    row, column = np.divmod(to_cpu(pooled.switches).astype(np.int64), KW)
    row = row * DH + np.arange(OH)[:, None] * SH - PH
    column = column * DW + np.arange(OW) * SW - PW
    return row * pooled.x.shape[3] + column


def _compare_layer(name: str, layer: Layer, x: np.ndarray, dy: np.ndarray, judges: _Judges, like: Array) -> LayerReport:
    """One layer by itself, ours on the device of `like`, all of them given this x and this dy."""
    for parameter in layer.parameters():
        parameter.grad = None
    ours = {"forward": layer(beside(x, like)), "dx": layer.backward(beside(dy, like))}
    ours.update({f"d{key}": p.grad for key, p in layer.named_parameters() if p.grad is not None})
    truth = judges.truth.run_layer(name, x, dy)
    theirs = None if judges.torch is None else judges.torch.run_layer(name, x, dy)
    floor = _rounding(str(x.dtype), judges.winograd and isinstance(layer, Conv2d))
    compared = _compare(ours, theirs, truth, dict.fromkeys(ours, floor))
    return LayerReport(name, type(layer).__name__, compared)


def _compare(ours: Arrays, theirs: Arrays | None, truth: Arrays, floors: dict[str, float]) -> list[Comparison]:
    """Every array of ours: its limit is FLOAT32_RATIO times torch's error, and at least its floor."""
    compared = []
    for quantity, array in ours.items():
        error = relative_error(to_cpu(array), truth[quantity])
        torch_error = None if theirs is None else relative_error(theirs[quantity], truth[quantity])
        limit = max(floors[quantity], FLOAT32_RATIO * (torch_error or 0))
        compared.append(Comparison(quantity, error, torch_error, limit))
    return compared


def _rounding(dtype: str, winograd: bool) -> float:
    """What rounding may cost one layer."""
    if dtype == "float64":
        return FLOAT64_LAYER
    return FLOAT32_WINOGRAD if winograd else FLOAT32_FLOOR


def _net_floor(quantity: str, dtype: str, winograd: bool) -> float:
    if dtype == "float64":
        return FLOAT64_NET
    if quantity == "logits":
        return _rounding(dtype, winograd)
    return FLOAT32_NET_WINOGRAD if winograd else FLOAT32_NET_GRADIENT


def relative_error(a: np.ndarray, truth: np.ndarray) -> float:
    """||a - truth|| / ||truth|| in float64; infinite where the shapes differ or a difference is not finite."""
    if a.shape != truth.shape:
        return float("inf")
    norm, error = float(np.linalg.norm(truth)), float(np.linalg.norm(a - truth))
    if not np.isfinite(error):
        return float("inf")
    return error / norm if norm else error


@contextmanager
def _borrowed(model: AlexNet) -> Iterator[None]:
    """`model` in evaluation mode and without gradients; both given back afterwards."""
    training, gradients = model.training, [p.grad for p in model.parameters()]
    model.eval().zero_grad()
    try:
        yield
    finally:
        model.train(training)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
