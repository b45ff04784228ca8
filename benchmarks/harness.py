"""What every benchmark shares: contenders that take turns, the machine's own measured peaks, a table, JSON, a roofline.

A work is one computation (an op at one shape, a whole network at one batch) with several contenders. They are verified
first, warmed up (compilation is not timed), then run in turn, round after round, so that a slow moment of the machine
hits all of them alike. Ratios of medians are what to read; seconds are only this machine's.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from alexnet_np.errors import ArgumentError

PACKAGES = ("alexnet-np", "numpy", "numba", "scipy-openblas32", "torch", "torchvision", "onnxruntime", "openvino")
SETTLE = 0.25  # seconds between turns: thread pools spin on after their work (OpenBLAS 0.1 s), on the next one's cores
FLUSH_BYTES = 64 << 20  # more than the last-level cache of most machines


class Clock(Protocol):
    """Times a call, and sets the stage for it."""

    def rest(self) -> None:
        """Before every turn: nobody else's work is still under way."""

    def clear(self) -> None:
        """Leave nothing of the contenders' in the caches."""

    def seconds(self, run: Callable[[], Any]) -> float: ...


class WallClock:
    """A call on the CPU."""

    def __init__(self) -> None:
        self.flush = np.zeros(0, np.uint8)

    def rest(self) -> None:
        time.sleep(SETTLE)

    def clear(self) -> None:
        if not self.flush.size:
            self.flush = np.zeros(FLUSH_BYTES, np.uint8)
        self.flush += 1

    def seconds(self, run: Callable[[], Any]) -> float:
        return timed(run)


@dataclass
class Contender:
    """One way to do the work: a callable, or the reason why it is missing here."""

    name: str
    run: Callable[[], Any] | None
    missing: str = ""
    peak: str = "gflops"  # which of the report's peaks bounds its arithmetic


@dataclass
class Work:
    """One computation, what it costs in the plain (direct) algorithm, and who does it."""

    name: str
    flops: float
    bytes: float
    contenders: list[Contender]
    check: Callable[[Any], None] | None = None  # raises AssertionError for a wrong result
    clock: Clock = field(default_factory=WallClock)


@dataclass
class Row:
    work: str
    contender: str
    missing: str = ""
    median: float = 0.0  # seconds
    best: float = 0.0
    spread: float = 0.0  # (third quartile - first quartile) / median
    gflops: float = 0.0  # of the direct algorithm, so a fast algorithm may pass the machine's peak
    gbps: float = 0.0
    peak_share: float = 0.0
    ratio: float = 0.0  # fastest peer's median / this median: above 1 is faster than every peer

    @property
    def floor(self) -> float:
        """Seconds below which the direct algorithm cannot go at the measured peaks, of arithmetic and of memory."""
        return self.median * self.peak_share

    @property
    def flops(self) -> float:
        return 1e9 * self.gflops * self.median

    @property
    def bytes(self) -> float:
        return 1e9 * self.gbps * self.median


@dataclass
class Report:
    machine: dict[str, Any]
    peaks: dict[str, float]
    rows: list[Row] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Report:
        stored = json.loads(path.read_text())
        return cls(stored["machine"], stored["peaks"], [Row(**row) for row in stored["rows"]])


