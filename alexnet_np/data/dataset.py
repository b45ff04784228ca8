"""What a data set is to the loader, and the ones that need no files: arrays in memory, parts of another, synthetic."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from alexnet_np.data import draws
from alexnet_np.errors import ArgumentError, DtypeError, ShapeError


class Dataset(Protocol):
    """Images with a class each. `pixels` is called from several threads at once."""

    @property
    def classes(self) -> list[str]: ...

    @property
    def targets(self) -> np.ndarray: ...  # (N,) int64 indices into classes

    def pixels(self, index: int) -> np.ndarray: ...  # uint8 (H,W,C)


class ArrayDataset:
    """Images held in memory: `images` uint8 (N,H,W) or (N,H,W,C), `targets` (N,) class indices."""

    def __init__(self, images: np.ndarray, targets: np.ndarray, classes: list[str]) -> None:
        if images.dtype != np.uint8:
            raise DtypeError(f"images must be uint8, got {images.dtype}")
        if images.ndim not in (3, 4) or targets.shape != images.shape[:1]:
            raise ShapeError(f"images must be (N,H,W[,C]) and targets (N,), got {images.shape} and {targets.shape}")
        if targets.size and not 0 <= targets.min() <= targets.max() < len(classes):
            raise ArgumentError(f"targets of {targets.min()} to {targets.max()}, but there are {len(classes)} classes")
        self.images = images if images.ndim == 4 else images[..., None]
        self.targets = targets.astype(np.int64)
        self.classes = classes

    def pixels(self, index: int) -> np.ndarray:
        return self.images[index]


class Subset:
    """Some samples of another data set."""

    def __init__(self, whole: Dataset, indices: np.ndarray) -> None:
        self.whole, self.indices = whole, indices
        self.classes, self.targets = whole.classes, whole.targets[indices]

    def pixels(self, index: int) -> np.ndarray:
        return self.whole.pixels(int(self.indices[index]))


def split(dataset: Dataset, fraction: float, seed: int = 0) -> tuple[Subset, Subset]:
    """Two parts at random, the second with `fraction` of each class (at least one image, where the class has two)."""
    if not 0 < fraction < 1:
        raise ArgumentError(f"fraction must be between 0 and 1, got {fraction!r}")
    order = draws.permutation(seed, draws.SPLIT, 0, len(dataset.targets))
    held_out = np.zeros(len(order), bool)
    for target in range(len(dataset.classes)):
        members = order[dataset.targets[order] == target]
        held_out[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    return Subset(dataset, np.flatnonzero(~held_out)), Subset(dataset, np.flatnonzero(held_out))


class Synthetic:
    """Stripes that a network can learn, made when asked for: no files, no memory, any number of them.

    Image i is of class i % classes: the spatial frequency of the stripes, from 4 to 40 cycles a side in equal ratios,
    which neither cropping nor mirroring changes. Angle, phase and colour are random, as are coarse patches of noise.
    """

    def __init__(self, count: int, classes: int = 10, size: int = 256, channels: int = 3, seed: int = 0) -> None:
        if min(count, classes, size, channels) < 1:
            raise ArgumentError(f"all must be positive: {count=}, {classes=}, {size=}, {channels=}")
        self.frequencies = np.geomspace(4, 40, classes)
        self.classes = [f"{frequency:.1f} stripes" for frequency in self.frequencies]
        self.targets = np.arange(count) % classes
        self.size, self.channels, self.seed = size, channels, seed

    def pixels(self, index: int) -> np.ndarray:
        patches, side = 8, np.arange(self.size)
        u = draws.uniforms(self.seed, draws.SYNTHETIC, 0, [index], 2 + self.channels * (1 + patches**2))[0]
        angle, phase = 2 * np.pi * u[:2]
        amplitude = 40 + 50 * u[2 : 2 + self.channels].astype(np.float32)
        noise = 127 + 37 * (u[2 + self.channels :].astype(np.float32).reshape(patches, patches, -1) - 0.5)
        turns = 2 * np.pi * self.frequencies[self.targets[index]] / self.size * side
        waves = np.exp(1j * np.stack([turns * np.cos(angle) + phase, turns * np.sin(angle)])).astype(np.complex64)
        stripes = np.multiply.outer(waves[1], waves[0]).real  # cos(angle across + angle down), (H,W)
        patch = side * patches // self.size
        image = noise[patch[:, None], patch]  # (H,W,C), within 127 ± 18.5
        image += stripes[..., None] * amplitude  # ± 90 at the most
        return image.astype(np.uint8)
