"""The task of a job: some files -> a row for each that can be read."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from alexnet_np.data.preprocess import read_pixels
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.errors import ImageError
from alexnet_np.jobs.engine import Compute, Engine
from alexnet_np.jobs.finding import Failure, failed
from alexnet_np.jobs.workers import in_order

Read = Callable[[str, Preprocessing], np.ndarray]


class Rows(NamedTuple):
    """What became of some files: row i of `values` is that of files[i]."""

    files: list[str]
    values: np.ndarray  # (len(files), features)
    failures: list[Failure]


def read_rows(files: Sequence[str], compute: Compute, recipe: Preprocessing, read: Read = read_pixels) -> Rows:
    """Decode the files and compute their rows. A pure function of files and weights: it may run anywhere, or twice.

    `read`: of a file that is not on this machine.
    """
    pixels = np.empty((len(files), recipe.crop, recipe.crop, recipe.channels), np.uint8)
    good: list[str] = []
    failures = []
    for file in files:
        try:
            pixels[len(good)] = read(file, recipe)
            good.append(file)
        except ImageError as error:
            failures.append(failed(file, error))
    return Rows(good, compute(pixels[: len(good)]), failures)


def stream(files: Sequence[str], engine: Engine) -> Generator[Rows]:
    """The rows of all files, chunk by chunk in their order, computed by all workers at once."""
    return stream_chunks(cut(files, engine.chunk), engine)


def stream_chunks(chunks: Iterable[Sequence[str]], engine: Engine) -> Generator[Rows]:
    """The rows of each chunk of files, which has at most `engine.chunk` of them."""
    workers = [partial(read_rows, compute=compute, recipe=engine.recipe) for compute in engine.workers]
    return in_order(chunks, workers)


def cut(files: Sequence[str], size: int) -> list[Sequence[str]]:
    return [files[start : start + size] for start in range(0, len(files), size)]


def joined(found: Sequence[Rows]) -> Rows:
    """The rows of several chunks as those of one."""
    values = np.concatenate([rows.values for rows in found])
    return Rows([f for rows in found for f in rows.files], values, [f for rows in found for f in rows.failures])
