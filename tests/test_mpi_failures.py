"""What ends one process of a run ends all of them, well before `SECONDS`, and is said in one line; and how runs go on.

Skipped where mpirun or mpi4py is missing.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mpi_runs import MARKS, SECONDS, check_equal, finished, ranks, runs, wait_for_step

from alexnet_np.training.metrics import read_events

pytestmark = MARKS
begin = pytest.fixture(runs)

# Run in every process before the command: rank 1 does `{what}` instead of its fourth step.
ON_RANK_1 = """
import os
if os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")) == "1":
    from alexnet_np.errors import DataError
    from alexnet_np.training.run import Run
    step = Run.step
    def instead(self, *batch):
        if self.at.step == 3:
            {what}
        return step(self, *batch)
    Run.step = instead
"""


def ours(said: str) -> list[str]:
    """Its lines that are neither the launcher's nor advice."""
    lines = [line for line in said.splitlines() if line.startswith("alexnet: ")]
    return [line for line in lines if "learned nothing" not in line and "to stop" not in line]


def has_ended(out: Path) -> bool:
    """The one place that says that a run has succeeded."""
    return read_events(out / "metrics.jsonl")[-1]["kind"] == "end"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ('raise DataError("photo.jpg: damaged")', "alexnet: rank 1 of 2: photo.jpg: damaged"),
        ('raise OSError("the disk is gone")', "alexnet: rank 1 of 2: the disk is gone"),
        ('raise RuntimeError("a fault")', "alexnet: rank 1 of 2: RuntimeError: a fault; this should not happen"),
    ],
)
def test_an_exception_on_one_rank_ends_all(tmp_path: Path, begin: Any, what: str, said: str) -> None:
    out = tmp_path / "run"
    process = begin(2, out, "--shards", "4", code=ON_RANK_1.format(what=what))
    _, words = process.communicate(timeout=SECONDS)
    assert process.returncode == 1 and not has_ended(out)
    (line,) = ours(words)
    assert line.startswith(said)
    assert ("Traceback" in words) == ("RuntimeError" in said), "a fault is shown whole, a mishap is not"


def test_a_rank_that_just_leaves_is_no_success_and_the_run_goes_on_from_there(tmp_path: Path, begin: Any) -> None:
    finished(begin(1, tmp_path / "whole", "--shards", "4"))
    out = tmp_path / "run"
    process = begin(2, out, "--shards", "4", "--save-every", "0", code=ON_RANK_1.format(what="os._exit(0)"))
    process.communicate(timeout=SECONDS)  # its exit code is 1 under one MPI, and 0 under another
    assert not has_ended(out)
    finished(begin(4, out, "--shards", "4", "--resume"))
    assert has_ended(out)
    check_equal(tmp_path / "whole", out)


def test_a_disk_that_is_full_on_rank_0_ends_all(tmp_path: Path, begin: Any) -> None:
    out = tmp_path / "run"
    process = begin(2, out, "--shards", "2", "--epochs", "500")
    wait_for_step(out, 3, process)
    (out / "metrics.jsonl").rename(out / "before.jsonl")
    (out / "metrics.jsonl").symlink_to("/dev/full")
    _, words = process.communicate(timeout=SECONDS)
    assert process.returncode == 1 and "Traceback" not in words
    assert ours(words) == [f"alexnet: rank 0 of 2: {out}/metrics.jsonl: cannot be written: No space left on device"]


def test_a_checkpoint_that_does_not_fit_ends_all(tmp_path: Path, begin: Any) -> None:
    """On a real file system of 4 MB, which holds two of them: of 1.5 MB each, before their third."""
    out = tmp_path / "small" / "run"
    out.parent.mkdir()
    mount = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=4m none {out.parent} && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("may not mount a small file system here")
    process = begin(2, out, "--shards", "2", "--epochs", "500", before=mount)
    _, words = process.communicate(timeout=SECONDS)
    assert process.returncode == 1 and "Traceback" not in words
    (line,) = ours(words)
    assert line.startswith(f"alexnet: rank 0 of 2: {out}/checkpoints/step-")
    assert ": cannot be saved: No space left on device; free some space, then --resume: step-" in line


def test_killed_ranks_resumed_on_another_number_of_processes(tmp_path: Path, begin: Any) -> None:
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


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_answers_no_more_ends_all_within_the_timeout(tmp_path: Path, begin: Any, rank: int) -> None:
    out = tmp_path / "run"
    process = begin(2, out, "--shards", "2", "--epochs", "500", "--timeout", "8")
    wait_for_step(out, 2, process)
    stopped = ranks(process)[rank]
    os.kill(stopped, signal.SIGSTOP)
    try:
        _, words = process.communicate(timeout=SECONDS)
    finally:
        if Path(f"/proc/{stopped}").exists():
            os.kill(stopped, signal.SIGKILL)
    assert process.returncode
    (line,) = ours(words)
    assert f"rank {1 - rank} of 2: no answer for 8 s in step" in line
    assert line.endswith(f"ended. To go on: alexnet train --resume --out {out}")


@pytest.mark.parametrize("how", [signal.SIGUSR1, "file"])
def test_a_stop_that_all_have_saved_is_one_line_and_no_alarm(tmp_path: Path, begin: Any, how: Any) -> None:
    out = tmp_path / "run"
    process = begin(2, out, "--shards", "2", "--epochs", "500")
    wait_for_step(out, 2, process)
    (out / "stop").touch() if how == "file" else process.send_signal(how)
    words = finished(process)
    assert [line for line in words.splitlines() if "learned nothing" not in line] == ours(words), (
        "the launcher is quiet"
    )
    (line,) = ours(words)
    assert line.endswith(f"saved; to go on: alexnet train --resume --out {out}")
    assert not has_ended(out) and not (out / "stop").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shards", "1"], "1 shards cannot be shared evenly by 2 processes"),
        (["--shards", "2", "--weights", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_an_error_that_all_have_is_said_once(tmp_path: Path, begin: Any, options: list[str], said: str) -> None:
    process = begin(2, tmp_path / "run", *options)
    _, words = process.communicate(timeout=SECONDS)
    assert process.returncode
    assert [line for line in words.splitlines() if line.startswith("alexnet: rank")] == [
        line for line in words.splitlines() if line.startswith("alexnet: rank 0 of 2: ") and said in line
    ]
    assert said in words and "Traceback" not in words


def test_a_misspelt_option_is_said_once(tmp_path: Path, begin: Any) -> None:
    process = begin(2, tmp_path / "run", "--shrads", "2")
    _, words = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert ours(words) == ["alexnet: no such option: --shrads (did you mean --shards?); see alexnet train --help"]
