"""Where a plan runs on the GPU: a stream of its own, with its own cuBLAS handle, memory, page-locked memory and graphs.

Whoever calls a plan goes on at once, and works on another stream. `turn()` keeps the order between the two: what is
queued inside comes after everything the caller's stream holds, and before everything that is put there later.

CuPy refuses its own cuBLAS calls while a stream is captured into a CUDA graph; the handle here is bound to the stream
and has a workspace given beforehand, so it may be captured, and its results do not vary from run to run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

from alexnet_np.device import Array, check_on_gpu, clear_errors, import_cupy, on_gpu
from alexnet_np.kernels.gpu.arguments import address
from alexnet_np.kernels.gpu.cublas import WORKSPACE_BYTES, Cublas, load_cublas


class CudaQueue:
    """On the GPU that `like` is on. Raises BackendError."""

    def __init__(self, like: Array) -> None:
        check_on_gpu(like)
        self.cupy, self.device = import_cupy(), like.device.id
        cuda = self.cupy.cuda
        with clear_errors("cuda: a stream for a plan"), cuda.Device(self.device):
            self.stream = cuda.Stream(non_blocking=True)
            workspace = self.cupy.empty(WORKSPACE_BYTES, np.uint8)
            self.cublas = Cublas(load_cublas(), self.stream.ptr, address(workspace), WORKSPACE_BYTES, owner=workspace)
            self._before, self._after = (cuda.Event(disable_timing=True) for _ in range(2))

    def owns(self, x: Array) -> bool:
        """Whether `x` is on this GPU."""
        return on_gpu(x) and x.device.id == self.device

    def name_of(self, x: Array) -> str:
        """Where `x` is, in words."""
        return f"on GPU {x.device.id}" if on_gpu(x) else "on the CPU"

    def allocate(self, nbytes: int) -> Array:
        """So many bytes on the GPU."""
        with clear_errors(f"cuda: {nbytes:,} bytes for a plan"), self.cupy.cuda.Device(self.device):
            return self.cupy.empty(nbytes, np.uint8)

    def pinned(self, nbytes: int) -> np.ndarray:
        """So many bytes of page-locked memory on the host, which the GPU reads by itself, at the bus's full speed."""
        with clear_errors(f"cuda: {nbytes:,} page-locked bytes"):
            memory = self.cupy.cuda.alloc_pinned_memory(nbytes)
            return np.frombuffer(memory, np.uint8, nbytes)

    def fence(self) -> Fence:
        with clear_errors("cuda: an event"), self.cupy.cuda.Device(self.device):
            return Fence(self)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Inside, this queue's stream is the current one."""
        with clear_errors("cuda: a plan"), self.cupy.cuda.Device(self.device):
            caller = self.cupy.cuda.get_current_stream()
            self.stream.wait_event(caller.record(self._before))
            with self.stream:
                yield
            caller.wait_event(self.stream.record(self._after))

    def copy(self, source: Array, to: Array) -> None:
        """`source`, in C order on either side, to `to` on the GPU; as many bytes. Inside a turn."""
        runtime = self.cupy.cuda.runtime
        runtime.memcpyAsync(address(to), address(source), to.nbytes, runtime.memcpyDefault, self.stream.ptr)

    def capture(self, calls: list[Callable[[], Any]]) -> Callable[[], None]:
        """`calls` as one CUDA graph: what it returns launches them all. Inside a turn."""
        self.stream.begin_capture()
        try:
            for call in calls:
                call()
        except BaseException:
            with suppress(Exception):  # the capture must end; what went wrong is already on its way
                self.stream.end_capture()
            raise
        graph = self.stream.end_capture()
        return partial(graph.launch, self.stream)


class Fence:
    """A place in a queue that the host can wait for."""

    def __init__(self, queue: CudaQueue) -> None:
        self.stream, self.event = queue.stream, queue.cupy.cuda.Event(disable_timing=True)

    def set(self) -> None:
        """Here: after what is queued by now."""
        self.stream.record(self.event)

    def wait(self) -> None:
        """Until the queue has come by; at once where it was never set."""
        with clear_errors("cuda: waiting for a plan"):
            self.event.synchronize()
