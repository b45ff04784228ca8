"""The GPU's benchmarks where there is none: everything but the events is real, on a stand-in for the device."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import cuda_shim
import fake_gpu
import numpy as np
import pytest
from fake_gpu import FakeGpu
from typer.testing import CliRunner

from alexnet_np import backend
from alexnet_np.cli.app import app
from alexnet_np.measure import gpu, gpu_kernels, gpu_model, gpu_peers, gpu_training, harness, report
from alexnet_np.measure.cases import Case

needs_gpp = pytest.mark.skipif(cuda_shim.compiler() is None, reason="needs g++ to compile the CUDA sources as C++")
EAGER = [peer for peer in gpu_peers.PEERS if peer.how != "compiled"]  # which takes torch 20 s a time
NARROW: dict[str, Any] = {"preset": "d2l", "width": 1 / 32}


@pytest.fixture
def machine() -> Iterator[FakeGpu]:
    with fake_gpu.machine() as made:
        yield made


def names(work: harness.Work) -> list[str]:
    return [contender.name for contender in work.contenders]


# What is timed


@pytest.mark.parametrize(
    ("bytes", "l2", "copies"),
    [
        (100 << 20, 50 << 20, 1),  # does not fit by itself, twice over
        ((100 << 20) - 1, 50 << 20, 2),
        (600 << 10, 50 << 20, 171),  # one image of 224x224
        (2 << 20, 50 << 20, 50),
        (4 << 10, 50 << 20, 512),  # no more
        (0, 50 << 20, 512),
        (4, 0, 1),
    ],
)
def test_copies_of_an_input_together_pass_l2(bytes: int, l2: int, copies: int) -> None:
    assert gpu.copies_needed(bytes, l2) == copies
    assert copies == gpu.MOST_COPIES or copies * bytes >= gpu.ROTATION * l2


def test_copies_are_arrays_of_their_own() -> None:
    machine, array = FakeGpu(), np.arange(1 << 17, dtype=np.float32)
    made = gpu.copies(machine, array)
    assert len(made) == 4
    assert len({copy.ctypes.data for copy in made}) == 4
    assert all((copy == array).all() for copy in made)


def test_inputs_take_turns_together() -> None:
    call = gpu.in_turn(lambda *given: given, [1, 2, 3], ["a", "b", "c"])
    assert [call() for _ in range(4)] == [(1, "a"), (2, "b"), (3, "c"), (1, "a")]


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("cold", [False, True])
def test_what_happens_around_a_timed_call(kernels: bool, cold: bool) -> None:
    """Launches count for a network, whose turn begins on an idle device, and hide behind writes for a kernel."""
    machine = FakeGpu()
    work = harness.Work("w", 2e6, 1e6, [harness.Contender("cuda", lambda: 1)], clock=gpu.EventClock(machine, kernels))
    (row,) = harness.measure(work, {"gflops": 4.0, "gbps": 10.0}, rounds=1, cold=cold)
    cleared = ["overwrite", "synchronize"] if cold else []
    assert machine.did == ["synchronize", *cleared, *(["overwrite"] if kernels else []), "seconds"]
    assert row.median == 1e-3
    assert row.floor == pytest.approx(max(2e6 / 4e9, 1e6 / 10e9))
    assert (row.flops, row.bytes) == (pytest.approx(2e6), pytest.approx(1e6))


def test_a_call_is_timed_by_events(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []

    class Event:
        def record(self) -> None:
            did.append("record")

        def synchronize(self) -> None:
            did.append("synchronize")

    properties = {"name": b"A GPU", "l2CacheSize": 300 << 20, "multiProcessorCount": 7, "totalGlobalMem": 9}
    runtime = SimpleNamespace(
        getDeviceProperties=lambda device: properties,
        deviceSynchronize=lambda: did.append("all"),
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 12090,
    )
    cupy: Any = ModuleType("cupy")
    cupy.__version__ = "14"
    cupy.empty = lambda bytes, dtype: SimpleNamespace(nbytes=bytes, fill=lambda value: did.append("fill"))
    pool = SimpleNamespace(free_all_blocks=lambda: did.append("CuPy's"))
    cupy.get_default_memory_pool = lambda: pool
    cupy.cuda = SimpleNamespace(runtime=runtime, Event=Event, get_elapsed_time=lambda start, stop: 2.5)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(gpu, "check_backend", lambda name: name)
    machine = gpu.Gpu()
    assert machine.scratch.nbytes == 600 << 20
    assert machine.seconds(lambda: did.append("run")) == 2.5e-3
    assert did == ["record", "run", "record", "synchronize"]
    did.clear()
    machine.overwrite()
    machine.synchronize()
    assert did == ["fill"] * gpu.WRITES + ["all"]
    did.clear()
    torch: Any = ModuleType("torch")
    torch.cuda = SimpleNamespace(empty_cache=lambda: did.append("torch's"))
    monkeypatch.setitem(sys.modules, "torch", torch)
    machine.release()
    assert did == ["CuPy's", "torch's"]
    about = machine.about()
    assert (about["gpu"], about["l2_bytes"], about["versions"]["cupy"]) == ("A GPU", 300 << 20, "14")
    assert "onnxruntime" not in about["versions"]


@needs_gpp
def test_peaks_are_measured_in_every_arithmetic(machine: FakeGpu) -> None:
    peaks = gpu.measure_peaks(machine, side=16, copy_bytes=1 << 10)
    assert peaks == {
        **dict.fromkeys(("gflops", "gflops TF32", "gflops TF32x3"), pytest.approx(2 * 16**3 / 1e-3 / 1e9)),
        "gbps": pytest.approx(2 * 1024 / 1e-3 / 1e9),
    }
    said = report.title(report.Report(machine.about(), peaks))
    assert said.startswith("no GPU; measured peaks 0 GFLOP/s, 0 GFLOP/s TF32, 0 GFLOP/s TF32x3, 0 GB/s")


# Who takes part


@needs_gpp
def test_every_kernel_has_its_contenders_and_they_agree(machine: FakeGpu) -> None:
    cases = [
        Case("conv2d", "conv", (3, 9, 9), ((4, 3, 3, 3), (4,)), {"stride": 2, "padding": 1}),
        Case("linear", "fc", (9,), ((5, 9), (5,))),
        Case("cross_entropy", "loss", (7,)),
        Case("dropout", "drop", (30,), (), {"p": 0.5, "seed": 1}, {"p": 0.5}),
        Case("max_pool2d", "pool", (2, 7, 7), (), {"kernel_size": 3, "stride": 2}),
    ]
    works = {work.name: work for work in gpu_kernels.works(machine, 2, cases=cases)}
    ours, images = ["cupy", "cuda"], ["torch", "torch channels_last"]
    ways = [f"cuda {name}" for name in ("naive", "im2col", "implicit", "implicit-64", "implicit-128")]
    contenders = {
        "conv2d conv, batch 2, forward, strict float32": [*ours, *ways, "cuda, TF32x3", *images],
        "conv2d conv, batch 2, backward, strict float32": [*ours, "cuda, TF32x3", *images],
        "conv2d conv, batch 2, forward, TF32": ["cuda", *images],
        "conv2d conv, batch 2, backward, TF32": ["cuda", *images],
        "linear fc, batch 2, forward, strict float32": [*ours, "cuda rows", "cuda cublas", "cuda, TF32x3", "torch"],
        "max_pool2d pool, batch 2, backward": [*ours, *images],
        "cross_entropy loss, batch 2, forward": [*ours, "torch"],
    }
    assert {name: names(works[name]) for name in contenders} == contenders
    assert len(works) == 4 + 4 + 3 * 2
    peaks = gpu.measure_peaks(machine, side=16, copy_bytes=1 << 10)
    rows = [row for work in works.values() for row in harness.measure(work, peaks, rounds=1)]
    assert not [row for row in rows if row.missing]
    peak = {contender.name: contender.peak for work in works.values() for contender in work.contenders}
    assert peak["cuda, TF32x3"] == "gflops TF32x3"


@needs_gpp
def test_a_wrong_kernel_is_not_timed(machine: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    from alexnet_np.kernels import relu_cuda

    monkeypatch.setattr(relu_cuda, "compute", np.abs)
    work = next(gpu_kernels.works(machine, 2, cases=[Case("relu", "relu", (30,))]))
    with pytest.raises(AssertionError, match="a contender is wrong"):
        harness.measure(work, {"gflops": 1.0, "gbps": 1.0})


@needs_gpp
def test_sgd_takes_the_same_steps(machine: FakeGpu) -> None:
    work = gpu_kernels.sgd(machine, size=1000)
    assert names(work) == ["cupy", "cuda", "torch fused"]
    rows = harness.measure(work, {"gflops": 1.0, "gbps": 1.0}, rounds=1)
    assert [row.missing for row in rows] == [""] * 3
    with pytest.raises(AssertionError, match="a contender's step is off"):
        harness.measure(work, {"gflops": 1.0, "gbps": 1.0}, rounds=1)  # further on by now


@needs_gpp
@pytest.mark.parametrize("bench", [gpu_model, gpu_training], ids=["model", "train"])
def test_networks_have_their_contenders_and_agree(
    machine: FakeGpu, monkeypatch: pytest.MonkeyPatch, bench: ModuleType
) -> None:
    """In strict float32 and in TF32; a graph, which needs the device, is named as missing."""
    monkeypatch.setattr(gpu_peers, "PEERS", EAGER)
    strict, tf32 = bench.works(machine, 2, **NARROW)
    assert machine.did == ["release"] * 2
    peers = ["torch eager", "torch channels_last", "torch cudnn.benchmark"]
    graphs = ["torch CUDA graph", "torch CUDA graph, channels_last"]
    eager, plans = ["cupy", "cuda eager", "cuda eager, TF32x3"], ["cuda plan", "cuda plan, TF32x3"]
    plans += ["cuda plan of int16 dense weights"] if bench is gpu_model else []
    assert names(strict) == [*eager, *plans, *peers, *graphs]
    assert names(tf32) == ["cuda eager", "cuda plan", *peers, *graphs]
    assert strict.name.endswith("d2l, batch 2, strict float32")
    assert tf32.name.endswith("d2l, batch 2, TF32")
    assert strict.flops == tf32.flops > 0
    for work in (strict, tf32):
        rows = harness.measure(work, {**dict.fromkeys(gpu.PEAKS.values(), 1.0), "gbps": 1.0}, peers, rounds=1)
        assert {row.contender for row in rows if row.missing} == set(graphs)
        assert all(row.ratio == 1 for row in rows if not row.missing)


def test_without_torch_every_peer_is_named_as_missing(machine: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(gpu_model, "OURS", {"strict": (), "tf32": ()})
    for work in gpu_model.works(machine, 1, **NARROW):
        assert names(work) == [peer.name for peer in gpu_peers.PEERS]
        assert all(contender.run is None and "torch" in contender.missing for contender in work.contenders)


def test_a_plan_that_cannot_be_made_is_named_with_the_reason(machine: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise RuntimeError("no plan\nfor this")

    monkeypatch.setattr(gpu_peers, "PEERS", [])
    monkeypatch.setattr(gpu_model, "plan", refuses)
    strict = next(gpu_model.works(machine, 1, **NARROW))
    assert {c.missing for c in strict.contenders if c.name.startswith("cuda plan")} == {"no plan for this"}


@pytest.mark.parametrize("arithmetic", ["strict", "tf32"])
@pytest.mark.parametrize("benchmark", [False, True])
def test_torch_is_told_its_arithmetic(arithmetic: str, benchmark: bool) -> None:
    torch = pytest.importorskip("torch")
    backends = torch.backends
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark
    try:
        gpu_peers.configure(arithmetic, benchmark)
        tf32 = arithmetic == "tf32"
        assert (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32) == (tf32, tf32)
        assert backends.cudnn.benchmark is benchmark
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark = before


def test_every_compiled_peer_is_compiled_anew(machine: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else torch, after so many shapes and settings in one process, gives the function back to eager mode."""
    torch, did = pytest.importorskip("torch"), []
    monkeypatch.setattr(torch.compiler, "reset", lambda: did.append("reset"))
    monkeypatch.setattr(torch, "compile", lambda net: did.append("compile") or net)
    monkeypatch.setattr(gpu_peers, "PEERS", [peer for peer in gpu_peers.PEERS if peer.how == "compiled"])
    monkeypatch.setattr(gpu_model, "OURS", {"strict": (), "tf32": ()})
    for bench in (gpu_model, gpu_training):
        assert [names(work) for work in bench.works(machine, 1, **NARROW)] == [["torch compiled"]] * 2
    assert did == ["reset", "compile"] * 4