def machine(packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """CPU, cores, threads and versions: what a figure means nothing without."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
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


Run = tuple[Callable[[], Any] | None, str]  # a callable, or None and why it is missing


def attempt(make: Callable[[], Run]) -> Run:
    """A contender that is not installed, or does not start here, is named with the reason rather than left out."""
    try:
        return make()
    except Exception as error:
        return None, " ".join(str(error).split())[:100]


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(
    work: Work,
    peaks: dict[str, float],
    peers: Iterable[str] = (),
    rounds: int = 11,
    cold: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Verify, warm up, then time every contender in turn. `cold` clears the caches before each run."""
    present = [c for c in work.contenders if c.run is not None]
    for contender in present:
        progress(f"{work.name}: {contender.name}, verify and warm up")
        assert contender.run is not None
        for _ in range(2):
            result = contender.run()
        if work.check is not None:
            work.check(result)
    seconds: dict[str, list[float]] = {c.name: [] for c in present}
    for i in range(rounds):
        progress(f"{work.name}: round {i + 1} of {rounds}")
        for contender in random.Random(i).sample(present, len(present)):  # nobody always follows the same one
            work.clock.rest()
            if cold:
                work.clock.clear()
            assert contender.run is not None
            seconds[contender.name].append(work.clock.seconds(contender.run))
    rows = [_row(work, c, seconds[c.name], peaks) for c in present]
    rows += [Row(work.name, c.name, missing=c.missing) for c in work.contenders if c.run is None]
    fastest = min((row.median for row in rows if row.contender in set(peers) and not row.missing), default=0.0)
    for row in rows:
        row.ratio = fastest / row.median if row.median else 0.0
    return rows


def _row(work: Work, contender: Contender, values: list[float], peaks: dict[str, float]) -> Row:
    median = statistics.median(values)
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [median] * 3
    gflops, gbps = work.flops / median / 1e9, work.bytes / median / 1e9
    share = max(gflops / peaks[contender.peak], gbps / peaks["gbps"])
    spread = (quartiles[2] - quartiles[0]) / median
    return Row(work.name, contender.name, "", median, min(values), spread, gflops, gbps, share)


def table(report: Report) -> Any:
    """The report as a Rich table; a GPU's has the floor beside each time."""
    from rich.table import Table

    view = Table(title=title(report), title_justify="left", caption_justify="left", box=None, pad_edge=False)
    for head in ("work", "contender"):
        view.add_column(head, no_wrap=True)
    gpu = "gpu" in report.machine
    heads = ("median ms", "best ms", "spread", "GFLOP/s", "GB/s", *(["floor ms"] if gpu else []), "of peak")
    for head in (*heads, "× fastest peer"):
        view.add_column(head, justify="right")
    previous = ""
    for row in report.rows:
        name, previous = ("" if row.work == previous else row.work), row.work
        if row.missing:
            view.add_row(name, row.contender, "missing: " + row.missing)
            continue
        figures = [f"{1e3 * row.median:.3f}", f"{1e3 * row.best:.3f}", f"{row.spread:.0%}", f"{row.gflops:.1f}"]
        figures += [f"{row.gbps:.1f}", *([f"{1e3 * row.floor:.3f}"] if gpu else []), f"{row.peak_share:.0%}"]
        view.add_row(name, row.contender, *figures, f"{row.ratio:.2f}" if row.ratio else "")
    return view


def title(report: Report) -> str:
    """Machine, peaks and versions, in two lines."""
    machine = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    rates = {name.removeprefix("gflops"): rate for name, rate in report.peaks.items() if name != "gbps"}
    arithmetic = ", ".join(f"{rate:.0f} GFLOP/s{label}" for label, rate in rates.items())
    peaks = f"measured peaks {arithmetic}, {report.peaks['gbps']:.0f} GB/s"
    host = machine["gpu"] if "gpu" in machine else f"{machine['cpu']}, {machine['cores']} cores"
    return f"{host}; {peaks}\nPython {machine['python']}, {versions}"


def compare(before: Report, after: Report) -> list[tuple[str, str, float, float, float]]:
    """(work, contender, before, after, before/after) for every pair both reports have; above 1 is faster now."""
    old = {(row.work, row.contender): row.median for row in before.rows if not row.missing}
    return [
        (row.work, row.contender, old[row.work, row.contender], row.median, old[row.work, row.contender] / row.median)
        for row in after.rows
        if not row.missing and (row.work, row.contender) in old
    ]


def roofline(report: Report, works: Iterable[Work], path: Path) -> None:
    """A PNG: each contender's rate over its work's arithmetic intensity, under this machine's measured roof.

    Raises ArgumentError where no work counts FLOPs: there is nothing to draw.
    """
    intensity = {work.name: work.flops / work.bytes for work in works if work.flops and work.bytes}
    if not intensity:
        raise ArgumentError("roofline: none of these kernels counts FLOPs; draw it with conv2d or linear among them")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    reach = [0.25, *sorted(intensity.values()), 4 * max(intensity.values())]
    grid = np.geomspace(min(reach), max(reach), 200)
    roof = np.minimum(report.peaks["gflops"], grid * report.peaks["gbps"])
    axes.plot(grid, roof, color="black", label="measured roof")
    for name in dict.fromkeys(row.contender for row in report.rows):
        rows = [r for r in report.rows if r.contender == name and not r.missing and r.work in intensity]
        axes.scatter([intensity[r.work] for r in rows], [r.gflops for r in rows], label=name, s=24)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte (direct algorithm)", ylabel="GFLOP/s (direct algorithm)")
    axes.set_title(title(report).split(";")[0], fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
