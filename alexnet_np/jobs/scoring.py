"""Logits of images whose classes are known, computed by all workers at once: what an evaluation is made of."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

import numpy as np

from alexnet_np.data import draws
from alexnet_np.data.augment import Augment
from alexnet_np.data.dataset import Dataset
from alexnet_np.jobs.engine import Compute, Engine
from alexnet_np.jobs.workers import in_order


def stream_logits(dataset: Dataset, augment: Augment, engine: Engine) -> Generator[tuple[np.ndarray, np.ndarray]]:
    """(logits, classes) of all images in their order, some at a time: (n,classes), or (n,crops,classes); (n,) int64.

    Raises ImageError at the image that cannot be read.
    """
    crops = augment.shape[0] if len(augment.shape) == 4 else 1
    size = max(1, engine.chunk // crops)
    chunks = [np.arange(len(dataset.targets))[first : first + size] for first in range(0, len(dataset.targets), size)]

    def work(indices: np.ndarray, compute: Compute) -> tuple[np.ndarray, np.ndarray]:
        x = np.empty((len(indices), *augment.shape), np.float32)
        u = draws.uniforms(0, draws.AUGMENT, 0, indices, augment.draws)
        for index, numbers, row in zip(indices, u, x, strict=True):
            augment(dataset.pixels(int(index)), numbers, row)
        flat = x.reshape(-1, *x.shape[-3:])
        parts = [compute(flat[first : first + engine.chunk]) for first in range(0, len(flat), engine.chunk)]
        logits = np.concatenate(parts)
        return logits.reshape(*x.shape[:-3], -1), dataset.targets[indices]

    return in_order(chunks, [partial(work, compute=compute) for compute in engine.workers])