# The command


@pytest.mark.parametrize("command", ["kernels", "model", "train"])
def test_without_a_gpu_one_line_says_so(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(backend, "_usable", {"numpy"})
    monkeypatch.setattr(backend, "_why_unavailable", lambda name: None if name == "numpy" else "no driver")
    result = CliRunner().invoke(app, ["bench", command, "--device", "gpu", "--json"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "alexnet: backend 'cuda' is unavailable: no driver; usable here: numpy\n"


@needs_gpp
def test_the_command_on_a_device(machine: FakeGpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(gpu, "Gpu", lambda: machine)
    monkeypatch.setattr(gpu, "measure_peaks", lambda machine: dict.fromkeys([*gpu.PEAKS.values(), "gbps"], 100.0))
    monkeypatch.setattr(gpu_kernels, "sgd", partial(gpu_kernels.sgd, size=100))
    arguments = ["bench", "kernels", "--device", "gpu", "--batch", "1", "--rounds", "3", "--op"]
    found = CliRunner().invoke(app, [*arguments, "cross_entropy", "--json", "--out", str(tmp_path / "r.json")])
    assert found.exit_code == 0, found.stderr
    report = json.loads(found.stdout)
    assert report == json.loads((tmp_path / "r.json").read_text())
    assert set(report["peaks"]) == {"gflops", "gflops TF32", "gflops TF32x3", "gbps"}
    assert report["machine"]["gpu"] == "no GPU"
    assert [row["contender"] for row in report["rows"]] == ["cupy", "cuda", "torch"] * 2
    columns = "work contender missing median best spread gflops gbps peak_share ratio peak images error reduced"
    assert set(report["rows"][0]) == set(columns.split())
    said = CliRunner().invoke(app, [*arguments, "sgd"]).stdout
    assert "floor ms" in said
    assert "sgd, 100 parameters, step" in said
