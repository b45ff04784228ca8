"""Images as vectors, into a file: streamed, in bounded memory, and going on after a kill."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.errors import DataError, one_line
from alexnet_np.identity import recipe_of
from alexnet_np.jobs import residence
from alexnet_np.jobs.engine import Engine, open_engine
from alexnet_np.jobs.finding import Failure
from alexnet_np.jobs.parts import PART, Parts, identity_of
from alexnet_np.jobs.rows import Rows, cut, joined, stream_chunks
from alexnet_np.jobs.vectors import Vectors, check_output, write
from alexnet_np.layers import Linear
from alexnet_np.models import AlexNet
from alexnet_np.text import counted

Progress = Callable[[int], None]  # how many images more are done


@dataclass(frozen=True)
class Embedded:
    """What a job has written: nothing where no file could be read."""

    files: list[str]
    failures: list[Failure]
    features: int
    kept: int  # images whose vectors an earlier job had left
    engine: dict[str, Any]  # who computed; see Engine.described


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after which `kept` of `images` are in `folder`."""

    def __init__(self, kept: int, images: int, folder: Path) -> None:
        super().__init__(
            f"{kept} of {counted(images, 'image')} are kept in {folder}; the same command with --resume goes on"
        )


def embedding_name(model: AlexNet) -> str:
    """The last hidden layer with what follows it up to dropout: torchvision's classifier[:6]."""
    dense = [i for i, layer in enumerate(model.classifier) if isinstance(layer, Linear)]
    return f"classifier.{dense[-2] + 1}"


def embed(
    model: AlexNet,
    files: Sequence[str],
    out: Path,
    *,
    backend: str | None = None,
    batch_size: int = 32,
    resume: bool = False,
    forget: bool = False,
    progress: Progress = lambda done: None,
) -> Embedded:
    """Write the vector of every image in `files` that can be read to `out`: .npy, .npz or .parquet (vectors.py).

    What is done stands in OUT.parts until `out` is whole; with `resume` only what is missing there, or was made of
    other files or weights, is computed; and nothing where `out` itself is of these files and weights, as OUT.done.json
    says. A job of a single part keeps none of this. `backend`: see `choose`; `forget`: see
    `open_engine`; `progress` is told how many images more are done.
    Raises ArgumentError, MissingPackageError, BackendError; DataError where nothing can be written, or where OUT.parts
    is there without `resume`; Interrupted after Ctrl-C.
    """
    check_output(out)
    output, pieces = embedding_name(model), cut(files, PART)
    many = len(pieces) > 1
    parts = Parts(out, identity_of(model, output, recipe_of(model)) if many else "")
    if parts.folder.exists() and not resume:
        raise DataError(f"{parts.folder}: holds what an earlier job has done; go on with --resume, or delete it")
    if many and resume and (was := parts.finished(files)) is not None:
        progress(len(files))
        return already_there(files, *was)
    todo = [i for i, files in enumerate(pieces) if not (many and parts.has(i, files))]
    missing = sum(len(pieces[i]) for i in todo)
    kept = len(files) - missing
    progress(kept)
    engine = open_engine(model, output, images=missing, backend=backend, batch_size=batch_size, forget=forget)
    store: Any = parts if many else Memory()
    try:
        with closing(compute(pieces, todo, engine, progress)) as made:
            for i, rows in made:
                store.write(i, pieces[i], rows)
                residence.trim()  # else it grows by 15 MB a thousand images, of pieces between those in use
        by = engine.described()
        del engine, made  # the vectors are read again, and no weights are needed for it
        listed = [store.names(i) for i in range(len(pieces))]
        names = [name for good, _ in listed for name in good]
        features = store.values(0).shape[1] if pieces else 0
        if names:
            write(out, Vectors(names, features, (store.values(i) for i in range(len(pieces)))))
        failures = [failure for _, bad in listed for failure in bad]
        if many and names:
            parts.finish(files, features, failures)
        else:
            parts.clear()
    except KeyboardInterrupt:
        done = sum(len(files) for i, files in enumerate(pieces) if many and parts.has(i, files))
        raise Interrupted(done, len(files), parts.folder) from None
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{out}: cannot be written: {error.strerror or one_line(error)}") from error
    return Embedded(names, failures, features, kept, by)


def already_there(files: Sequence[str], features: int, failures: list[Failure]) -> Embedded:
    """What an earlier job has written, where this one has nothing to do."""
    bad = {failure.file for failure in failures}
    nobody = {"engine": "none", "backend": "none", "why": "an earlier job has done it all", "workers": 0, "chunk": 0}
    return Embedded([file for file in files if file not in bad], failures, features, len(files), nobody)


class Memory:
    """What stands in for Parts where there is only one: a few megabytes, and nothing to go on from."""

    def __init__(self) -> None:
        self.rows: dict[int, Rows] = {}

    def write(self, index: int, files: Sequence[str], rows: Rows) -> None:
        self.rows[index] = rows

    def names(self, index: int) -> tuple[list[str], list[Failure]]:
        return self.rows[index].files, self.rows[index].failures

    def values(self, index: int) -> np.ndarray:
        return self.rows[index].values


def compute(
    pieces: Sequence[Sequence[str]], todo: Sequence[int], engine: Engine, progress: Progress
) -> Generator[tuple[int, Rows]]:
    """(i, rows of pieces[i]) for every i in `todo`; the workers go on from one piece to the next without waiting."""
    chunks = {i: cut(pieces[i], engine.chunk) for i in todo}
    with closing(stream_chunks((chunk for i in todo for chunk in chunks[i]), engine)) as made:
        for i in todo:
            gathered = []
            for chunk in chunks[i]:
                gathered.append(next(made))
                progress(len(chunk))
            yield i, joined(gathered)
