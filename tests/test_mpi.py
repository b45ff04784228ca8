"""`mpirun alexnet train`: the same bits on any number of processes, and an end to every kind of trouble.

Skipped where mpirun or mpi4py is missing. What ends badly must end by itself, well before `SECONDS`.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_np.training import checkpoint
from alexnet_np.weights import read

BESIDE = Path(sys.executable).with_name("mpirun")
MPIRUN = str(BESIDE) if BESIDE.is_file() else shutil.which("mpirun")
pytestmark = [
    pytest.mark.skipif(MPIRUN is None or find_spec("mpi4py") is None, reason="no mpirun and mpi4py here"),
    pytest.mark.slow,
]
SECONDS = 240  # this machine may be busy
NETWORK = "--dataset synthetic --limit 96 --image-size 67 --width 0.0625 --batch-size 32 --dropout 0.5 --initialisation"
RECIPE = "kaiming --lr 0.02 --momentum 0.9 --weight-decay 5e-4 --schedule cosine --augmentation mirror"
TIMES = ("images_per_second", "data_wait", "environment", "exchange")


def command(processes: int, out: Path, *options: str) -> list[str]:
    given = [*NETWORK.split(), *RECIPE.split(), *["--epochs", "2", "--workers", "1", "--json", "--out"], str(out)]
    alexnet = [sys.executable, "-m", "alexnet_np", "train", *given, *options]
    return alexnet if processes == 1 else [*launcher(), "-n", str(processes), *alexnet]


def launcher() -> list[str]:
    """Open MPI will not start more processes than there are cores unless told; MPICH does not know the word."""
    said = subprocess.run([str(MPIRUN), "--version"], capture_output=True, text=True).stdout
    return [str(MPIRUN), "--oversubscribe"] if "Open MPI" in said or "PRRTE" in said else [str(MPIRUN)]


@pytest.fixture
def begin() -> Iterator[Any]:
    """Starts runs, and ends at the end whatever is left of them: only what was started here."""
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # as in a container
    environment = os.environ | root | {"ALEXNET_NP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    started: list[subprocess.Popen] = []

    def one(processes: int, out: Path, *options: str) -> subprocess.Popen:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(
            subprocess.Popen(command(processes, out, *options), env=environment, start_new_session=True, **pipes)
        )
        return started[-1]

    yield one
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


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


def test_the_same_bits_on_one_two_and_four_processes(tmp_path, begin):
    for processes in (1, 2, 4):
        finished(begin(processes, tmp_path / str(processes), "--shards", "4"))
    check_equal(tmp_path / "1", tmp_path / "2")
    check_equal(tmp_path / "1", tmp_path / "4")
    check_counted(tmp_path / "2", 2)
    check_counted(tmp_path / "4", 4)


def test_a_run_stopped_by_its_file_goes_on_with_another_number(tmp_path, begin):
    finished(begin(1, tmp_path / "whole", "--shards", "4"))
    out = tmp_path / "run"
    process = begin(2, out, "--shards", "4")
    wait_for_step(out, 1, process)
    (out / "stop").touch()
    _, said = process.communicate(timeout=SECONDS)
    assert said.count("saved; to go on: alexnet train --resume") == 1, said
    assert not (out / "stop").exists()
    finished(begin(4, out, "--shards", "4", "--resume"))
    check_equal(tmp_path / "whole", out)


def test_killed_ranks_resumed_on_another_number_of_processes(tmp_path, begin):
    finished(begin(1, tmp_path / "whole", "--shards", "4"))
    chance = random.Random(14)
    for i, (processes, then) in enumerate([(2, 4), (4, 1), (2, 1), (4, 2)]):
        out = tmp_path / f"run{i}"
        process = begin(processes, out, "--shards", "4", "--save-every", "0.01")
        wait_for_step(out, 1 + i % 4, process)
        pids = ranks(process)
        assert len(pids) == processes, pids
        os.kill(chance.choice(pids), signal.SIGKILL)
        process.communicate(timeout=SECONDS)
        finished(begin(then, out, "--shards", "4", "--resume"))
        check_equal(tmp_path / "whole", out)


def test_a_rank_that_answers_no_more_ends_all_within_the_timeout(tmp_path, begin):
    process = begin(2, tmp_path / "run", "--shards", "2", "--epochs", "500", "--timeout", "8")
    wait_for_step(tmp_path / "run", 2, process)
    stopped = ranks(process)[1]
    os.kill(stopped, signal.SIGSTOP)
    try:
        _, said = process.communicate(timeout=SECONDS)
    finally:
        if Path(f"/proc/{stopped}").exists():
            os.kill(stopped, signal.SIGKILL)
    assert process.returncode
    assert "no answer for 8 s in step" in said and "to go on: alexnet train --resume --out" in said.lower()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shards", "1"], "1 shards cannot be shared evenly by 2 processes"),
        (["--shards", "2", "--weights", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_an_error_that_all_have_is_said_once(tmp_path, begin, options, said):
    process = begin(2, tmp_path / "run", *options)
    _, words = process.communicate(timeout=SECONDS)
    assert process.returncode
    assert [line for line in words.splitlines() if line.startswith("alexnet: rank")] == [
        line for line in words.splitlines() if line.startswith("alexnet: rank 0 of 2: ") and said in line
    ]
    assert said in words and "Traceback" not in words


def test_one_weird_trick_repeats_and_resumes(tmp_path, begin):
    for name in "ab":
        finished(begin(2, tmp_path / name, "--parallel", "weird"))
    check_equal(tmp_path / "a", tmp_path / "b")
    check_counted(tmp_path / "a", 2)
    weights = read(tmp_path / "a" / "weights.safetensors")
    assert weights["classifier.0.weight"].shape == (256, 400), "whole, though each process had half"


def test_two_towers_repeat_and_one_process_goes_on_with_both(tmp_path, begin):
    options = ["--parallel", "towers", "--preset", "paper", "--image-size", "79", "--width", "0.125"]
    for name in "ab":
        finished(begin(2, tmp_path / name, *options))
    check_equal(tmp_path / "a", tmp_path / "b")
    check_counted(tmp_path / "a", 2)
    weights = read(tmp_path / "a" / "weights.safetensors")
    assert weights["features.8.weight"].shape == (48, 32, 3, 3), "whole, though each process had half"
    (tmp_path / "c" / "checkpoints").mkdir(parents=True)
    shutil.copy(tmp_path / "a" / "metrics.jsonl", tmp_path / "c")
    after_one_epoch = sorted((tmp_path / "a" / "checkpoints").glob("step-*.safetensors"))[-2]
    shutil.copy(after_one_epoch, tmp_path / "c" / "checkpoints")
    finished(begin(1, tmp_path / "c", *options, "--resume"))
    for name, array in read(tmp_path / "c" / "weights.safetensors").items():
        assert abs(array - weights[name]).max() <= 1e-4 * abs(array).max(), name


@pytest.mark.parametrize(
    ("processes", "preset", "said"),
    [(4, "paper", "is for 2 processes, one a tower, got 4"), (2, "torchvision", "'torchvision' has one")],
)
def test_no_two_towers_is_said_once(tmp_path, begin, processes, preset, said):
    process = begin(processes, tmp_path / "run", "--parallel", "towers", "--preset", preset)
    _, words = process.communicate(timeout=SECONDS)
    assert process.returncode
    assert words.count("parallel 'towers' is for") == 1 and said in words and "Traceback" not in words
