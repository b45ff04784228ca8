"""The task of a job on many machines: some files -> one Parquet file of a partitioned dataset, whole or not there.

    OUT/part-000000.parquet     a row an image; in its footer, under "alexnet_np": identity, job, version, failures
    identity                    a digest of the files (names and stamps), the weights, the job and the version

A part's name is a function of its number, its bytes of its files and weights: a task that runs twice, because a worker
was killed or was slow, writes the same again. Readers of datasets pass over names that begin with "_" or ".".
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from alexnet_np.data.recipe import Preprocessing
from alexnet_np.errors import DataError, one_line
from alexnet_np.files import replacing
from alexnet_np.identity import alexnet, labels_of
from alexnet_np.jobs.engine import LOGITS, Compute, Engine, open_engine
from alexnet_np.jobs.finding import Failure
from alexnet_np.jobs.listing import file_system, is_url, read_from
from alexnet_np.jobs.rows import Rows, cut, read_rows
from alexnet_np.ops import softmax
from alexnet_np.threads import alone

KEY = b"alexnet_np"


@dataclass(frozen=True)
class Job:
    """What is the same for every part: enough for a worker that has seen nothing else."""

    kind: str  # "embed", "classify"
    out: str  # a folder, absolute, or an address
    network: str  # the weights' file below it
    digest: str  # of the weights and whatever else decides a row: parts.identity_of
    output: str  # "logits", or a layer
    version: str  # this package's
    top: int = 5
    backend: str | None = None
    batch_size: int = 32
    folder: str = "."  # that relative names are below
    max_pixels: int | None = None  # Pillow's guard

    def identity(self, files: Sequence[str], stamps: Sequence[tuple]) -> str:
        decides = [self.kind, self.digest, self.output, self.version, self.top if self.kind == "classify" else 0]
        return hashlib.sha256(json.dumps([decides, list(zip(files, stamps, strict=True))]).encode()).hexdigest()


class Part(NamedTuple):
    number: int
    files: list[str]
    identity: str

    @property
    def name(self) -> str:
        return f"part-{self.number:06d}.parquet"


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
    engine, idle, labels = engine_of(job, workers)
    compute = idle.get()
    try:
        with alone():  # as many parts as cores are done at once, each on a thread
            chunks = [read(job, files, compute, engine.recipe) for files in cut(part.files, engine.chunk)]
    finally:
        idle.put(compute)
    values = np.concatenate([rows.values for rows in chunks])
    rows = Rows(
        [file for rows in chunks for file in rows.files], values, [bad for rows in chunks for bad in rows.failures]
    )
    put(job.out, part.name, as_parquet(job, part, rows, labels))
    return Written(part.number, len(rows.files), rows.failures)


def read(job: Job, files: Sequence[str], compute: Compute, recipe: Preprocessing) -> Rows:
    return read_rows(files, compute, recipe, partial(read_from, job.folder))


_engines: dict[tuple, tuple[Engine, SimpleQueue, list[str]]] = {}
_opening = Lock()


def engine_of(job: Job, workers: int) -> tuple[Engine, SimpleQueue, list[str]]:
    """The job's network, made ready once in a process, those of its workers that nobody uses, and its labels."""
    key = (job.digest, job.output, job.backend, job.batch_size, workers)
    with _opening:
        if key not in _engines:
            _engines.clear()  # of an earlier job: its weights are not needed any more
            options: dict[str, Any] = {"backend": job.backend, "batch_size": job.batch_size, "workers": workers}
            model = load(job)
            labels = labels_of(model)
            engine = open_engine(model, job.output, images=job.batch_size * workers, forget=True, **options)
            idle: SimpleQueue = SimpleQueue()
            for compute in engine.workers:
                idle.put(compute)
            _engines[key] = engine, idle, labels
        return _engines[key]


def load(job: Job) -> Any:
    if not is_url(job.out):
        return alexnet(None, str(Path(job.out) / job.network))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / job.network
        system, path = file_system(f"{job.out.rstrip('/')}/{job.network}")
        system.get_file(path, str(file))
        return alexnet(None, str(file))


def as_parquet(job: Job, part: Part, rows: Rows, labels: Sequence[str]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    names = [name.encode(errors="backslashreplace").decode() for name in rows.files]  # its strings are valid UTF-8
    columns = {"file": pyarrow.array(names, pyarrow.string()), **COLUMNS[job.kind](job, rows.values, labels)}
    failures = [asdict(failure) for failure in rows.failures]
    about: dict[str, Any] = {"identity": part.identity, "job": job.kind, "version": job.version, "failures": failures}
    about |= {"weights": job.digest, "files": len(part.files)}
    table = pyarrow.table(columns).replace_schema_metadata({KEY: json.dumps(about).encode()})
    buffer = BytesIO()
    parquet.write_table(table, buffer, compression="none")
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


COLUMNS = {"embed": embedding_columns, "classify": label_columns}
OUTPUTS = {"classify": LOGITS}  # embed's is the last hidden layer


# Files below OUT, which is a folder or an address


def put(out: str, name: str, content: bytes) -> None:
    """Whole or not at all: by renaming, or as stores of objects do it by themselves. Raises DataError."""
    try:
        if not is_url(out):
            Path(out).mkdir(parents=True, exist_ok=True)
            with replacing(Path(out) / name) as temporary:
                temporary.write_bytes(content)
            return
        system, path = file_system(f"{out.rstrip('/')}/{name}")
        system.pipe_file(path, content)
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{out}: {name} cannot be written: {error.strerror or one_line(error)}") from None


def about(out: str, name: str) -> dict[str, Any]:
    """What a part's footer says; nothing for what is missing, broken or not ours."""
    from pyarrow import ArrowException, parquet

    try:
        if is_url(out):
            system, path = file_system(f"{out.rstrip('/')}/{name}")
            with system.open(path, "rb") as file:
                return json.loads(parquet.read_metadata(file).metadata[KEY])
        return json.loads(parquet.read_metadata(Path(out) / name).metadata[KEY])
    except (OSError, KeyError, TypeError, ValueError, ArrowException):
        return {}


def drop(out: str, name: str) -> None:
    """Remove a file below OUT, if it is there."""
    if is_url(out):
        system, path = file_system(f"{out.rstrip('/')}/{name}")
        if system.exists(path):
            system.rm_file(path)
    else:
        (Path(out) / name).unlink(missing_ok=True)


def names_in(out: str) -> list[str]:
    """Of the parts that are there, whoever wrote them."""
    if is_url(out):
        system, path = file_system(out)
        found = system.ls(path, detail=False) if system.exists(path) else []
        return sorted(n for f in found if (n := f.rsplit("/", 1)[-1]).startswith("part-") and n.endswith(".parquet"))
    return sorted(file.name for file in Path(out).glob("part-*.parquet"))
