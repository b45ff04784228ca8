"""The machine that is measured: what it is, the most it can do, and whether somebody else is using it meanwhile."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.threads import describe_blas

PACKAGES = ("alexnet-np", "numpy", "numba", "scipy-openblas32", "torch", "torchvision", "onnxruntime", "openvino")
PROC = Path("/proc")
LOOK = 0.5  # seconds that the machine is looked at
BUSY = 0.15  # cores in use by others from which it is said: a tenth of two is more than a clock and a desktop take


def machine(packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """CPU, cores, threads and versions: what a figure means nothing without."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    versions["NumPy's BLAS"] = describe_blas()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "cpu": model,
        "cores": len(own_cores()),
        "python": platform.python_version(),
        "versions": versions,
    }


def measure_peaks() -> dict[str, float]:
    """This machine's float32 GEMM rate (GFLOP/s) and read bandwidth (GB/s), on all its cores, as measured now."""
    a = np.random.default_rng(0).random((2048, 2048), dtype=np.float32)
    product = min(timed(lambda: a @ a) for _ in range(5))
    wide = np.ones(64 << 20, np.uint8).view(np.float32)
    vector = np.ones((4096, 1), np.float32)
    read = min(timed(lambda: wide.reshape(-1, 4096) @ vector) for _ in range(5))  # a matrix-vector product reads once
    return {"gflops": 2 * 2048**3 / product / 1e9, "gbps": wide.nbytes / read / 1e9}


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Others(NamedTuple):
    """What other programs take of the cores that this process may use."""

    cores: float
    names: list[str]  # those that take most, with how much

    def __str__(self) -> str:
        named = f" ({', '.join(self.names)})" if self.names else ""
        return f"other programs keep {self.cores:.1f} of the {len(own_cores())} cores busy{named}"


def others(seconds: float = LOOK) -> Others | None:
    """Who else computes, while this process sleeps; None where nobody to speak of does, or nobody can tell."""
    if not (PROC / "stat").exists():
        return None
    before, running = busy_ticks(), process_ticks()
    start, own = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    elapsed = (time.perf_counter() - start) * os.sysconf("SC_CLK_TCK")
    own_ticks = (time.process_time() - own) * os.sysconf("SC_CLK_TCK")
    cores = (busy_ticks() - before - own_ticks) / elapsed
    if cores < BUSY:
        return None
    taken = {
        pid: (name, (ticks - running.get(pid, ("", ticks))[1]) / elapsed)
        for pid, (name, ticks) in process_ticks().items()
    }
    most = sorted(taken.values(), key=lambda each: -each[1])[:3]
    return Others(cores, [f"{name} {share:.1f}" for name, share in most if share > BUSY])


def own_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def busy_ticks() -> int:
    """Of the cores that this process may use: all their time but that idle and waiting for disks (man proc_stat)."""
    mine = {f"cpu{core}" for core in own_cores()}
    lines = (line.split() for line in (PROC / "stat").read_text().splitlines())
    return sum(sum(map(int, line[1:9])) - int(line[4]) - int(line[5]) for line in lines if line[0] in mine)


def process_ticks() -> dict[int, tuple[str, int]]:
    """Process -> name, and the ticks it has computed; this process apart."""
    found = {}
    for folder in PROC.glob("[0-9]*"):
        try:
            name, _, fields = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has ended
            continue
        if int(folder.name) != os.getpid():
            found[int(folder.name)] = (name, sum(map(int, fields.split()[11:13])))
    return found
