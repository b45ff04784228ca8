"""What a job has done so far, on the disk: a file for every part of its images, whole or not there.

A part is a pure function of (files, weights) and says of which it is: done twice it is the same, and whoever goes on
leaves out those that are there. It holds the bytes of its files by their names, sizes and times, not by their contents.
"""

from __future__ import annotations

import glob
import hashlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from alexnet_np import threads
from alexnet_np.files import replacing
from alexnet_np.jobs.finding import Failure
from alexnet_np.jobs.rows import Rows
from alexnet_np.models import AlexNet
from alexnet_np.weights.formats import safetensors_file

PART = 256  # images: 4 MB of vectors; what a job that is killed loses, and the most that a batch can hold
PIECE = 2**24  # bytes of weights that a thread digests at a time


class Parts:
    """The parts of the job whose result will be `out`, in the folder OUT.parts beside it."""

    def __init__(self, out: Path, of: str) -> None:
        """`of`: whatever else than the files decides what is computed; see `identity_of`."""
        self.out, self.of = out, of
        self.folder = out.with_name(f"{out.name}.parts")

    def clear(self) -> None:
        """Drop all parts, and what a process that was killed while it wrote the result has left."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        for abandoned in self.out.parent.glob(f".{glob.escape(self.out.name)}.*.part"):
            abandoned.unlink(missing_ok=True)

    def has(self, index: int, files: Sequence[str]) -> bool:
        """Whether the part of these files is there and whole."""
        return self._about(index).get("identity") == self._identity(files)

    def write(self, index: int, files: Sequence[str], rows: Rows) -> None:
        failures = [asdict(failure) for failure in rows.failures]
        about = {"identity": self._identity(files), "files": rows.files, "failures": failures}
        self.folder.mkdir(exist_ok=True)
        with replacing(self._path(index)) as temporary:
            save({"rows": np.ascontiguousarray(rows.values)}, temporary, about)

    def names(self, index: int) -> tuple[list[str], list[Failure]]:
        """The files that could be read, and the others."""
        about = self._about(index)
        return about["files"], [Failure(**failure) for failure in about["failures"]]

    def values(self, index: int) -> np.ndarray:
        with safe_open(self._path(index), "np") as file:
            return file.get_tensor("rows")

    def _path(self, index: int) -> Path:
        return self.folder / f"part-{index:06d}.safetensors"

    def _about(self, index: int) -> dict[str, Any]:
        try:
            with safe_open(self._path(index), "np") as file:
                return json.loads(file.metadata()["about"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return {}

    def _identity(self, files: Sequence[str]) -> str:
        return hashlib.sha256(json.dumps([self.of, [[file, *stamp(file)] for file in files]]).encode()).hexdigest()

    # When the result is whole: what it was made of, so that nobody makes it again.

    @property
    def record(self) -> Path:
        return self.out.with_name(f"{self.out.name}.done.json")

    def _result(self) -> list[list[int]]:
        """Size and time of the result, and of the names beside it where those have a file of their own."""
        return [list(stamp(str(file))) for file in (self.out, self.out.with_name(f"{self.out.name}.txt"))]

    def finish(self, files: Sequence[str], features: int, failures: Sequence[Failure]) -> None:
        """Say that the result is there, of these files; then drop the parts."""
        about = {"identity": self._identity(files), "result": self._result(), "features": features}
        about["failures"] = [asdict(failure) for failure in failures]
        with replacing(self.record) as temporary:
            temporary.write_text(json.dumps(about), encoding="utf-8")
        self.clear()

    def finished(self, files: Sequence[str]) -> tuple[int, list[Failure]] | None:
        """How long the vectors are and which files failed, where the result is there as `finish` left it."""
        try:
            about = json.loads(self.record.read_text(encoding="utf-8"))
            same = about["identity"] == self._identity(files) and about["result"] == self._result()
            return (
                (about["features"], [Failure(**one) for one in about["failures"]])
                if same and self.out.exists()
                else None
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def save(tensors: dict[str, np.ndarray], path: Path, about: dict[str, Any]) -> None:
    """A safetensors file with `about` in its metadata. Raises OSError."""
    safetensors_file.save(path, tensors, {"about": json.dumps(about)})


def stamp(file: str) -> tuple[int, ...]:
    """A file's size and time; nothing for one that cannot be asked."""
    try:
        status = Path(file).stat()
    except (OSError, ValueError):
        return ()
    return status.st_size, status.st_mtime_ns


def identity_of(model: AlexNet, output: str, recipe: Any) -> str:
    """What decides a row beside its file: the layers, every weight, the recipe, and which output it is."""
    layers = [(name, repr(layer)) for name, layer in model.leaves()]
    total = hashlib.sha256(repr([output, tuple(recipe), layers]).encode())
    arrays = {name: np.ascontiguousarray(array) for name, array in model.state_dict().items()}
    pieces = [piece for array in arrays.values() for piece in cut_bytes(array)]
    total.update(repr([(name, array.dtype, array.shape) for name, array in arrays.items()]).encode())
    with ThreadPoolExecutor(threads.get_num_threads()) as pool:
        for digest in pool.map(lambda piece: hashlib.sha256(piece).digest(), pieces):
            total.update(digest)
    return total.hexdigest()


def cut_bytes(array: np.ndarray) -> list[memoryview]:
    """An array's bytes as pieces that several threads digest at once."""
    whole = array.reshape(-1).view(np.uint8).data
    return [whole[first : first + PIECE] for first in range(0, len(whole), PIECE)]
