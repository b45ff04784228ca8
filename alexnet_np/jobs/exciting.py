"""Which pictures of a folder excite the units of a layer most, and where: one way through them, in bounded memory.

A unit of a layer of maps is a map: what counts of a picture is its largest number, wherever it lies. Kept are the best
few of each unit and how far the job has come; that is written beside the result every PART pictures, so that a job that
was killed goes on. 0 counts as nothing: after a ReLU it means that the unit was off.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from alexnet_np.errors import DataError, one_line
from alexnet_np.files import replacing
from alexnet_np.identity import recipe_of
from alexnet_np.jobs.embedding import Interrupted, Progress
from alexnet_np.jobs.engine import Compute, open_engine
from alexnet_np.jobs.finding import Failure
from alexnet_np.jobs.parts import PART, identity_of, save, stamp
from alexnet_np.jobs.rows import cut, stream_chunks
from alexnet_np.models import AlexNet

FOUND = np.dtype([("value", np.float32), ("at", np.int64)])  # of one picture and unit: its largest number, and where


@dataclass(frozen=True)
class Best:
    """Of each unit the `top` largest numbers, the largest first: (units, top). -inf where there were not so many."""

    values: np.ndarray  # float32
    files: np.ndarray  # int64: which of the job's files
    places: np.ndarray  # int64: where in the map, row by row

    @classmethod
    def none(cls, units: int, top: int) -> Best:
        shape = units, top
        return cls(np.full(shape, -np.inf, np.float32), np.full(shape, -1), np.zeros(shape, np.int64))

    def with_rows(self, indices: Sequence[int], rows: np.ndarray) -> Best:
        """What is best of these and of `rows` (n, units) of FOUND; of equal numbers the earlier ones."""
        new = np.broadcast_to(np.asarray(indices, np.int64), (rows.shape[1], len(indices)))
        values = np.concatenate([self.values, rows["value"].T], axis=1)
        files, places = np.concatenate([self.files, new], axis=1), np.concatenate([self.places, rows["at"].T], axis=1)
        order = np.argsort(-values, axis=1, kind="stable")[:, : self.values.shape[1]]
        return Best(*(np.take_along_axis(each, order, 1) for each in (values, files, places)))


@dataclass(frozen=True)
class Excited:
    """What a job has found."""

    best: Best
    failures: list[Failure]
    kept: int  # pictures that an earlier job had seen
    engine: dict[str, Any]  # who computed; see Engine.described


def excite(
    model: AlexNet,
    files: Sequence[str],
    layer: str,
    units: Sequence[int],
    out: Path,
    *,
    top: int = 9,
    backend: str | None = None,
    batch_size: int = 32,
    resume: bool = False,
    progress: Progress = lambda done: None,
) -> Excited:
    """Of each of `units` of `layer` the `top` pictures among `files` that excite it most.

    `out`: what is made of it; OUT.state stands beside it until `clear(out)`. See `embed` for `resume`, `backend` and
    `progress`. It is good for the same weights, layer, units and files, and for more files behind those seen.
    Raises ArgumentError, BackendError; DataError where OUT.state is there without `resume`, or cannot be written;
    Interrupted after Ctrl-C.
    """
    of = json.dumps([identity_of(model, layer, recipe_of(model)), list(units), top])
    state = State(out, of, files)
    if state.path.exists() and not resume:
        raise DataError(f"{state.path}: holds what an earlier job has done; go on with --resume, or delete it")
    done, best, failures = state.read() or State.empty(len(units), top)
    kept = done
    progress(done)
    left = files[done:]
    engine = open_engine(model, layer, images=len(left), backend=backend, batch_size=batch_size)
    looking: list[Compute] = [partial(largest, compute=worker, units=np.asarray(units)) for worker in engine.workers]
    chunks = [chunk for part in cut(left, PART) for chunk in cut(part, engine.chunk)]
    saved = done
    try:
        with closing(stream_chunks(chunks, replace(engine, workers=looking))) as made:
            for chunk, rows in zip(chunks, made, strict=True):
                bad = {failure.file for failure in rows.failures}
                good = [done + i for i, file in enumerate(chunk) if file not in bad]
                best, done = best.with_rows(good, rows.values), done + len(chunk)
                failures += rows.failures
                progress(len(chunk))
                if done - saved >= PART:
                    state.write(done, best, failures)
                    saved = done
        if state.path.exists():
            state.write(done, best, failures)  # the sheet is still to be made
    except KeyboardInterrupt:
        if done > kept:
            state.write(done, best, failures)
        raise Interrupted(done, len(files), state.path) from None
    return Excited(best, failures, kept, engine.described())


def largest(x: np.ndarray, compute: Compute, units: np.ndarray) -> np.ndarray:
    """(n, units) of FOUND for some pictures: in each unit's map the largest number, and the first place that has it."""
    y = compute(x)
    maps = y.reshape(len(y), y.shape[1], -1)[:, units]
    found = np.zeros(maps.shape[:2], FOUND)
    if maps.size:
        found["at"] = maps.argmax(2)
        values = np.take_along_axis(maps, found["at"][..., None], 2)[..., 0]
        found["value"] = np.where(np.isnan(values) | (values == 0), -np.inf, values)
    return found


class State:
    """How far a job has come, on the disk: OUT.state, whole or not there."""

    def __init__(self, out: Path, of: str, files: Sequence[str]) -> None:
        """`of`: whatever else than the files decides what is found."""
        self.path = out.with_name(f"{out.name}.state")
        self.of, self.files = of, files
        self._start()

    def _start(self) -> None:
        self._total, self._hashed = hashlib.sha256(self.of.encode()), 0

    @staticmethod
    def empty(units: int, top: int) -> tuple[int, Best, list[Failure]]:
        """Nothing was seen."""
        return 0, Best.none(units, top), []

    def read(self) -> tuple[int, Best, list[Failure]] | None:
        """How many files were seen, and what was found; None where that is of other files or weights, or not there."""
        try:
            with safe_open(self.path, "np") as file:
                about = json.loads(file.metadata()["about"])
                best = Best(*(file.get_tensor(name) for name in ("values", "files", "places")))
            done, failures = int(about["done"]), [Failure(**failure) for failure in about["failures"]]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None
        if done <= len(self.files) and about["identity"] == self._identity(done):
            return done, best, failures
        self._start()
        return None

    def write(self, done: int, best: Best, failures: Sequence[Failure]) -> None:
        """Raises DataError."""
        listed = [asdict(failure) for failure in failures]
        about = {"identity": self._identity(done), "done": done, "failures": listed}
        arrays = {name: np.ascontiguousarray(array) for name, array in vars(best).items()}
        try:
            with replacing(self.path) as temporary:
                save(arrays, temporary, about)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written: {error.strerror or one_line(error)}") from error

    def _identity(self, done: int) -> str:
        """Of the first `done` files, never fewer than before: each is looked at once, however often it is asked."""
        for file in self.files[self._hashed : done]:
            self._total.update(json.dumps([file, *stamp(file)]).encode())
        self._hashed = done
        return self._total.copy().hexdigest()


def clear(out: Path) -> None:
    """The result is there: drop OUT.state, and what a process that was killed while it wrote has left."""
    out.with_name(f"{out.name}.state").unlink(missing_ok=True)
    for abandoned in out.parent.glob(f".{glob.escape(out.name)}*.part"):
        abandoned.unlink(missing_ok=True)
