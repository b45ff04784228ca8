"""What a configuration says to learn from: its images, and what is done to them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.data.augment import Augment, CenterCrop, ColourNoise, RandomCrop, TenCrop, Upsample, upsample
from alexnet_np.data.dataset import Dataset, Subset, Synthetic, split
from alexnet_np.data.idx import fashion_mnist
from alexnet_np.data.image_folder import ImageFolder
from alexnet_np.data.loader import Loader
from alexnet_np.data.mean_image import MeanImage, add_up
from alexnet_np.data.recipe import Preprocessing, adjusted
from alexnet_np.errors import ArgumentError, DataError
from alexnet_np.presets import PRESETS
from alexnet_np.training.config import SMALL_IMAGES, Config
from alexnet_np.training.parallel.group import Group

SYNTHETIC_IMAGES = 2000
RAW_MEAN = {"fashion-mnist": 72.94, "synthetic": 127.0}  # of all training images' bytes
TRAINING_FOLDERS = ("train", "training")  # in any case
VALIDATION_FOLDERS = ("val", "valid", "validation", "test", "testing")  # the first of them that is there


class Task(NamedTuple):
    """The images of a run."""

    train: Dataset
    validation: Dataset
    recipe: Preprocessing  # the input that the network takes
    notices: Sequence[str] = ()  # what was left out

    @property
    def classes(self) -> list[str]:
        return list(self.train.classes)

    def fingerprint(self) -> dict[str, Any]:
        """Tells this data set from a changed one: by number, classes and labels, in order. Pixels are not read."""
        labels = hashlib.sha256(np.asarray(self.train.targets, "<i8").tobytes())
        return {"images": len(self.train.targets), "classes": self.classes, "labels_sha256": labels.hexdigest()}


def find_recipe_of(config: Config) -> Preprocessing:
    """The input of the network: small images are grey, as d2l's, whatever the preset."""
    given = config.given_input()
    if given is not None:
        return given._replace(like_torchvision=config.like_torchvision)
    if config.dataset in SMALL_IMAGES:
        side = side_of(config)
        recipe = adjusted(PRESETS["d2l"].preprocessing, side, side)
        return recipe._replace(scale=1, mean=(RAW_MEAN[config.dataset],)) if config.raw else recipe
    own = PRESETS[config.preset].preprocessing._replace(like_torchvision=config.like_torchvision)
    return own._replace(resizing=config.resizing, jpeg=config.jpeg)


def side_of(config: Config) -> int:
    """Of small images, once they are enlarged."""
    return PRESETS[config.preset].preprocessing.crop if config.image_size is None else config.image_size


def open_task(config: Config, workers: int = 2, cache: Path | None = None) -> Task:
    """The training and validation images of `config`. Raises DataError, ImageError."""
    notices: list[str] = []
    small = config.dataset in SMALL_IMAGES
    train, validation = _small_images(config) if small else _folders(config, workers, cache, notices)
    if config.limit is not None:
        train = first_images(train, config.limit)
    if config.validation_limit is not None:
        validation = first_images(validation, config.validation_limit)
    for part, use in ((train, "train"), (validation, "validate")):
        if not len(part.targets):
            raise DataError(f"{config.data or config.dataset}: no images to {use} on")
    return Task(train, validation, find_recipe_of(config), notices)


def open_validation(config: Config, workers: int = 2) -> Dataset:
    """The validation images of `config` alone, where they are files of their own. Raises DataError, ImageError."""
    if config.dataset != "fashion-mnist":
        return open_task(config, workers).validation
    images = fashion_mnist("test", config.data)
    return images if config.validation_limit is None else first_images(images, config.validation_limit)


