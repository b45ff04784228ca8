"""What a configuration says to train: the network, its optimizer, and the learning rate over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alexnet_np.description import Description
from alexnet_np.errors import ArgumentError
from alexnet_np.identity import build, find_weights, said_of, wanted_by
from alexnet_np.initialisation import initialise
from alexnet_np.layers import Dropout, Linear, MaxPool2d
from alexnet_np.models import AlexNet
from alexnet_np.presets import PRESETS
from alexnet_np.training.config import Config
from alexnet_np.training.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    Schedule,
    StepLR,
)
from alexnet_np.training.sgd import SGD
from alexnet_np.training.task import find_recipe_of


def described(config: Config, classes: Sequence[str]) -> Description:
    """What network a configuration trains to tell these classes apart."""
    recipe = find_recipe_of(config)
    return Description(
        config.preset,
        len(classes),
        recipe.channels,
        config.width,
        PRESETS[config.preset].activation if config.activation == "own" else config.activation,
        config.pooling,
        config.lrn,
        config.dropout,
        tuple(classes),
        recipe,
    )


def build_model(config: Config, classes: Sequence[str]) -> AlexNet:
    """The network to train, from random numbers or from other weights. Raises WeightsError where they do not fit."""
    model = build(described(config, classes), config.dtype, config.seed)
    initialise(model.named_parameters(), config.seed, config.initialisation, config.width)
    if config.dropout_scaling == "testing":
        for name in behind_dropout(model):
            parameter = dict(model.named_parameters())[name]
            parameter.data = parameter.data * parameter.data.dtype.type(1 - config.dropout)
    if config.weights is not None:
        check_weights(config, model.described())
        found = find_weights(config.weights, wanted_by(model, head=not config.new_head))
        model.load_state_dict(found, strict=not config.new_head)
    for prefix in config.freeze:
        model.freeze(prefix)
    for layer in model.modules():
        if isinstance(layer, MaxPool2d):
            layer.ties = config.ties
    return model.to(config.backend).train()


def check_weights(config: Config, model: Description) -> None:
    """Raises WeightsError where the file to start from says that its network is another than the one to train."""
    said = said_of(config.weights)
    if said is not None:
        same = ("preset", "width", "activation", "pooling", "lrn", "in_channels")
        asked = {name: getattr(model, name) for name in same}
        if not config.new_head:
            asked["num_classes"] = model.num_classes
        remedy = "train that one, as `alexnet finetune` does by itself, or other weights"
        said.check_same(asked, str(config.weights), remedy)


def build_optimizer(config: Config, model: AlexNet) -> SGD:
    """SGD for whatever is not frozen; biases in a group of their own where `config.biases` says so."""
    pairs = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for prefix in config.freeze_after:
        if not any(name.startswith(prefix) for name, _ in model.named_parameters()):
            raise ArgumentError(f"freeze_after: no parameter's name starts with {prefix!r}; `alexnet summary` has them")
    scaled = behind_dropout(model) if config.dropout_scaling == "testing" else []
    kinds: dict[tuple[str, int | None], Any] = {}  # also by after how many epochs they are frozen
    for pair in pairs:
        is_apart = config.biases != "same" and pair[0].endswith("bias")
        kind = "scaled" if pair[0] in scaled else "biases" if is_apart else "weights"
        kinds.setdefault((kind, frozen_after(config, pair[0])), []).append(pair)
    kept = (1 - config.dropout) ** 2
    options: dict[str, Any] = {
        "weights": {},
        "biases": {"lr": 2 * config.lr, "weight_decay": 0.0},
        "scaled": {"lr": kept * config.lr, "weight_decay": config.weight_decay / kept},
    }
    order = sorted(kinds, key=lambda kind: (list(options).index(kind[0]), kind[1] or 0))
    groups = [{"params": kinds[kind], **options[kind[0]]} for kind in order]
    return SGD(
        groups,
        config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        rule=config.rule,
        backend=config.backend,
    )


def frozen_after(config: Config, name: str) -> int | None:
    """After how many epochs a parameter has rate 0; None for never."""
    return min((n for prefix, n in config.freeze_after.items() if name.startswith(prefix)), default=None)


def behind_dropout(model: AlexNet) -> list[str]:
    """The names of the dense weights that read what a dropout leaves.

    "testing" is trained in the usual form, exactly: where nothing is scaled in training, and tests halve, a weight W
    acts as W' = W (1-p) does here. Its gradient is smaller by 1-p, and so is what a step does to W': the rate is
    (1-p)² of the other weights', and the decay, which goes by the weight alone, as much larger.
    """
    names, before = [], False
    for name, layer in model.leaves():
        if before and isinstance(layer, Linear):
            names.append(f"{name}.weight")
        before = isinstance(layer, Dropout)
    return names


def build_schedule(config: Config, optimizer: SGD, batches: int) -> Schedule | ReduceLROnPlateau:
    """The rate over epochs of `batches` batches. A plateau steps once an epoch, with its error."""
    schedule = _schedule(config, optimizer, batches)
    if config.biases == "held":
        groups = optimizer.param_groups
        schedule.hold([i for i, group in enumerate(groups) if group["param_names"][0].endswith("bias")])
    epochs = [frozen_after(config, group["param_names"][0]) for group in optimizer.param_groups]
    each = 1 if config.schedule == "plateau" else batches
    schedule.stop({i: n * each for i, n in enumerate(epochs) if n is not None})
    return schedule


def _schedule(config: Config, optimizer: SGD, batches: int) -> Schedule | ReduceLROnPlateau:
    total = config.epochs * batches
    if config.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, "min", config.gamma, config.patience)
    if config.schedule == "step":
        return StepLR(optimizer, config.step_epochs * batches, config.gamma)
    if config.schedule == "milestones":
        return MultiStepLR(optimizer, [epoch * batches for epoch in config.milestones], config.gamma)
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, total)
    if config.schedule == "one-cycle":
        return OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], total)
    return ConstantLR(optimizer)
