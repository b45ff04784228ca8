"""benchmarks/gpu_session.py, run on the CPU at small sizes: what a session on a GPU meets first should be timing."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import cuda_shim
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(cuda_shim.compiler() is None, reason="needs g++ to compile the CUDA sources as C++")


class Cpu:
    backend = cuda_shim.NAME

    def place(self, array: np.ndarray) -> np.ndarray:
        return array.copy()

    def fetch(self, array: np.ndarray) -> np.ndarray:
        return array

    def milliseconds(self, call: Callable) -> float:
        began = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - began)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    path = Path(__file__).parents[1] / "benchmarks" / "gpu_session.py"
    spec = importlib.util.spec_from_file_location("gpu_session", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "REPEATS", 1)
    monkeypatch.setattr(module, "ROTATE_BYTES", 0)
    with cuda_shim.as_backend():
        yield module


def test_verification_passes_and_reports_a_fault(session: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [case for case in session.CASES if case.op in ("max_pool2d", "linear", "cross_entropy", "relu")]
    monkeypatch.setattr(session, "CASES", few)
    assert list(session.verify(Cpu())) == []
    relu = session.IMPLEMENTATIONS["relu"]["cuda"]
    monkeypatch.setattr(relu, "compute", lambda x: np.abs(x))
    faults = list(session.verify(Cpu()))
    assert any(fault.startswith("relu cuda 'any shape' float32 y: differs") for fault in faults)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_every_measurement_runs(session: ModuleType) -> None:
    machine = Cpu()
    rates = session.ceilings(machine, side=16, copy_bytes=1024)
    assert set(rates) == {"copy", *session.PRECISIONS}
    convolutions = list(session.convolutions(machine, rates, 2, {"conv": (3, 11, 4, 3, 2, 1)}))
    assert {entry["what"] for entry in convolutions} == {"forward", "backward"}
    small = {
        name: (op, (shape[0] % 7 + 2, *(13 for _ in shape[1:])), options)
        for name, (op, shape, options) in session.OTHERS.items()
    }
    rows = [*convolutions, *session.dense(machine, rates, 2, {"fc": (9, 5)})]
    rows += [*session.memory_bound(machine, rates, 2, small), *session.optimizer(machine, rates, 99)]
    rows += session.network(machine, 2, width=1 / 64, side=63)
    for entry in rows:
        assert entry["ms"] > 0
        session.show(entry)