def _small_images(config: Config) -> tuple[Dataset, Dataset]:
    if config.dataset == "fashion-mnist":
        return fashion_mnist("train", config.data), fashion_mnist("test", config.data)
    count = config.limit or SYNTHETIC_IMAGES
    sizes = {"size": side_of(config), "channels": 1}
    return Synthetic(count, **sizes, seed=0), Synthetic(max(1, count // 5), **sizes, seed=1)


def _folders(config: Config, workers: int, cache: Path | None, notices: list[str]) -> tuple[Dataset, Dataset]:
    """ROOT/train and ROOT/val where they are, else ROOT itself or ROOT/train, of which a share is held out."""
    root, held_out = folders_of(Path(str(config.data)))
    recipe = find_recipe_of(config)

    def opened(folder: Path, name: str, classes: list[str] | None = None) -> ImageFolder:
        inside = None if cache is None else cache / name
        made = ImageFolder(folder, recipe, classes=classes, cache=inside, workers=workers, strict=config.strict)
        notices.extend(made.notices())
        return made

    if held_out is not None:
        train = opened(root, "train")
        return train, opened(held_out, "val", train.classes)
    return split(opened(root, "all"), config.validation, config.seed)


def folders_of(root: Path) -> tuple[Path, Path | None]:
    """ROOT/train and ROOT/val, by whatever of their names and in whatever case; ROOT itself where there is no train.

    Raises DataError where there is no ROOT, and where one is meant by two names.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    inside: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        name = path.name.lower()
        if name in (*TRAINING_FOLDERS, *VALIDATION_FOLDERS) and path.is_dir():
            if name in inside:
                raise DataError(f"{root}: both {inside[name].name} and {path.name}; keep the one you mean")
            inside[name] = path
    train = next((inside[name] for name in TRAINING_FOLDERS if name in inside), None)
    held_out = next((inside[name] for name in VALIDATION_FOLDERS if name in inside), None)
    return (root, None) if train is None else (train, held_out)


def held_out_below(root: Path) -> Path:
    """The images to evaluate on below ROOT: its val/, by whatever name, else ROOT itself."""
    names = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()} if root.is_dir() else {}
    return next((names[name] for name in VALIDATION_FOLDERS if name in names), root)


def first_images(dataset: Dataset, count: int) -> Dataset:
    """`count` images, evenly spaced, so that a set sorted by class keeps its classes."""
    have = len(dataset.targets)
    return dataset if count >= have else Subset(dataset, evenly_spaced(count, have))


def evenly_spaced(count: int, have: int) -> np.ndarray:
    """Which `count` of so many: int (count,)."""
    return np.arange(count) * have // count


def with_mean_image(config: Config, task: Task, workers: int, group: Group) -> Task:
    """`task`, its mean image computed where the configuration wants one; every process adds up a part of the images."""
    if config.mean == "channel":
        return task
    images = len(task.train.targets)
    mine = add_up(task.train, partial(begun, config, task.recipe), range(images)[group.rank :: group.size], workers)
    total = sum(group.collect(mine))
    return subtracting(task, MeanImage((total / images).astype(np.float32), config.mean))


def subtracting(task: Task, image: MeanImage) -> Task:
    """`task` with this mean image."""
    recipe, channels = task.recipe, image.channels
    mean = tuple(channels[c] / recipe.scale for c in recipe.order)
    return task._replace(recipe=recipe._replace(mean=mean, mean_image=image))


def begun(config: Config, recipe: Preprocessing, pixels: np.ndarray) -> np.ndarray:
    """An image as augmentations cut crops from it: small ones are enlarged."""
    return upsample(pixels, recipe.crop) if config.dataset in SMALL_IMAGES else pixels


def training_augment(config: Config, task: Task) -> Augment:
    """What is done to every training image."""
    if config.dataset in SMALL_IMAGES:
        return Upsample(task.recipe, mirror=config.augmentation == "mirror")
    if config.augmentation == "none":
        return CenterCrop(task.recipe)
    if config.augmentation == "crop":
        return RandomCrop(task.recipe)
    if task.recipe.mode == "L":
        raise ArgumentError(
            f"augmentation {config.augmentation!r} shifts colours, but {config.preset!r} takes grey images; use crop"
        )
    noise = ColourNoise.of(task.train, seed=config.seed)
    shared: dict[str, Any] = {"together": 32, "divisor": 1.1} if config.augmentation == "krizhevsky145" else {}
    return RandomCrop(task.recipe, colour=noise, colour_epochs=config.colour_epochs, **shared)


def evaluation_augment(config: Config | None, recipe: Preprocessing, ten_crop: bool = False) -> Augment:
    """What is done to every image that is not trained on. Raises ArgumentError."""
    if config is None or config.dataset not in SMALL_IMAGES:
        return TenCrop(recipe) if ten_crop else CenterCrop(recipe)
    if ten_crop:
        raise ArgumentError(f"ten crops are for folders: the images of {config.dataset} are not larger than the input")
    return Upsample(recipe)


def loaders(
    config: Config, task: Task, workers: int, rows: Callable[[int], slice] | None = None
) -> tuple[Loader, Loader]:
    """Batches for training, shuffled, and for validation; `rows` as Loader takes it."""
    common: dict[str, Any] = {"workers": workers, "dtype": config.dtype, "rows": rows}
    augment = training_augment(config, task)
    train = Loader(task.train, config.batch_size, augment=augment, shuffle=True, seed=config.seed, **common)
    return train, Loader(task.validation, config.batch_size, augment=evaluation_augment(config, task.recipe), **common)
