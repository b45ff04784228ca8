"""One input's way through a network: the shape after every layer, and what the values there look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alexnet_np.device import Array
from alexnet_np.layers import Layer, Shape, no_grad
from alexnet_np.models import AlexNet, check_model


@dataclass(frozen=True)
class Step:
    """One layer's output."""

    name: str  # as in state_dict: "features.0"
    type: str
    shape: Shape
    mean: float
    std: float
    zeros: float  # share of values that are exactly 0: after a ReLU, the units that are off


@dataclass(frozen=True)
class Walk:
    input: Step
    steps: list[Step]
    logits: Array  # (N, num_classes)


def walk(model: AlexNet, x: Any) -> Walk:
    """Run x (N,C,H,W) forward and note every layer's output on the way. Dropout acts as `model.training` says.

    Raises what the model raises: ShapeError for an input too small, DtypeError.
    """
    check_model("walk", model)
    steps: list[Step] = []
    entered: list[Step] = []
    handles = []
    for i, (name, layer) in enumerate(model.leaves()):

        def note(layer: Layer, x: Array, y: Array, name: str = name, first: bool = i == 0) -> None:
            if first:
                entered.append(describe("input", "", x))
            steps.append(describe(name, type(layer).__name__, y))

        handles.append(layer.register_forward_hook(note))
    try:
        with no_grad():
            logits = model(x)
    finally:
        for handle in handles:
            handle.remove()
    return Walk(entered[0], steps, logits)


def describe(name: str, type_name: str, y: Array) -> Step:
    zeros = float((y == 0).mean()) if y.size else 0.0
    mean, std = (float(y.mean()), float(y.std())) if y.size else (0.0, 0.0)
    return Step(name, type_name, y.shape, mean, std, zeros)
