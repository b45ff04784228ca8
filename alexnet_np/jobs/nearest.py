"""The pictures nearest to one, by the cosine of their vectors, from an index of a folder that is kept up to date.

    index      a safetensors file: `vectors` (n, features) float32; in its metadata the network (identity_of) and every
               file by its path below the folder, with its size and time
    update     files that are new or have another size or time are computed, those that are gone leave; of another
               network nothing is kept
    nearest    cos(a, b) = a·b / (|a| |b|), in float32

The index is written after every `KEPT` new pictures and at the end, whole or not at all: a job that is stopped or
killed goes on where it was. It is held in memory, 16 KB a picture.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from alexnet_np.data.preprocess import read_image
from alexnet_np.errors import DataError, one_line
from alexnet_np.files import replacing
from alexnet_np.identity import recipe_of
from alexnet_np.jobs.embedding import embedding_name
from alexnet_np.jobs.engine import Engine, open_engine
from alexnet_np.jobs.finding import Failure
from alexnet_np.jobs.parts import identity_of, save, stamp
from alexnet_np.jobs.rows import Rows, stream
from alexnet_np.models import AlexNet

NAME = ".alexnet-index.safetensors"  # in the folder; hidden, so that nobody takes it for a picture
KEPT = 2048  # new pictures between two writings

Progress = Callable[[int], None]


class Match(NamedTuple):
    """A picture and how near it is: the cosine of the angle between its vector and the query's, 1 for the same."""

    file: str
    cosine: float


@dataclass
class Index:
    """What is known of a folder's files: row i of `vectors` is of the i-th of `files`. Paths are below the folder."""

    of: str  # the network
    files: dict[str, tuple[int, ...]] = field(default_factory=dict)  # path -> stamp
    vectors: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    failures: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)  # path -> stamp, what is wrong

    @classmethod
    def read(cls, path: Path, of: str) -> Index:
        """What stands in `path`; an empty one where it is missing, damaged, or of another network."""
        try:
            with safe_open(path, "np") as file:
                about = json.loads(file.metadata()["about"])
                if about["of"] != of:
                    return cls(of)
                files = {name: tuple(at) for name, at in about["files"].items()}
                failures = {name: (tuple(at), said) for name, (at, said) in about["failures"].items()}
                vectors = file.get_tensor("vectors")
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError):
            return cls(of)
        return cls(of, files, vectors, failures) if len(vectors) == len(files) else cls(of)

    def write(self, path: Path) -> None:
        """Raises DataError."""
        about = {"of": self.of, "files": self.files, "failures": self.failures}
        try:
            with replacing(path) as temporary:
                save({"vectors": np.ascontiguousarray(self.vectors)}, temporary, about)
        except OSError as error:
            raise DataError(
                f"{path}: the index cannot be written: {error.strerror or one_line(error)}; name another place with "
                "--index"
            ) from error

    def missing(self, stamps: dict[str, tuple[int, ...]]) -> list[str]:
        """Which of these are new, or not what they were."""
        known = self.files | {name: at for name, (at, _) in self.failures.items()}
        return [name for name, at in stamps.items() if known.get(name) != at]

    def keep(self, stamps: dict[str, tuple[int, ...]]) -> bool:
        """Forget every file that is gone or is not what it was. Returns whether there was any."""
        before = len(self.files) + len(self.failures)
        rows = [i for i, (name, at) in enumerate(self.files.items()) if stamps.get(name) == at]
        if len(rows) < len(self.files):
            self.vectors = self.vectors[rows]
            names = list(self.files)
            self.files = {names[i]: self.files[names[i]] for i in rows}
        self.failures = {name: (at, said) for name, (at, said) in self.failures.items() if stamps.get(name) == at}
        return len(self.files) + len(self.failures) < before

    def add(self, rows: Sequence[Rows], stamps: dict[str, tuple[int, ...]], folder: Path) -> None:
        made = [each.values for each in rows if len(each.values)]
        self.vectors = np.concatenate([self.vectors, *made] if self.files else made) if made else self.vectors
        for each in rows:
            self.files |= {name: stamps[name] for name in (below(file, folder) for file in each.files)}
            for failure in each.failures:
                name = below(failure.file, folder)
                self.failures[name] = stamps[name], failure.error


