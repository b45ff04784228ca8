"""The session on a GPU, run on the CPU at small sizes: what a session on a GPU meets first should be timing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import cuda_shim
import fake_gpu
import numpy as np
import pytest
from fake_gpu import FakeGpu

import alexnet_np as anp
from alexnet_np.errors import BackendError
from alexnet_np.kernels import relu_cuda
from alexnet_np.measure import gpu, gpu_kernels
from alexnet_np.measure.cases import Case
from alexnet_np.measure.harness import Contender, Work
from alexnet_np.measure.report import Report

pytestmark = pytest.mark.skipif(cuda_shim.compiler() is None, reason="needs g++ to compile the CUDA sources as C++")


@pytest.fixture
def machine() -> Iterator[FakeGpu]:
    with fake_gpu.machine() as made:
        yield made


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    from alexnet_np.measure import gpu_session

    monkeypatch.setattr(gpu_session, "measure_peaks", lambda machine: gpu.measure_peaks(machine, 16, 1024))
    monkeypatch.setattr(gpu_session, "ROUNDS", 3)
    return gpu_session


def test_verification_passes_and_reports_a_fault(
    session: ModuleType, machine: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [case for case in session.CASES if case.op in ("max_pool2d", "linear", "cross_entropy", "relu")]
    monkeypatch.setattr(session, "CASES", few)
    assert list(session.verify(machine)) == []
    monkeypatch.setattr(relu_cuda, "compute", lambda x: np.abs(x))
    faults = list(session.verify(machine))
    assert any(fault.startswith("relu cuda 'any shape' float32 y: differs") for fault in faults)


def test_a_session_writes_all_it_found(
    session: ModuleType, machine: FakeGpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A work that runs, one whose contender is wrong, one of ours that is missing: faults, which do not end it."""

    def wrong(result: Any) -> None:
        raise AssertionError("a contender is wrong")

    def works(machine: Any, stages: Any) -> Iterator[Work]:
        yield from gpu_kernels.works(machine, 2, cases=[Case("relu", "small", (3, 5, 5))])
        yield Work("wrong", 1.0, 1.0, [Contender("cuda", lambda: 1)], wrong, gpu.EventClock(machine))
        absent = [Contender("cuda plan", None, "no plan"), Contender("torch compiled", None, "no compiler")]
        yield Work("absent", 1.0, 1.0, absent, None, gpu.EventClock(machine))

    monkeypatch.setattr(session, "works", works)
    done = session.Session(machine, tmp_path / "gpu.json")
    done.run(["kernels"])
    stored = json.loads((tmp_path / "gpu.json").read_text())
    assert stored["faults"] == ["wrong: AssertionError: a contender is wrong", "absent: cuda plan: no plan"]
    assert stored["plans"] == []
    rows = Report.load(tmp_path / "gpu.json").rows
    assert [row.contender for row in rows if row.work == "relu small, batch 2, forward"][:2] == ["cupy", "cuda"]
    assert all(row.floor > 0 for row in rows if not row.missing)
    page = (tmp_path / "gpu.md").read_text()
    assert "| relu small, batch 2, forward | cupy | 1 | 1 | 0% |" in page
    assert "- absent: cuda plan: no plan" in page


def test_plans_are_checked(session: ModuleType, machine: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every quantity of both plans in every arithmetic, within its limit; a plan that does not run is a line."""
    monkeypatch.setattr(session, "PRESETS", ("d2l",))
    found = list(session.check_plans(machine, batch=2, width=1 / 32))
    assert all(each.same_bits for each in found)
    exact = [each for each in found if not each.plan.endswith(", tf32")]  # which flips units, and these layers have few
    assert not [fault for each in exact for fault in each.faults]
    parameters = dict(anp.alexnet("d2l", width=1 / 32).named_parameters())
    quantities = {precision: ["logits", "loss", *parameters, "loss of step 3"] for precision in session.PRECISIONS}
    for precision, expected in quantities.items():
        assert sorted(each.quantity for each in found if each.plan.endswith(f", {precision}")) == sorted(expected)
    strict = [each.error for each in found if each.plan.endswith("strict") and each.error is not None]
    assert 0 < max(strict) < 1e-5
    monkeypatch.setattr(session, "infer", mock.Mock(side_effect=RuntimeError("no\nluck")))
    monkeypatch.setattr(session, "train", lambda *_: {})
    lines = [f"d2l, inference plan, {precision}: RuntimeError: no luck" for precision in session.PRECISIONS]
    assert list(session.check_plans(machine, batch=1, width=1 / 32)) == lines


def test_without_a_gpu_one_line_says_so(
    session: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "check_backend", mock.Mock(side_effect=BackendError("no driver")))
    monkeypatch.setattr("sys.argv", ["gpu_session", str(tmp_path / "gpu.json")])
    assert session.main() == 1
    assert capsys.readouterr() == ("", "gpu_session: no driver\n")
    assert list(tmp_path.iterdir()) == []


def test_what_a_plan_can_get_wrong(session: ModuleType) -> None:
    right = session.Checked("plan", "logits", 1e-7, 2e-7, 1e-5, True)
    assert right.faults == []
    for error in (1e-3, float("nan")):
        (fault,) = session.Checked("plan", "logits", error, 2e-7, 1e-5, True).faults
        assert fault.startswith("plan: logits is off by ")
    unsteady = session.Checked("plan", "loss of step 3", None, None, 1e-5, False)
    assert unsteady.faults == ["plan: loss of step 3: two runs gave different bits"]
