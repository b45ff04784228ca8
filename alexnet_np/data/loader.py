"""Batches for training and evaluation, made in the background, in an order that the seed alone decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from alexnet_np.data import draws
from alexnet_np.data.augment import Augment
from alexnet_np.data.background import batches_in_background
from alexnet_np.data.dataset import Dataset
from alexnet_np.data.preprocess import float_dtype
from alexnet_np.data.recipe import positive
from alexnet_np.errors import ArgumentError


class Loader:
    """Batches of `dataset`, each image through `augment`, decoded and augmented ahead by `workers` threads.

    The batches of an epoch are a pure function of (seed, epoch): the number of workers changes nothing, and an epoch
    can be entered at any batch. `waited` and `elapsed` are the seconds that the consumer waited for data, and that
    passed in all, since the last epoch was begun. `rows`: of a batch of so many samples, those whose images are made
    here, as one of several processes that share each batch; the targets are of all.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        augment: Augment,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 2,
        drop_last: bool = False,
        dtype: Any = "float32",
        rows: Callable[[int], slice] | None = None,
    ) -> None:
        self.dataset, self.augment, self.dtype = dataset, augment, float_dtype(dtype)
        self.batch_size, self.workers = positive("batch_size", batch_size), positive("workers", workers)
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self.rows = rows or slice
        self.waited = self.elapsed = 0.0

    def __len__(self) -> int:
        """Batches in an epoch."""
        samples = len(self.dataset.targets)
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def epoch(self, epoch: int, start_batch: int = 0) -> Generator[tuple[np.ndarray, np.ndarray]]:
        """The batches of one epoch, from `start_batch` on: x (N, *augment.shape), or its `rows`, target (N,) int64.

        Raises ImageError, at its batch, for an image that cannot be read.
        """
        if not 0 <= start_batch <= len(self):
            raise ArgumentError(f"start_batch must be between 0 and {len(self)}, got {start_batch!r}")
        return self._run(epoch, start_batch)

    def _run(self, epoch: int, start_batch: int) -> Generator[tuple[np.ndarray, np.ndarray]]:
        begun = time.perf_counter()
        self.waited = self.elapsed = 0.0
        samples = len(self.dataset.targets)
        order = draws.permutation(self.seed, draws.SHUFFLE, epoch, samples) if self.shuffle else np.arange(samples)
        starts = range(start_batch * self.batch_size, len(self) * self.batch_size, self.batch_size)
        batches: list[Any] = [order[start : start + self.batch_size] for start in starts]

        leaders = np.empty(samples, np.int64)  # of every image the first of those that go together with it
        together = getattr(self.augment, "together", 1)
        augment = self.augment.in_epoch(epoch) if hasattr(self.augment, "in_epoch") else self.augment
        leaders[order] = order[np.arange(samples) // together * together]

        def fill(indices: Sequence[int], rows: np.ndarray) -> tuple:
            u = draws.uniforms(self.seed, draws.AUGMENT, epoch, indices, self.augment.draws)
            if together > 1:
                shared = self.augment.shared  # type: ignore[attr-defined]
                u[:, :shared] = draws.uniforms(self.seed, draws.AUGMENT, epoch, leaders[indices], shared)
            for index, numbers, row in zip(indices, u, rows, strict=True):
                augment(self.dataset.pixels(int(index)), numbers, row)
            return ()

        parts = [indices[self.rows(len(indices))] for indices in batches]

        def allocate(size: int) -> np.ndarray:
            return np.empty((size, *self.augment.shape), self.dtype)

        with closing(batches_in_background(parts, allocate, fill, self.workers)) as made:
            for indices in batches:
                asked = time.perf_counter()
                _, x, _ = next(made)
                self.waited += time.perf_counter() - asked
                self.elapsed = time.perf_counter() - begun
                yield x, self.dataset.targets[indices]
                self.elapsed = time.perf_counter() - begun