@dataclass(frozen=True)
class Similar:
    """The nearest first. `kept` of the vectors were in the index, `computed` were not."""

    matches: list[Match]
    images: int
    kept: int
    computed: int
    failures: list[Failure]
    engine: dict[str, Any]


def similar(
    model: AlexNet,
    query: str,
    folder: Path,
    files: Sequence[str],
    *,
    top: int = 10,
    index: Path | None = None,
    backend: str | None = None,
    batch_size: int = 32,
    progress: Progress = lambda done: None,
) -> Similar:
    """The `top` of `files` whose vectors point where the query's does. The query is left out.

    Those in `folder` are known by their paths below it, others by their whole paths; one that is named twice counts
    once. `index`: the file to keep the vectors in, FOLDER/.alexnet-index.safetensors by default. `backend`: see
    `choose`; `progress` is told how many images more are done.
    Raises ImageError for a query that is no picture, DataError where the index cannot be written, BackendError.
    """
    read_image(query)  # before the work of hours
    output, place = embedding_name(model), index or folder / NAME
    known = Index.read(place, identity_of(model, output, recipe_of(model)))
    stamps = {below(file, folder): stamp(file) for file in files}
    changed = known.keep(stamps)
    todo = [str(folder / name) for name in known.missing(stamps)]
    engine = open_engine(model, output, images=len(todo) + 1, backend=backend, batch_size=batch_size, forget=True)
    if todo or changed:
        known.write(place)  # where it cannot be, that is said now and not after the work
    progress(len(stamps) - len(todo))
    if todo:
        _compute(known, todo, engine, stamps, folder, place, progress)
    (mine,) = stream([query], engine)
    paths = [folder / name for name in known.files]
    cosines = cosines_of(known.vectors, mine.values[0])
    order = [i for i in np.argsort(-cosines, kind="stable").tolist() if not _same(paths[i], query)]
    matches = [Match(str(paths[i]), float(cosines[i])) for i in order[:top]]
    failures = [Failure(str(folder / name), said) for name, (_, said) in known.failures.items()]
    return Similar(matches, len(paths), len(stamps) - len(todo), len(todo), failures, engine.described())


def _compute(
    known: Index,
    todo: Sequence[str],
    engine: Engine,
    stamps: dict[str, tuple[int, ...]],
    folder: Path,
    place: Path,
    progress: Progress,
) -> None:
    """Put what is missing into the index, and write it, the part that is done where this is stopped."""
    waiting: list[Rows] = []

    def keep() -> None:
        known.add(waiting, stamps, folder)
        waiting.clear()
        known.write(place)

    try:
        with closing(stream(todo, engine)) as made:
            for rows in made:
                waiting.append(rows)
                progress(len(rows.files) + len(rows.failures))
                if sum(len(each.files) for each in waiting) >= KEPT:
                    keep()
    finally:
        keep()


def cosines_of(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(n,) float32 of vectors (n, features); a vector of zeros is at right angles to everything.

    Each from its own row alone, in one order: a BLAS would sum by how many rows there are.
    """
    lengths = np.sqrt(np.einsum("nf,nf->n", vectors, vectors)) * np.sqrt(query @ query)
    products = np.einsum("nf,f->n", vectors, query)
    return np.divide(products, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def below(file: str, folder: Path) -> str:
    """By what a file is known: its path below `folder`, which may move so; of one elsewhere the whole path."""
    path = os.path.relpath(file, folder)
    return str(Path(file).absolute()) if path.startswith(os.pardir) else path


def _same(path: Path, query: str) -> bool:
    try:
        return path.samefile(query)
    except OSError:
        return False


def to_json(found: Similar) -> dict[str, Any]:
    matches = [match._asdict() for match in found.matches]
    counts = {"images": found.images, "kept": found.kept, "computed": found.computed}
    return {"matches": matches, **counts, "failures": [asdict(failure) for failure in found.failures]}
