"""Features computed once, where every epoch would compute the same: their layers are frozen, the images never changed.

An image becomes the row that the classifier reads, of 9216 numbers for AlexNet; the rows lie in a file of the run's
folder, from which batches are read as they are needed, or in memory where there is no folder. The run then trains the
classifier alone (`Head`), on the same batches in the same order: what it ends with is what it would have ended with.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.data.augment import Augment
from alexnet_np.data.dataset import Dataset
from alexnet_np.data.loader import Loader
from alexnet_np.device import beside, to_cpu
from alexnet_np.files import replacing
from alexnet_np.layers import Dropout, Identity, no_grad
from alexnet_np.models import AlexNet
from alexnet_np.plan import compile as compile_plan
from alexnet_np.plan import hooked

ROOM = 8 << 30  # bytes on the disk, at most, and half of what is free there
MEMORY = 1 << 30  # bytes, where there is no folder
BATCH = 64  # images at a time
LAST = "flatten"  # the layer whose output the classifier reads

Tell = Callable[[int, int], None]  # how many of how many images are done; may raise to stop


class Head(AlexNet):
    """A network's classifier, the very layers, which takes rows of features as images of one pixel (N,F,1,1)."""

    def __init__(self, model: AlexNet, features: int) -> None:
        super().__init__(model.preset, [], Identity(), [], model.seed)
        self.rows, self.said = features, model.said
        self.classifier = model.classifier
        self.train(model.training)

    @property
    def in_channels(self) -> int:
        return self.rows

    @property
    def dtype(self) -> Any:
        return self._weighted()[0].weight.dtype


@dataclass(frozen=True)
class Rows:
    """A data set of rows instead of images."""

    rows: np.ndarray
    targets: np.ndarray
    classes: list[str]

    def pixels(self, index: int) -> np.ndarray:
        return self.rows[index]


@dataclass(frozen=True)
class AsItIs:
    """What happens to a row on its way into a batch: nothing."""

    shape: tuple[int, ...]
    draws = 0

    def __call__(self, pixels: np.ndarray, u: np.ndarray, out: np.ndarray) -> None:
        out[:, 0, 0] = pixels


def are_constant(model: AlexNet, augmentation: str) -> bool:
    """Whether an image's features are the same in every epoch, and nobody listens to how they come about."""
    frozen = not any(p.requires_grad for p in model.features.parameters())
    random = augmentation != "none" or any(isinstance(layer, Dropout) for _, layer in model.features.leaves())
    return frozen and not random and not hooked(model)


def count_features(model: AlexNet, shape: tuple[int, ...]) -> int:
    """Of an image of `shape` (C,H,W): the numbers that the classifier reads."""
    return math.prod(model.avgpool.output_shape(model.features.output_shape((1, *shape))))


def has_room(images: int, features: int, itemsize: int, folder: Path | None) -> bool:
    """Whether the rows may be kept: in the folder, or in memory where that is None."""
    size = images * features * itemsize
    return size <= MEMORY if folder is None else size <= min(ROOM, shutil.disk_usage(folder.parent).free // 2)


def identity_of(model: AlexNet, dataset: Dataset, augment: Augment) -> str:
    """What decides the rows: the layers before the classifier, their numbers, the images by their files or number."""
    layers = [repr(layer) for name, layer in model.leaves() if not name.startswith("classifier")]
    whole: Any = getattr(dataset, "whole", dataset)
    files = [(file, Path(file).stat().st_mtime_ns) for file in getattr(whole, "files", ())]
    total = hashlib.blake2b(repr([layers, repr(augment), files]).encode(), digest_size=8)
    for array in (dataset.targets, getattr(dataset, "indices", dataset.targets)):
        total.update(np.ascontiguousarray(array).data)
    for parameter in model.features.parameters():
        total.update(np.ascontiguousarray(to_cpu(parameter.data)).data)
    return total.hexdigest()


def gather_all(
    model: AlexNet, parts: Sequence[Dataset], like: Loader, planned: bool, folder: Path | None, tell: Tell
) -> list[np.ndarray]:
    """The rows of each of `parts`, whose images become input as those of `like` do; in files of `folder`."""
    images, done, found = sum(len(part.targets) for part in parts), 0, []
    for part in parts:
        loader = Loader(part, BATCH, augment=like.augment, workers=like.workers, dtype=like.dtype)
        file = None if folder is None else folder / f"{identity_of(model, part, like.augment)}.npy"
        found.append(gather(model, loader, planned, file, lambda n, before=done: tell(before + n, images)))  # type: ignore[misc]
        done += len(part.targets)
    return found


def gather(model: AlexNet, loader: Loader, planned: bool, file: Path | None, told: Callable[[int], None]) -> np.ndarray:
    """The rows of the loader's data set in its order; in `file`, if it is given, or as an earlier process left them.

    `planned`: by an inference plan, else layer by layer.
    """
    images, features = len(loader.dataset.targets), count_features(model, loader.augment.shape)
    if file is None:
        rows = np.empty((images, features), loader.dtype)
        fill(rows, model, loader, planned, told)
        return rows
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            kept = np.lib.format.open_memmap(temporary, "w+", np.dtype(loader.dtype), (images, features))
            fill(kept, model, loader, planned, told)
            kept.flush()
            del kept
    return np.load(file, mmap_mode="r")


def fill(rows: np.ndarray, model: AlexNet, loader: Loader, planned: bool, told: Callable[[int], None]) -> None:
    compute = by_plan(model, loader) if planned else by_layers(model)
    first = 0
    with closing(loader.epoch(0)) as batches:
        for x, _ in batches:
            rows[first : first + len(x)] = to_cpu(compute(beside(x, next(model.parameters()).data)))
            first += len(x)
            told(first)


def by_plan(model: AlexNet, loader: Loader) -> Callable[[Any], Any]:
    _, H, W = loader.augment.shape
    plan = compile_plan(model, loader.batch_size, (LAST,), size=(H, W))
    return lambda x: plan(x)[LAST]


def by_layers(model: AlexNet) -> Callable[[Any], Any]:
    def compute(x: Any) -> Any:
        with no_grad():
            return model.flatten(model.avgpool(model.features(x)))

    return compute
