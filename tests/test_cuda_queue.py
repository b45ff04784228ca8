"""Where a plan runs on a GPU: the order between its stream and its caller's, graphs, copies, clear errors.

Against a stand-in for CuPy that writes down what it is asked for, and against the names that the real CuPy has.
"""

from __future__ import annotations

import sys
import types
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from alexnet_np.errors import BackendError
from alexnet_np.kernels.gpu import queue
from alexnet_np.kernels.gpu.executor import CupyExecutor
from alexnet_np.kernels.gpu.queue import CudaQueue


class FakeArray:
    def __init__(self, device: int = 1, nbytes: int = 16) -> None:
        self.device, self.nbytes = types.SimpleNamespace(id=device), nbytes
        self.data = types.SimpleNamespace(ptr=0x1000)


class Log(list):
    def __call__(self, *what: Any) -> None:
        self.append(what)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """What was asked of CuPy, in order; streams and events by name."""
    log, cupy = Log(), types.ModuleType("cupy")
    current: list[Any] = []

    class Stream:
        def __init__(self, name: str = "own", non_blocking: bool = False) -> None:
            self.name, self.ptr = name, 0x77
            assert name != "own" or non_blocking, "the default stream would wait for it"

        def record(self, event: Any) -> Any:
            log("record", self.name, event.name)
            return event

        def wait_event(self, event: Any) -> None:
            log("wait", self.name, event.name)

        def begin_capture(self) -> None:
            log("begin", self.name)

        def end_capture(self) -> Any:
            log("end", self.name)
            return types.SimpleNamespace(launch=lambda stream: log("graph", stream.name))

        def __enter__(self) -> None:
            current.append(self)

        def __exit__(self, *_: object) -> None:
            current.pop()

    class Event:
        def __init__(self, disable_timing: bool) -> None:
            assert disable_timing
            self.name = sum(entry[0] == "event" for entry in log)
            log("event", self.name)

        def synchronize(self) -> None:
            log("synchronize", self.name)

    @contextmanager
    def device(index: int) -> Any:
        log("device", index)
        yield

    current.append(Stream("caller"))
    cupy.ndarray, cupy.empty = FakeArray, lambda shape, dtype: FakeArray(nbytes=shape)
    cupy.cuda = types.SimpleNamespace(
        Stream=Stream,
        Event=Event,
        Device=device,
        get_current_stream=lambda: current[-1],
        alloc_pinned_memory=lambda nbytes: bytearray(nbytes + 8),
        runtime=types.SimpleNamespace(memcpyAsync=lambda *a: log("memcpy", *a), memcpyDefault=4),
    )
    cupy.current = current
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(queue, "load_cublas", lambda: None)
    monkeypatch.setattr(queue, "Cublas", lambda library, stream, *rest, owner: log("cublas", stream, *rest))
    return log


def make(log: Log) -> CudaQueue:
    queue = CupyExecutor().queue(FakeArray())
    assert isinstance(queue, CudaQueue)
    del log[:]
    return queue


def test_its_stream_has_a_cublas_handle_and_workspace_of_its_own(log: Log) -> None:
    CudaQueue(FakeArray(device=1))
    assert log[0] == ("device", 1)
    assert ("cublas", 0x77, 0x1000, 32 << 20) in log


def test_a_turn_comes_after_the_callers_work_and_before_what_follows(log: Log) -> None:
    queue, cupy = make(log), sys.modules["cupy"]
    with queue.turn():
        assert cupy.current[-1] is queue.stream
        log("work")
    assert cupy.current[-1].name == "caller"
    before, after = 0, 1
    assert log == [
        ("device", 1),
        ("record", "caller", before),
        ("wait", "own", before),
        ("work",),
        ("record", "own", after),
        ("wait", "caller", after),
    ]


def test_a_graph_is_captured_from_calls_and_launched_on_the_same_stream(log: Log) -> None:
    queue = make(log)
    launch = queue.capture([lambda: log("first"), lambda: log("second")])
    assert log == [("begin", "own"), ("first",), ("second",), ("end", "own")]
    del log[:]
    launch()
    launch()
    assert log == [("graph", "own")] * 2


def test_a_capture_that_fails_is_ended_and_its_own_error_raised(log: Log) -> None:
    queue = make(log)

    def fail() -> None:
        raise BackendError("ours")

    queue.stream.end_capture = lambda: (log("end"), 1 / 0)
    with pytest.raises(BackendError, match="ours"):
        queue.capture([fail])
    assert log == [("begin", "own"), ("end",)]


def test_copies_go_to_its_own_stream_from_either_side(log: Log) -> None:
    queue, source = make(log), np.zeros(4, np.float32)
    queue.copy(source, FakeArray())
    queue.copy(FakeArray(), FakeArray(nbytes=12))
    assert log == [("memcpy", 0x1000, source.ctypes.data, 16, 4, 0x77), ("memcpy", 0x1000, 0x1000, 12, 4, 0x77)]


def test_a_fence_is_set_on_the_stream_and_waited_for_by_the_host(log: Log) -> None:
    fence = make(log).fence()
    name = fence.event.name
    del log[:]
    fence.set()
    fence.wait()
    assert log == [("record", "own", name), ("synchronize", name)]


def test_page_locked_memory_can_be_written_to(log: Log) -> None:
    memory = make(log).pinned(10)
    memory[:] = 3
    assert memory.shape == (10,)
    assert memory.dtype == np.uint8


def test_which_arrays_are_its_own(log: Log) -> None:
    queue = make(log)
    places = [FakeArray(1), FakeArray(0), np.zeros(1)]
    assert [queue.owns(x) for x in places] == [True, False, False]
    assert [queue.name_of(x) for x in places] == ["on GPU 1", "on GPU 0", "on the CPU"]
    with pytest.raises(BackendError, match="cuda takes CuPy arrays, got a NumPy array"):
        CudaQueue(np.zeros(1))


@pytest.mark.parametrize("where", ["allocate", "pinned", "turn"])
def test_cudas_errors_are_one_clear_line(log: Log, where: str) -> None:
    queue = make(log)
    error = type("OutOfMemoryError", (RuntimeError,), {"__module__": "cupy.cuda.memory"})("Out of memory\nallocating")

    def fail(*_: object) -> None:
        raise error

    queue.cupy.empty = queue.cupy.cuda.alloc_pinned_memory = fail
    with pytest.raises(BackendError, match="cuda: .*out of GPU memory; use a smaller batch") as caught:
        if where == "turn":
            with queue.turn():
                fail()
        else:
            getattr(queue, where)(1000)
    assert "\n" not in str(caught.value)


def test_cupy_has_what_is_asked_of_it() -> None:
    cupy = pytest.importorskip("cupy")
    for owner, names in [
        (cupy.cuda, ("Device", "alloc_pinned_memory", "get_current_stream")),
        (cupy.cuda.Stream, ("begin_capture", "end_capture", "record", "wait_event", "__enter__")),
        (cupy.cuda.Event, ("synchronize",)),
        (cupy.cuda.runtime, ("memcpyAsync", "memcpyDefault")),
        (cupy.cuda.graph.Graph, ("launch",)),
        (cupy.cuda.MemoryPointer, ("memset_async",)),
    ]:
        for name in names:
            assert hasattr(owner, name), f"{owner.__name__}.{name}"
    assert "non_blocking" in cupy.cuda.Stream.__init__.__doc__ + cupy.cuda.Stream.__doc__
    assert "disable_timing" in cupy.cuda.Event.__doc__
