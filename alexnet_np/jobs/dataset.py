"""The task of a job on many machines: some files -> one Parquet file of a partitioned dataset, whole or not there.

    OUT/part-000000.parquet     a row an image; in its footer, under "alexnet_np": identity, job, version, failures
    identity                    a digest of the files (names and stamps), the weights, the job and the version

A part's name is a function of its number, its bytes of its files and weights: a task that runs twice, because a worker
was killed or was slow, writes the same again. Readers of datasets pass over names that begin with "_" or ".".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from queue import SimpleQueue
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from alexnet_np.identity import labels_of
from alexnet_np.jobs import store
from alexnet_np.jobs.engine import LOGITS, Compute, Engine, open_engine
from alexnet_np.jobs.finding import Failure
from alexnet_np.jobs.listing import read_from
from alexnet_np.jobs.rows import Rows, joined, read_rows
from alexnet_np.jobs.scoring import CROPS, judge_files
from alexnet_np.ops import softmax
from alexnet_np.threads import alone


@dataclass(frozen=True)
class Job:
    """What is the same for every part: enough for a worker that has seen nothing else."""

    kind: str  # "embed", "classify", "evaluate"
    out: str  # a folder, absolute, or an address
    network: str  # the weights' file below it
    digest: str  # of the weights and whatever else decides a row: parts.identity_of
    output: str  # "logits", or a layer
    version: str  # this package's
    dtype: str = "float32"
    top: int = 5  # of classify
    ten_crop: bool = False  # of evaluate
    backend: str | None = None
    batch_size: int = 32
    folder: str = "."  # that relative names are below
    max_pixels: int | None = None  # Pillow's guard

    def identity(self, files: Sequence[str], stamps: Sequence[tuple], targets: Sequence[int]) -> str:
        own = {"classify": self.top, "evaluate": [self.ten_crop, list(targets)]}.get(self.kind, 0)
        decides = [self.kind, self.digest, self.output, self.version, own]
        return hashlib.sha256(json.dumps([decides, list(zip(files, stamps, strict=True))]).encode()).hexdigest()


class Part(NamedTuple):
    number: int
    files: list[str]
    identity: str
    targets: list[int]  # the files' classes, where there is something to hold against them

    @property
    def name(self) -> str:
        return store.part_name(self.number)


class Written(NamedTuple):
    """What became of a part."""

    number: int
    images: int
    failures: list[Failure]


def do_part(job: Job, part: Part, workers: int = 1) -> Written:
    """Compute a part and write it, on whatever machine. `workers`: how many parts this process does at once.

    Raises DataError where it cannot be written.
    """
    Image.MAX_IMAGE_PIXELS = job.max_pixels
    with alone() if workers == 1 else nullcontext():  # its neighbours make theirs ready at the same time
        engine, idle, labels = engine_of(job, workers)
    compute = idle.get()
    try:
        with alone():  # as many parts as cores are done at once, each on a thread
            size = max(1, engine.chunk // (CROPS if job.ten_crop else 1))
            firsts = range(0, len(part.files), size)
            rows = joined([rows_of(job, part, slice(i, i + size), compute, engine) for i in firsts])
    finally:
        idle.put(compute)
    store.put(job.out, part.name, as_parquet(job, part, rows, labels))
    return Written(part.number, len(rows.files), rows.failures)


def rows_of(job: Job, part: Part, some: slice, compute: Compute, engine: Engine) -> Rows:
    files, read = part.files[some], partial(read_from, job.folder)
    if job.kind == "evaluate":
        return judge_files(files, part.targets[some], compute, engine, job.ten_crop, read)
    return read_rows(files, compute, engine.recipe, read)


_engines: dict[tuple, tuple[Engine, SimpleQueue, list[str]]] = {}
_opening = Lock()


def engine_of(job: Job, workers: int) -> tuple[Engine, SimpleQueue, list[str]]:
    """The job's network, made ready once in a process, those of its workers that nobody uses, and its labels."""
    key = (job.digest, job.output, job.backend, job.batch_size, workers)
    with _opening:
        if key not in _engines:
            _engines.clear()  # of an earlier job: its weights are not needed any more
            options: dict[str, Any] = {"backend": job.backend, "batch_size": job.batch_size, "workers": workers}
            model = store.get_network(job.out, job.network, job.dtype)
            labels = labels_of(model)
            engine = open_engine(model, job.output, images=job.batch_size * workers, forget=True, **options)
            idle: SimpleQueue = SimpleQueue()
            for compute in engine.workers:
                idle.put(compute)
            _engines[key] = engine, idle, labels
        return _engines[key]


def as_parquet(job: Job, part: Part, rows: Rows, labels: Sequence[str]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    names = [name.encode(errors="backslashreplace").decode() for name in rows.files]  # its strings are valid UTF-8
    columns = {"file": pyarrow.array(names, pyarrow.string()), **COLUMNS[job.kind](job, rows.values, labels)}
    failures = [asdict(failure) for failure in rows.failures]
    about: dict[str, Any] = {"identity": part.identity, "job": job.kind, "version": job.version, "failures": failures}
    about |= {"weights": job.digest, "files": len(part.files)}
    table = pyarrow.table(columns).replace_schema_metadata({store.KEY: json.dumps(about).encode()})
    buffer = BytesIO()
    parquet.write_table(table, buffer, compression="none", use_dictionary=["file"])  # of numbers that hardly recur
    return buffer.getvalue()


def embedding_columns(job: Job, values: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    import pyarrow

    flat = pyarrow.array(np.ascontiguousarray(values, np.float32).ravel())
    return {"embedding": pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])}


def label_columns(job: Job, values: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    import pyarrow

    probabilities = softmax.forward(values)[0]
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, : job.top]
    chosen = np.take_along_axis(probabilities, order, 1)
    return {
        "labels": pyarrow.array([[labels[i] for i in row] for row in order], pyarrow.list_(pyarrow.string())),
        "classes": pyarrow.array(order.tolist(), pyarrow.list_(pyarrow.int32())),
        "probabilities": pyarrow.array(chosen.tolist(), pyarrow.list_(pyarrow.float32())),
    }


def judged_columns(job: Job, values: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    import pyarrow

    target, predicted, score, in_top5 = values.T
    return {
        "class": pyarrow.array(target.astype(np.int32)),
        "predicted": pyarrow.array(predicted.astype(np.int32)),
        "log_probability": pyarrow.array(score),  # of the class
        "in_top5": pyarrow.array(in_top5.astype(bool)),
    }


COLUMNS = {"embed": embedding_columns, "classify": label_columns, "evaluate": judged_columns}
OUTPUTS = {"classify": LOGITS, "evaluate": LOGITS}  # embed's is the last hidden layer
