"""The pictures nearest to one, from the parts of an `embed` job: computed where they are missing, then asked.

Each part gives its own nearest; vectors stay where they are read, and names alone come back.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import NamedTuple

import numpy as np

from alexnet_np.identity import recipe_of
from alexnet_np.jobs import store
from alexnet_np.jobs.choosing import HANDFUL
from alexnet_np.jobs.cluster import Cluster, Progress, map_parts, run
from alexnet_np.jobs.dataset import Job
from alexnet_np.jobs.engine import open_engine
from alexnet_np.jobs.listing import Listed, is_url, read_from
from alexnet_np.jobs.nearest import Match, Similar, cosines_of
from alexnet_np.models import AlexNet

TOGETHER = 16  # parts a task: 16 MB of vectors
NAME = ".alexnet-index"  # of the folder of parts, in the folder of pictures; hidden, so that nobody looks into it

Found = list[tuple[float, int, int, str]]  # (-cosine, part, row, file): the nearest first, among equals the first


class Query(NamedTuple):
    """What some parts are asked."""

    picture: str  # left out of what is found
    vector: np.ndarray
    top: int
    parts: list[int]


def similar(
    job: Job,
    model: AlexNet,
    query: str,
    listed: Listed,
    size: int,
    cluster: Cluster,
    *,
    top: int = 10,
    progress: Progress = lambda done: None,
) -> Similar:
    """As `nearest.similar`, its index the parts of `job`, an "embed" one. `model` is good for this alone.

    Raises ImageError for a query that is no picture, DataError, MissingPackageError, BackendError.
    """
    recipe = recipe_of(model)
    pixels = read_from(job.folder, query, recipe)[None]  # before the work of hours
    done = run(job, model, listed, size, cluster, progress)
    engine = open_engine(model, job.output, images=HANDFUL + 1, backend=job.backend, batch_size=1, forget=True)
    numbers = list(range(done.parts))
    vector = engine.workers[0](pixels)[0]
    tasks = [Query(query, vector, top, numbers[i : i + TOGETHER]) for i in range(0, len(numbers), TOGETHER)]
    found: Found = []
    for some in map_parts(job, nearest, tasks, cluster):
        found = sorted(found + some)[:top]
    matches = [Match(file, -cosine) for cosine, _, _, file in found]
    return Similar(matches, done.images, done.kept, done.images - done.kept, done.failures, engine.described())


def nearest(job: Job, query: Query) -> Found:
    """The nearest of some parts: what a worker, or a thread, is asked for. Raises DataError."""
    found: Found = []
    for part in query.parts:
        table = store.read(job.out, store.part_name(part), ("file", "embedding"))
        files, column = table["file"].to_pylist(), table["embedding"].combine_chunks()
        vectors = column.flatten().to_numpy().reshape(len(files), -1)
        cosines = cosines_of(vectors, query.vector) if files else np.empty(0)
        order = iter(np.argsort(-cosines, kind="stable").tolist())
        others = (i for i in order if not same(job.folder, files[i], query.picture))
        found += [(-float(cosines[i]), part, i, files[i]) for i in islice(others, query.top)]
        found = sorted(found)[: query.top]
    return found


def same(folder: str, file: str, query: str) -> bool:
    """Whether two names are of one picture, as far as this machine can tell."""
    if is_url(file) or is_url(query):
        return file == query
    try:
        return os.path.samefile(os.path.join(folder, file), os.path.join(folder, query))  # noqa: PTH118, PTH121
    except OSError:
        return os.path.abspath(os.path.join(folder, file)) == os.path.abspath(os.path.join(folder, query))  # noqa: PTH100, PTH118
