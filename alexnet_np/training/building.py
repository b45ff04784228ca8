"""What a configuration says to train: the network, its optimizer, and the learning rate over time."""

from __future__ import annotations

from typing import Any

from alexnet_np.initialisation import initialise
from alexnet_np.models import AlexNet
from alexnet_np.presets import alexnet, find_weights, wanted_by
from alexnet_np.training import variants
from alexnet_np.training.config import Config
from alexnet_np.training.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    OneCycleLR,
    ReduceLROnPlateau,
    Schedule,
    StepLR,
)
from alexnet_np.training.sgd import SGD


def build_model(config: Config, num_classes: int, in_channels: int) -> AlexNet:
    """The network to train, from random numbers or from other weights. Raises WeightsError where they do not fit."""
    model = alexnet(
        config.preset,
        num_classes=num_classes,
        in_channels=in_channels,
        width=config.width,
        dtype=config.dtype,
        seed=config.seed,
    )
    initialise(model.named_parameters(), config.seed, config.initialisation)
    if config.weights is not None:
        found = find_weights(config.weights, wanted_by(model, head=not config.new_head))
        model.load_state_dict(found, strict=not config.new_head)
    variants.apply(model, config)
    for prefix in config.freeze:
        model.freeze(prefix)
    return model.to(config.backend).train()


def build_optimizer(config: Config, model: AlexNet) -> SGD:
    """SGD for whatever is not frozen; biases in a group of their own where `config.biases` says so."""
    pairs = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": pairs}]
    if config.biases == "double":
        weights = [pair for pair in pairs if not pair[0].endswith("bias")]
        biases = [pair for pair in pairs if pair[0].endswith("bias")]
        groups = [{"params": weights}, {"params": biases, "lr": 2 * config.lr, "weight_decay": 0.0}]
    return SGD(
        groups,
        config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        rule=config.rule,
        backend=config.backend,
    )


def build_schedule(config: Config, optimizer: SGD, batches: int) -> Schedule | ReduceLROnPlateau:
    """The rate over epochs of `batches` batches. A plateau steps once an epoch, with its error."""
    total = config.epochs * batches
    if config.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, "min", config.gamma, config.patience)
    if config.schedule == "step":
        return StepLR(optimizer, config.step_epochs * batches, config.gamma)
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, total)
    if config.schedule == "one-cycle":
        return OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], total)
    return ConstantLR(optimizer)
