"""Runs of `alexnet train` under the mpirun that is here, and what has become of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_np.measure import mpi
from alexnet_np.training import checkpoint

MPIRUN = mpi.find_mpirun()
MARKS = [
    pytest.mark.skipif(MPIRUN is None or find_spec("mpi4py") is None, reason="no mpirun and mpi4py here"),
    pytest.mark.slow,
]
MAIN = "\nfrom alexnet_np.cli import main; main()"
SECONDS = 240  # this machine may be busy
NETWORK = "--dataset synthetic --limit 96 --image-size 67 --width 0.0625 --batch-size 32 --dropout 0.5 --initialisation"
RECIPE = "kaiming --lr 0.02 --momentum 0.9 --weight-decay 5e-4 --schedule cosine --augmentation mirror"
TIMES = ("images_per_second", "data_wait", "environment", "exchange")


class Runs:
    """Starts runs, and ends at the end whatever is left of them: only what was started here."""

    def __init__(self) -> None:
        self.environment = os.environ | mpi.ENVIRONMENT | {"ALEXNET_NP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.started: list[subprocess.Popen] = []

    def __call__(
        self,
        processes: int,
        out: Path,
        *options: str,
        given: str = f"{NETWORK} {RECIPE}",
        code: str = "",
        before: Sequence[str] = (),
    ) -> subprocess.Popen:
        """`alexnet train` of so many, with what is `given` and then some options.

        `code`: run in each of them first; `before`: a command that runs mpirun.
        """
        python = [sys.executable, *(["-c", code + MAIN] if code else ["-m", "alexnet_np"])]
        common = [*given.split(), *["--epochs", "2", "--workers", "1", "--json", "--out"], str(out)]
        command = [
            *before,
            *([] if processes == 1 else mpi.launcher(str(MPIRUN), processes)),
            *python,
            "train",
            *common,
            *options,
        ]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.started.append(subprocess.Popen(command, env=self.environment, start_new_session=True, **pipes))
        return self.started[-1]

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def runs() -> Iterator[Runs]:
    """A fixture."""
    made = Runs()
    yield made
    made.close()


def finished(process: subprocess.Popen) -> str:
    """Its end; returns what it said on standard error."""
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    return said


def end_of(out: Path) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Every array of the last checkpoint, momentum too, and what happened, without the times."""
    tensors, _ = checkpoint.read(sorted((out / "checkpoints").glob("step-*.safetensors"))[-1])
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert events[-1]["kind"] == "end"
    return tensors, [{k: v for k, v in e.items() if k not in TIMES} for e in events if e["kind"] != "start"]


def check_counted(out: Path, processes: int) -> None:
    """What was sent in each epoch is what the formula says."""
    sent = [event["exchange"] for event in map(json.loads, (out / "metrics.jsonl").open()) if event["kind"] == "epoch"]
    assert len(sent) == 2
    for epoch in sent:
        assert epoch["bytes"] == epoch["formula"] > 0 and epoch["steps"] == 3 and epoch["processes"] == processes
        assert 0 < epoch["waited"] < 1


def check_equal(out: Path, other: Path) -> None:
    (tensors, events), (others, happened) = end_of(out), end_of(other)
    assert tensors.keys() == others.keys() and any(name.startswith("momentum.") for name in tensors)
    for name, array in tensors.items():
        assert np.array_equal(array, others[name]), name
    assert events == happened


def ranks(process: subprocess.Popen) -> list[int]:
    """The Python processes that mpirun has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = path.read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if said[0].decode() == sys.executable and descends(int(path.parent.name), process.pid):
            found.append(int(path.parent.name))
    return sorted(found)


def descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def wait_for_step(out: Path, step: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and process.poll() is None:
        log = out / "metrics.jsonl"
        if log.is_file() and any(f'"step": {step},' in line for line in log.read_text().splitlines()):
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} was never reached")
