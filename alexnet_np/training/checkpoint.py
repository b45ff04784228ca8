"""Checkpoints: one safetensors file each, which is whole or not there.

    step-00000938.safetensors
        tensors    the parameters, by name; momentum.NAME: the optimizer's buffers
        metadata   JSON: the network, everything else that the rest of the run depends on, and a checksum of all of it

A file is written under a temporary name, brought to the disk and then renamed, so that whenever the process or the
machine dies, what stands under the last name is a whole checkpoint. The checksum notices what happens to it later.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.device import to_cpu
from alexnet_np.errors import CheckpointError, one_line
from alexnet_np.files import replacing
from alexnet_np.weights import seal
from alexnet_np.weights.formats import safetensors_file

Tensors = Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run: a folder of which the newest `keep` files stay."""

    def __init__(self, folder: Path, keep: int = 3) -> None:
        self.folder, self.keep = folder, keep

    def paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step-*.safetensors"))

    def save(self, step: int, tensors: Tensors, state: Mapping[str, Any]) -> Path:
        """Write the checkpoint of `step`, then remove what it makes superfluous. Raises CheckpointError."""
        path = self.folder / f"step-{step:08d}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(path, tensors, state)
            self._prune(path)
        except OSError as error:
            kept = self.paths()
            mend = f"; free some space, then --resume: {kept[-1].name} is intact" if kept else ""
            raise CheckpointError(f"{path}: cannot be saved: {error.strerror or one_line(error)}{mend}") from error
        return path

    def _prune(self, newest: Path) -> None:
        older = [path for path in self.paths() if path < newest]
        damaged = [path for path in self.paths() if path > newest]  # the run went back past them
        for path in [*older[: max(0, len(older) + 1 - self.keep)], *damaged]:
            path.unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any], list[str]]:
        """The newest checkpoint that is whole: its tensors, its state, and what was wrong with any newer one.

        Raises CheckpointError where there is none.
        """
        problems: list[str] = []
        for path in reversed(self.paths()):
            try:
                return *read(path), problems
            except CheckpointError as error:
                problems.append(str(error))
        if not problems:
            raise CheckpointError(f"{self.folder}: no checkpoint here; start without --resume")
        raise CheckpointError(f"{problems[0]}; and none of the {len(problems)} checkpoints is whole: start anew")


def write(path: Path, tensors: Tensors, state: Mapping[str, Any]) -> None:
    """Write `tensors` and `state` (anything that JSON takes) to `path`, all or nothing. Raises OSError."""
    arrays = {name: np.ascontiguousarray(to_cpu(array)) for name, array in tensors.items()}
    with replacing(path) as temporary:
        safetensors_file.write(temporary, arrays, seal.pack(state, arrays))
    sync_folder(path.parent)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `write` wrote. Raises CheckpointError where it is not that, to the last bit."""
    try:
        arrays, metadata = safetensors_file.read_file(path)
        state = seal.unpack(metadata)
        said = state.pop("sha256")
    except Exception as error:  # a damaged header breaks it anywhere
        if isinstance(error, OSError) and error.strerror:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        raise CheckpointError(f"{path}: damaged, or not a checkpoint") from error
    if said != seal.digest(arrays, state):
        raise CheckpointError(f"{path}: damaged: its contents do not have the checksum they were written with")
    return arrays, state


def sync_folder(folder: Path) -> None:
    """Bring a rename in `folder` to the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
