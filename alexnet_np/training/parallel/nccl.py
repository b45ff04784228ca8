"""Processes that have a GPU each: what lies there goes from GPU to GPU by NCCL, on the stream that is the current one.

NCCL moves bytes here, as MPI does on processors, and adds nothing, except where `sum` is asked for. Its calls return at
once and run in the stream's order. Small Python objects, and the first meeting of the processes, stay with MPI.
Source: NVIDIA, "NCCL user guide", ch. "Point-to-point communication": sends and receives of one group go together.
"""

from __future__ import annotations

import importlib
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

from alexnet_np.backend import BACKENDS, check_backend
from alexnet_np.device import Array, array_module, clear_errors, count_gpus, import_cupy
from alexnet_np.errors import BackendError, MissingPackageError
from alexnet_np.training.parallel.group import Group


class Nccl:
    """A Group whose arrays are on GPUs; `group` are the same processes, wherever their arrays are."""

    def __init__(self, group: Group) -> None:
        self.rank, self.size, self._group = group.rank, group.size, group
        self._nccl = import_nccl()
        self._kinds = {"f": self._nccl.NCCL_FLOAT32, "d": self._nccl.NCCL_FLOAT64}
        with clear_errors("cuda: NCCL"):
            identity = group.share(None if group.rank else self._nccl.get_unique_id())
            self._communicator = self._nccl.NcclCommunicator(group.size, identity, group.rank)

    def collect(self, value: Any) -> list[Any]:
        return self._group.collect(value)

    def share(self, value: Any) -> Any:
        return self._group.share(value)

    def end(self, code: int) -> None:
        self._group.end(code)

    def scatter(self, parts: Array, inbox: Array) -> None:
        share = [parts.size // self.size] * self.size
        self._swap(_cut(parts, share), _cut(inbox, share))

    def gather(self, part: Array, whole: Array) -> None:
        with self._queueing() as stream:
            kind = self._kinds[part.dtype.char]
            self._communicator.allGather(part.data.ptr, whole.data.ptr, part.size, kind, stream)

    def gather_uneven(self, part: Array, whole: Array, counts: Sequence[int]) -> None:
        self._swap([part] * self.size, _cut(whole.reshape(-1), counts))

    def scatter_uneven(self, parts: Array, counts: Sequence[int]) -> Array:
        inbox = array_module(parts).empty((self.size, counts[self.rank]), parts.dtype)
        self._swap(_cut(parts, counts), list(inbox))
        return inbox

    def sum(self, numbers: Array) -> None:
        with self._queueing() as stream:
            at, kind = numbers.data.ptr, self._kinds[numbers.dtype.char]
            self._communicator.allReduce(at, at, numbers.size, kind, self._nccl.NCCL_SUM, stream)

    def _swap(self, sends: Sequence[Array], receives: Sequence[Array]) -> None:
        """sends[r] goes to rank r, and receives[r] takes what came from there: all at the same time."""
        with self._queueing() as stream:
            self._nccl.groupStart()
            try:
                for call, arrays in ((self._communicator.send, sends), (self._communicator.recv, receives)):
                    self._each(call, arrays, stream)
            finally:
                self._nccl.groupEnd()

    def _each(self, call: Callable[..., None], arrays: Sequence[Array], stream: int) -> None:
        for peer, array in enumerate(arrays):
            if array.size:  # both sides know
                call(array.data.ptr, array.size, self._kinds[array.dtype.char], peer, stream)

    @contextmanager
    def _queueing(self) -> Iterator[int]:
        """The current stream; before anything is put there, what has gone wrong in earlier calls is raised."""
        with clear_errors("cuda: NCCL"):
            self._communicator.check_async_error()
            yield import_cupy().cuda.get_current_stream().ptr


def _cut(array: Array, counts: Sequence[int]) -> list[Array]:
    return [array[begin:end] for begin, end in pairwise(accumulate(counts, initial=0))]


def import_nccl() -> Any:
    """CuPy's NCCL. Raises MissingPackageError where the library is not there."""
    cuda = import_cupy().cuda.runtime.runtimeGetVersion() // 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the error below says it
        nccl = importlib.import_module("cupy.cuda.nccl")
    if not nccl.available:
        raise MissingPackageError(f"several processes with a GPU each need NCCL: pip install nvidia-nccl-cu{cuda}")
    return nccl


def on_gpus(group: Group, backend: str) -> Group:
    """`group` as it is; where `backend` is one of the GPU, each process on a GPU of its own, and their arrays by NCCL.

    On every machine the n-th of its processes takes the n-th GPU that it sees. Raises BackendError where two have one.
    """
    if group.size == 1 or BACKENDS.get(backend) != "gpu":
        return group
    check_backend(backend)
    host, cupy = socket.gethostname(), import_cupy()
    before = group.collect(host)[: group.rank].count(host)
    with clear_errors("CUDA"):
        device = cupy.cuda.Device(before % count_gpus())
        device.use()
        mine = host, device.pci_bus_id
    everybody = group.collect(mine)
    for rank, (host, bus) in enumerate(everybody):
        if (host, bus) in everybody[:rank]:
            raise BackendError(
                f"ranks {everybody.index((host, bus))} and {rank} would share GPU {bus} of {host}: start as many "
                "processes on a machine as it has GPUs"
            )
    return Nccl(group)
