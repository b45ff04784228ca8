"""Networks that were trained here, found again with what they were trained on."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

from alexnet_np.data.dataset import Dataset
from alexnet_np.data.image_folder import ImageFolder
from alexnet_np.errors import ArgumentError
from alexnet_np.identity import alexnet, recipe_of
from alexnet_np.models import AlexNet
from alexnet_np.training.config import Config
from alexnet_np.training.task import held_out_below, open_validation
from alexnet_np.weights import registry, seal
from alexnet_np.weights.reading import opened


class Trained(NamedTuple):
    """A network and how it came about."""

    model: AlexNet
    config: Config | None  # None: nobody says
    classes: list[str] | None  # as the folders of the training set were called; None: nobody says


def open_trained(weights: str | os.PathLike, backend: str | None = None, preset: str | None = None) -> Trained:
    """The network of a run's folder (finished or not), a file or a published name, and the run that made it, if known.

    Raises WeightsError, CheckpointError for a configuration of another version.
    """
    name = os.fspath(weights)
    with opened(registry.path_of(name)) as contents:
        about = seal.unpack(contents.metadata)
    config = Config.from_json(about["config"]) if "config" in about else None
    model = alexnet(preset, name, dtype="float32" if config is None else config.dtype, backend=backend)
    classes = model.described().classes
    return Trained(model.eval(), config, None if classes is None else list(classes))


def images_to_evaluate(trained: Trained, data: Path | None, workers: int = 2) -> Dataset:
    """The images that the network's run validates on, or those below `data`: its val/ if it has one, else all.

    Raises DataError, ImageError; ArgumentError where no images are known.
    """
    config = trained.config
    if data is None:
        if config is None:
            raise ArgumentError("not of a run of `alexnet train`, so name a folder of images with --data")
        return open_validation(config, workers)
    if config is not None and config.dataset != "folder":
        return open_validation(dataclasses.replace(config, data=str(data)), workers)
    return ImageFolder(held_out_below(data), recipe_of(trained.model), classes=trained.classes, workers=workers)
