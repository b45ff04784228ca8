"""Threads that stand in for processes with a GPU each: CuPy, its streams and events, and NCCL, on NumPy's memory.

Work on a stream is done at once; what is watched is the order that a GPU would keep. An array that one stream writes
while another may still use it, for want of an event between the two, is a race, and raises here.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from thread_groups import Hall

from alexnet_np import backend

KINDS = {7: np.float32, 8: np.float64}  # nccl.h


class Stream:
    """`seen`: how far this stream knows every stream to have come, itself included."""

    by_address: dict[int, Stream] = {}

    def __init__(self, non_blocking: bool = False, caller: bool = False) -> None:
        assert non_blocking or caller, "the default stream would wait for it"
        self.ptr, self.seen = id(self), {id(self): 0}
        self.by_address[self.ptr] = self

    def record(self, event: Event) -> Event:
        event.seen, event.stream = dict(self.seen), self
        return event

    def wait_event(self, event: Event) -> None:
        for stream, time in event.seen.items():
            self.seen[stream] = max(time, self.seen.get(stream, 0))

    def __enter__(self) -> None:
        streams().append(self)

    def __exit__(self, *_: object) -> None:
        streams().pop()

    def use(self, array: np.ndarray, writes: bool) -> None:
        """The next piece of work of this stream reads or writes `array`."""
        self.seen[self.ptr] += 1
        root = array
        while isinstance(root.base, DeviceArray):
            root = root.base
        others = root.used if writes else root.written
        late = [stream for stream, time in others.items() if self.seen.get(stream, 0) < time]
        assert not late, f"a race: {'written' if writes else 'read'} before another stream was waited for"
        if writes:
            root.written, root.used = {self.ptr: self.seen[self.ptr]}, {}
        root.used[self.ptr] = self.seen[self.ptr]


class Event:
    def __init__(self, disable_timing: bool = False) -> None:
        self.timed, self.seen, self.stream = not disable_timing, {}, None

    def synchronize(self) -> None:
        assert self.stream is not None


def elapsed(first: Event, second: Event) -> float:
    assert first.timed and second.timed and first.stream and second.stream
    return 2.0


local = threading.local()


def streams() -> list[Stream]:
    """Of this thread, the current one last."""
    if not hasattr(local, "streams"):
        local.streams = [Stream(caller=True)]
    return local.streams


def plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, DeviceArray) else value


class DeviceArray(np.ndarray):
    """What cupy.ndarray is to the package. `used`, `written`: by which stream, and when."""

    used: dict[int, int]
    written: dict[int, int]
    alive: weakref.WeakValueDictionary[int, DeviceArray] = weakref.WeakValueDictionary()

    def __array_finalize__(self, parent: Any) -> None:
        if not isinstance(self.base, DeviceArray):
            self.used, self.written = {}, {}
            self.alive[id(self)] = self

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def device(self) -> Any:
        return SimpleNamespace(id=getattr(local, "device", 0))

    def get(self) -> np.ndarray:
        streams()[-1].use(self, writes=False)
        return np.array(plain(self))

    def __setitem__(self, place: Any, value: Any) -> None:
        self._watch([value], [self])
        plain(self)[place] = plain(value)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        out = options.pop("out", ())
        self._watch(inputs, out)
        if out:
            options["out"] = tuple(map(plain, out))
        found = getattr(ufunc, method)(*map(plain, inputs), **options)
        return out[0] if out else found.view(DeviceArray) if isinstance(found, np.ndarray) else found

    @staticmethod
    def _watch(reads: Any, writes: Any) -> None:
        for array in (a for a in reads if isinstance(a, DeviceArray)):
            streams()[-1].use(array, writes=False)
        for array in (a for a in writes if isinstance(a, DeviceArray)):
            streams()[-1].use(array, writes=True)


def at(address: int, count: int, kind: int) -> DeviceArray:
    """The array that lies at an address."""
    nbytes = count * np.dtype(KINDS[kind]).itemsize
    for root in [found for reference in DeviceArray.alive.valuerefs() if (found := reference()) is not None]:
        begin = address - root.ctypes.data
        if begin >= 0 and begin + nbytes <= root.nbytes and root.flags.c_contiguous:
            return root.reshape(-1)[begin // root.itemsize :][:count]
    raise AssertionError("an address where no array is")


class Communicator:
    halls: dict[Any, Hall] = {}
    numbers = itertools.count()  # of all stand-ins: an address may come again, and with it a hall of another size
    lock = threading.Lock()

    def __init__(self, size: int, identity: Any, rank: int) -> None:
        with self.lock:
            self.hall = self.halls.setdefault(identity, Hall(size))
        assert self.hall.size == size
        self.rank, self.size, self.failed = rank, size, None
        self.streams: set[int] = set()  # that it was called on

    def check_async_error(self) -> None:
        if self.failed is not None:
            raise self.failed

    def _use(self, stream: int, array: DeviceArray, writes: bool) -> DeviceArray:
        self.streams.add(stream)
        Stream.by_address[stream].use(array, writes)
        return array

    def send(self, address: int, count: int, kind: int, peer: int, stream: int) -> None:
        array = self._use(stream, at(address, count, kind), writes=False)
        local.group.append(("send", self, peer, array))

    def recv(self, address: int, count: int, kind: int, peer: int, stream: int) -> None:
        array = self._use(stream, at(address, count, kind), writes=True)
        local.group.append(("recv", self, peer, array))

    def allGather(self, source: int, to: int, count: int, kind: int, stream: int) -> None:  # noqa: N802 - CuPy's name
        part = self._use(stream, at(source, count, kind), writes=False)
        whole = self._use(stream, at(to, count * self.size, kind), writes=True)
        plain(whole)[...] = np.concatenate(self.hall.meet(self.rank, np.array(plain(part))))

    def allReduce(self, source: int, to: int, count: int, kind: int, operation: int, stream: int) -> None:  # noqa: N802
        assert operation == 0
        numbers = self._use(stream, at(source, count, kind), writes=True)
        plain(at(to, count, kind))[...] = np.sum(self.hall.meet(self.rank, np.array(plain(numbers))), 0)


def group_start() -> None:
    local.group = []


def group_end() -> None:
    calls, local.group = local.group, []
    communicator = calls[0][1]
    sent: dict[int, list[np.ndarray]] = {}
    for what, _, peer, array in calls:
        if what == "send":
            sent.setdefault(peer, []).append(np.array(plain(array)))
    everybody = communicator.hall.meet(communicator.rank, sent)
    for what, _, peer, array in calls:
        if what == "recv":
            plain(array)[...] = everybody[peer][communicator.rank].pop(0)


class Device:
    def __init__(self, index: int | None = None) -> None:
        self.id = getattr(local, "device", 0) if index is None else index
        self.pci_bus_id = f"0000:{self.id:02x}:00.0"

    def use(self) -> None:
        local.device = self.id

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def on_device(function: Any) -> Any:
    def run(*arguments: Any, **options: Any) -> Any:
        result = function(*map(plain, arguments), **options)
        return result.view(DeviceArray) if isinstance(result, np.ndarray) else result

    return run


def stand_in(gpus: int) -> ModuleType:
    """CuPy on a machine with so many GPUs, as far as it is asked for anything here."""
    module: Any = ModuleType("cupy")
    for name, value in vars(np).items():
        if not name.startswith("__"):
            function = callable(value) and not isinstance(value, type)
            setattr(module, name, on_device(value) if function else value)
    module.__spec__, module.ndarray = ModuleSpec("cupy", None), DeviceArray
    module.asarray = lambda x, dtype=None: np.array(plain(x), dtype).view(DeviceArray)
    module.nccl = SimpleNamespace(
        available=True,
        get_unique_id=lambda: ("id", next(Communicator.numbers)),
        NcclCommunicator=Communicator,
        groupStart=group_start,
        groupEnd=group_end,
        NCCL_FLOAT32=7,
        NCCL_FLOAT64=8,
        NCCL_SUM=0,
    )
    runtime = SimpleNamespace(getDeviceCount=lambda: gpus, getDevice=lambda: 0, runtimeGetVersion=lambda: 13000)
    module.cuda = SimpleNamespace(
        Stream=Stream,
        Event=Event,
        Device=Device,
        runtime=runtime,
        get_current_stream=lambda: streams()[-1],
        get_elapsed_time=elapsed,
    )
    return module


def four_gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fixture: a machine that has them."""
    module: Any = stand_in(4)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", module.nccl)
    monkeypatch.setattr(backend, "_usable", {"numpy"})
    return module
