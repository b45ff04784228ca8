"""Networks that were trained here, found again with what they were trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from alexnet_np.data.dataset import Dataset
from alexnet_np.data.image_folder import ImageFolder
from alexnet_np.errors import CheckpointError
from alexnet_np.models import AlexNet
from alexnet_np.training import checkpoint
from alexnet_np.training.building import build_model
from alexnet_np.training.checkpoint import Checkpoints
from alexnet_np.training.config import Config
from alexnet_np.training.run import parameters
from alexnet_np.training.task import find_recipe_of, open_task, validation_folder


class Trained(NamedTuple):
    """A network and how it came about."""

    model: AlexNet
    config: Config
    classes: list[str]


def open_trained(path: Path, backend: str | None = None) -> Trained:
    """The network in a run's folder (finished or not), in its weights.safetensors or in one of its checkpoints.

    Raises CheckpointError where there is none.
    """
    if path.is_dir() and not (path / "weights.safetensors").exists():
        tensors, state, problems = Checkpoints(path / "checkpoints").load()
        if problems:
            raise CheckpointError(f"{problems[0]}; name an older one, or --resume the run first")
    else:
        tensors, state = checkpoint.read(path / "weights.safetensors" if path.is_dir() else path)
    if "config" not in state:
        raise CheckpointError(f"{path}: says nothing of how it was trained")
    config = dataclasses.replace(Config.from_json(state["config"]), weights=None, new_head=False, freeze=())
    if backend is not None:
        config = dataclasses.replace(config, backend=backend)
    classes = state["data"]["classes"]
    model = build_model(config, len(classes), find_recipe_of(config).channels)
    model.load_state_dict(parameters(tensors))
    return Trained(model.eval(), config, classes)


def images_to_evaluate(config: Config, classes: list[str] | None, data: Path | None, workers: int = 2) -> Dataset:
    """The images that the run of `config` validates on, or those below `data`: its val/ if it has one, else all.

    `classes`: those that the network knows, in their order; None takes the folder's. Raises DataError, ImageError.
    """
    if data is None:
        return open_task(config, workers).validation
    if config.dataset != "folder":
        return open_task(dataclasses.replace(config, data=str(data)), workers).validation
    return ImageFolder(validation_folder(data) or data, find_recipe_of(config), classes=classes, workers=workers)
