"""How several processes end together: who says what, in which order, and when the watchdog gives up."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alexnet_np.errors import DataError
from alexnet_np.training.interrupt import Stopped
from alexnet_np.training.parallel import group as groups
from alexnet_np.training.parallel import launch
from alexnet_np.training.parallel.group import Alone, Mpi, speaks
from alexnet_np.training.parallel.launch import Watchdog, together


class Ending(Alone):
    """Rank `rank` of 4, of which `ended` tells whether it has ended all, and by which code."""

    def __init__(self, rank: int) -> None:
        self.rank, self.size = rank, 4
        self.ended: list[int] = []
        self.has_ended = threading.Event()

    def end(self, code: int) -> None:
        self.ended.append(code)
        self.has_ended.set()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in no time."""
    pauses: list[float] = []
    monkeypatch.setattr(launch, "time", SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic))
    monkeypatch.setattr(groups, "time", SimpleNamespace(sleep=pauses.append))
    return pauses


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError("the disk\nis gone"), 1, "alexnet: rank 2 of 4: the disk is gone\n"),
        (MemoryError(), 1, "alexnet: rank 2 of 4: MemoryError\n"),
        (KeyboardInterrupt(), 130, "alexnet: rank 2 of 4: interrupted before it could save\n"),
    ],
)
def test_an_error_is_said_in_one_line_after_lower_ranks_had_their_turn(
    capsys: Any, slept: list[float], error: BaseException, code: int, said: str
) -> None:
    group = Ending(2)
    with together(group):
        raise error
    assert group.ended == [code] and slept == [4.0]
    assert capsys.readouterr().err == said


def test_a_fault_is_shown_whole_and_at_once(capsys: Any, slept: list[float]) -> None:
    group = Ending(3)
    with together(group):
        raise ZeroDivisionError("a fault")
    said = capsys.readouterr().err
    assert group.ended == [1] and not slept
    assert said.startswith("Traceback") and said.splitlines()[-1].startswith(
        "alexnet: rank 3 of 4: ZeroDivisionError: a"
    )


def test_a_stop_ends_nothing_and_one_process_is_as_ever() -> None:
    group = Ending(0)
    with pytest.raises(Stopped), together(group):
        raise Stopped("saved")
    with pytest.raises(DataError), together(Alone()):
        raise DataError("photo.jpg: damaged")
    assert not group.ended


def test_the_watchdog_ends_all_when_no_step_ends(capsys: Any) -> None:
    group = Ending(0)
    with Watchdog(group, 0.2, Path("runs/a")) as watchdog:
        watchdog({"kind": "batch", "step": 6})
        assert group.has_ended.wait(30)
    assert group.ended[0] == launch.SILENT
    said = "alexnet: rank 0 of 4: no answer for 0.2 s in step 7; ended. To go on: alexnet train --resume --out runs/a\n"
    assert capsys.readouterr().err.startswith(said)


def test_the_watchdog_lets_a_beginning_take_its_time_and_lower_ranks_speak_first() -> None:
    beginning, third = Ending(0), Ending(3)
    with Watchdog(beginning, 0.1, Path("a")), Watchdog(third, 0.1, Path("a")) as watchdog:
        watchdog({"kind": "batch", "step": 1})
        time.sleep(0.5)
    assert not beginning.ended and not third.ended


def test_what_was_said_is_heard_before_the_end_and_mpi_adds_nothing(
    monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    done: list[Any] = []
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=None))
    fake = SimpleNamespace(environ={}, devnull="/dev/null", O_WRONLY=1, open=lambda *_: 99)
    fake.dup2, fake._exit = (lambda *fds: done.append(fds)), (lambda code: done.append(code))
    monkeypatch.setattr(groups, "os", fake)
    world = SimpleNamespace(rank=1, size=4, Abort=lambda code: done.append(f"abort {code}"))
    Mpi(world).end(75)
    assert slept == [groups.HEARD] and done == [(99, 2), "abort 75", 75]
    del done[:]
    fake.environ["PRTE_LAUNCHED"] = "1"
    Mpi(world).end(75)
    assert done == [75]


@pytest.mark.parametrize(
    ("said", "speaking"),
    [
        ({}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, False),
        ({"PMI_SIZE": "2", "PMI_RANK": "1"}, False),
        ({"SLURM_NTASKS": "8", "PMIX_RANK": "3"}, False),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "3"}, True),  # no MPI: eight runs of their own
    ],
)
def test_who_speaks_for_all(monkeypatch: pytest.MonkeyPatch, said: dict[str, str], speaking: bool) -> None:
    for name in (*groups.SIZES, *groups.UNDER_SLURM, *groups.RANKS, "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert speaks() == speaking
