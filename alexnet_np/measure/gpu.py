"""The GPU as every benchmark meets it: where arrays go, how a call is timed, and the most that the machine can do.

Times are between two events in the stream that the work is queued on. Inputs take turns: so many copies of them that
together they do not fit in the L2 cache. `Gpu` is all that a test has to put something else in place of.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from itertools import cycle
from typing import Any, Protocol

import numpy as np

from alexnet_np.backend import check_backend
from alexnet_np.device import Array, clear_errors, to_cpu, to_gpu
from alexnet_np.kernels.gemm_cuda import gemm, matmul_precision
from alexnet_np.kernels.gpu.runtime import empty
from alexnet_np.measure import machine as host

PACKAGES = ("alexnet-np", "numpy", "torch", "torchvision", "triton")
ROTATION = 2  # an input's copies together fill the L2 cache so many times
MOST_COPIES = 512
SCRATCH_BYTES, WRITES = 256 << 20, 16  # 4 GiB: more than a millisecond on an H100, and several times any L2 cache

PEAKS = {"strict": "gflops", "tf32": "gflops TF32", "tf32x3": "gflops TF32x3"}  # an arithmetic's name in Report.peaks
LABELS = {"strict": "strict float32", "tf32": "TF32"}  # and a work's


class Machine(Protocol):
    backends: dict[str, str]  # "cupy" and "cuda": the backend to choose
    torch_device: str
    l2_bytes: int

    def place(self, array: np.ndarray) -> Array: ...

    def seconds(self, run: Callable[[], Any]) -> float:
        """Of what `run` queues, from when it begins to be queued or the device is free for it, whichever is later."""

    def synchronize(self) -> None: ...

    def overwrite(self) -> None:
        """Queue writes that leave nothing else in L2, and keep the device busy while `run` queues its work."""

    def release(self) -> None:
        """Give back the memory of what nobody refers to any more: CuPy and torch each keep it for themselves."""

    def about(self) -> dict[str, Any]: ...


class Gpu:
    """The first GPU, by CuPy. Raises BackendError where there is none."""

    backends = {"cupy": "cupy", "cuda": "cuda"}
    torch_device = "cuda"

    def __init__(self) -> None:
        check_backend("cuda")
        import cupy

        self.cupy = cupy
        self.properties = cupy.cuda.runtime.getDeviceProperties(0)
        self.l2_bytes = int(self.properties["l2CacheSize"])
        with clear_errors("bench"):
            self.scratch = cupy.empty(max(SCRATCH_BYTES, 2 * self.l2_bytes), np.uint8)

    def place(self, array: np.ndarray) -> Array:
        return to_gpu(array)

    def seconds(self, run: Callable[[], Any]) -> float:
        start, stop = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        start.record()
        run()
        stop.record()
        stop.synchronize()
        return 1e-3 * self.cupy.cuda.get_elapsed_time(start, stop)

    def synchronize(self) -> None:
        self.cupy.cuda.runtime.deviceSynchronize()

    def overwrite(self) -> None:
        for _ in range(WRITES):
            self.scratch.fill(0)

    def release(self) -> None:
        gc.collect()
        self.cupy.get_default_memory_pool().free_all_blocks()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()

    def about(self) -> dict[str, Any]:
        """CPU and versions as everywhere, and the GPU's."""
        runtime = self.cupy.cuda.runtime
        about = host.machine(PACKAGES)
        about["versions"]["cupy"] = self.cupy.__version__
        return about | {
            "gpu": self.properties["name"].decode(),
            "multiprocessors": int(self.properties["multiProcessorCount"]),
            "l2_bytes": self.l2_bytes,
            "memory_bytes": int(self.properties["totalGlobalMem"]),
            "driver": runtime.driverGetVersion(),
            "cuda": runtime.runtimeGetVersion(),
        }


class EventClock:
    """Times by the machine's events.

    The device is idle when a call begins, so launching from Python counts: what a user of the whole network waits for.
    With `kernels`, writes are queued before: launches hide behind them, L2 holds nothing of use, and what is timed is
    the kernels' own time.
    """

    def __init__(self, machine: Machine, kernels: bool = False) -> None:
        self.machine, self.kernels = machine, kernels

    def rest(self) -> None:
        self.machine.synchronize()

    def clear(self) -> None:
        self.machine.overwrite()
        self.machine.synchronize()

    def seconds(self, run: Callable[[], Any]) -> float:
        if self.kernels:
            self.machine.overwrite()
        return self.machine.seconds(run)


def copies(machine: Machine, array: np.ndarray) -> list[Array]:
    """`array` on the machine, so many times that the copies do not fit in L2 together (at most MOST_COPIES)."""
    return [machine.place(array) for _ in range(copies_needed(array.nbytes, machine.l2_bytes))]


def copies_needed(bytes: int, l2_bytes: int) -> int:
    return max(1, min(MOST_COPIES, -(-ROTATION * l2_bytes // max(1, bytes))))


def in_turn(run: Callable[..., Any], *inputs: list[Any]) -> Callable[[], Any]:
    """A call of `run` on the next of `inputs`, whose lists go round together."""
    turns = cycle(zip(*inputs, strict=True))
    return lambda: run(*next(turns))


def to_numpy(array: Any) -> np.ndarray:
    """A CuPy array, a torch tensor on any device or a NumPy array, as the last."""
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(to_cpu(array))


def measure_peaks(machine: Machine, side: int = 8192, copy_bytes: int = 1 << 30) -> dict[str, float]:
    """GFLOP/s of a large product in each arithmetic, GB/s of a large copy (read plus written), as measured now."""
    clock = EventClock(machine, kernels=True)
    draw = np.random.default_rng(0).standard_normal
    a, b = (machine.place(draw((1, side, side), np.float32)) for _ in range(2))
    out = empty((1, side, side), a)
    peaks = {}
    for arithmetic, name in PEAKS.items():
        with matmul_precision(arithmetic):
            gemm(a, b, out)  # warms up
            peaks[name] = 2 * side**3 / min(clock.seconds(lambda: gemm(a, b, out)) for _ in range(5)) / 1e9
    source, target = (machine.place(np.zeros(copy_bytes // 4, np.float32)) for _ in range(2))

    def copy() -> None:
        target[...] = source

    copy()
    peaks["gbps"] = 2 * copy_bytes / min(clock.seconds(copy) for _ in range(5)) / 1e9
    return peaks
