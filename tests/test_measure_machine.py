"""Whether somebody else is computing: a process that spins is seen, this one and an idle machine are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_np.measure import machine

STAT = """cpu  900 0 100 9000 50 0 0 0 0 0
cpu0 {0} 0 100 9000 50 0 0 0 0 0
cpu1 100 0 100 9000 50 0 0 0 0 0
cpu7 {0} 0 0 0 0 0 0 0 0 0
intr 5
"""


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "own_cores", lambda: [0, 1])


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc")
def test_a_process_that_spins_is_named() -> None:
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        seen = machine.process_ticks()
        assert spinning.pid in seen
        found = machine.others(0.3)
    finally:
        spinning.kill()
        spinning.wait()
    assert found is not None and found.cores > machine.BUSY
    assert str(found).startswith("other programs keep ") and "cores busy" in str(found)


def fake_proc(folder: Path, busy: int, spun: int) -> None:
    (folder / "stat").write_text(STAT.format(busy))
    (folder / "41").mkdir(exist_ok=True)
    (folder / "41" / "stat").write_text(f"41 (a (busy) one) R 1 1 1 0 -1 0 0 0 0 0 {spun} 0 0 0 20 0 1 0")


@pytest.mark.parametrize(("ticks", "said"), [(0, None), (100, "other programs keep 1.0 of the 2 cores busy")])
def test_ticks_of_the_own_cores_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: None, ticks: int, said: str | None
) -> None:
    clock = iter([0.0, 1.0])
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setattr(machine.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(machine.time, "process_time", lambda: 5.0)
    monkeypatch.setattr(machine.time, "sleep", lambda seconds: fake_proc(tmp_path, 200 + ticks, 60))
    fake_proc(tmp_path, 200, 10)
    found = machine.others()
    assert (None if found is None else str(found).partition(" (")[0]) == said
    if found is not None:
        assert found.names == ["a (busy) one 0.5"]


def test_where_nobody_can_tell_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "PROC", tmp_path)
    assert machine.others() is None
