"""What the training plans of both devices share: what was asked, what is trained, what a target must be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError, DtypeError, ShapeError
from alexnet_np.layers import Parameter
from alexnet_np.models import AlexNet


class TrainingRequest(NamedTuple):
    """What `compile_training` was asked for."""

    model: AlexNet
    optimizer: Any  # an SGD
    batch_size: int
    size: tuple[int, int]
    label_smoothing: float
    precision: str = ""  # of products, on the GPU


class Trained(NamedTuple):
    """A parameter, its group of the optimizer, and the optimizer's name for it."""

    parameter: Parameter
    group: dict[str, Any]
    name: str


def find_trained(request: TrainingRequest) -> dict[str, Trained]:
    """Every parameter to update, by the model's name. Raises ArgumentError where there is none."""
    given = {
        id(parameter): Trained(parameter, group, name)
        for group in request.optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }
    named = request.model.named_parameters()
    found = {name: given[id(p)] for name, p in named if p.requires_grad and id(p) in given}
    if not found:
        raise ArgumentError("compile_training: nothing to train: every parameter is frozen or not the optimizer's")
    return found


def check_target(target: Array, count: int) -> None:
    """Raises DtypeError, ShapeError for what are no class indices of `count` images."""
    if target.dtype.kind not in "iu":
        raise DtypeError(f"training plan: target must be integers, got {target.dtype}")
    if target.shape != (count,):
        raise ShapeError(f"training plan: target must be ({count},), got {target.shape}")


def check_classes(target: np.ndarray, classes: int) -> None:
    """Raises ArgumentError for a class that there is not."""
    wrong = target[(target < 0) | (target >= classes)]
    if wrong.size:
        raise ArgumentError(f"training plan: target {int(wrong[0])} is out of 0...{classes - 1}")
