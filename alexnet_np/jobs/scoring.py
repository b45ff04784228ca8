"""Logits of images whose classes are known, computed by all workers at once: what an evaluation is made of."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial

import numpy as np

from alexnet_np.data import draws
from alexnet_np.data.augment import Augment, CenterCrop, TenCrop
from alexnet_np.data.dataset import Dataset
from alexnet_np.errors import ImageError
from alexnet_np.jobs.engine import Compute, Engine
from alexnet_np.jobs.finding import failed
from alexnet_np.jobs.rows import Read, Rows
from alexnet_np.jobs.workers import in_order
from alexnet_np.training.evaluation import judge, logits_of

CROPS = 10  # of the paper's evaluation


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
        return logits_of(by_chunks(compute, engine.chunk), x), dataset.targets[indices]

    return in_order(chunks, [partial(work, compute=compute) for compute in engine.workers])


def judge_files(
    files: Sequence[str], targets: Sequence[int], compute: Compute, engine: Engine, ten_crop: bool, read: Read
) -> Rows:
    """What `judge` says of each file that can be read: rows of (target, predicted, score, in the top five), float64.

    A pure function of files and weights, as `read_rows`, with the numbers of `stream_logits`.
    """
    recipe = engine.recipe
    augment: Augment = TenCrop(recipe) if ten_crop else CenterCrop(recipe)
    x = np.empty((len(files), *augment.shape), np.float32)
    good: list[int] = []
    failures = []
    for i, file in enumerate(files):
        try:
            augment(read(file, recipe._replace(crop=recipe.resize)), np.empty(0), x[len(good)])
            good.append(i)
        except ImageError as error:
            failures.append(failed(file, error))
    if not good:
        return Rows([], np.empty((0, 4)), failures)
    logits = logits_of(by_chunks(compute, engine.chunk), x[: len(good)])
    judged = judge(logits, np.array([targets[i] for i in good], np.int64))
    return Rows([files[i] for i in good], np.stack(judged, axis=1).astype(np.float64), failures)


def by_chunks(compute: Compute, most: int) -> Compute:
    """`compute` of at most `most` images at a time."""
    return lambda x: np.concatenate([compute(x[first : first + most]) for first in range(0, len(x), most)])
