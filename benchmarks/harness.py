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
from typing import Any

import numpy as np

PACKAGES = ("alexnet-np", "numpy", "numba", "scipy-openblas32", "torch", "torchvision", "onnxruntime", "openvino")
SETTLE = 0.05  # seconds between turns: thread pools spin on for a while after their work, on the next one's cores
FLUSH_BYTES = 64 << 20  # more than the last-level cache of most machines


@dataclass
class Contender:
    """One way to do the work: a callable, or the reason why it is missing here."""

    name: str
    run: Callable[[], Any] | None
    missing: str = ""


@dataclass
class Work:
    """One computation, what it costs in the plain (direct) algorithm, and who does it."""

    name: str
    flops: float
    bytes: float
    contenders: list[Contender]
    check: Callable[[Any], None] | None = None  # raises AssertionError for a wrong result


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


def machine() -> dict[str, Any]:
    """CPU, cores, threads and versions: what a figure means nothing without."""
    versions = {}
    for package in PACKAGES:
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
    flush = np.zeros(FLUSH_BYTES, np.uint8)
    seconds: dict[str, list[float]] = {c.name: [] for c in present}
    for i in range(rounds):
        progress(f"{work.name}: round {i + 1} of {rounds}")
        for contender in random.Random(i).sample(present, len(present)):  # nobody always follows the same one
            time.sleep(SETTLE)
            if cold:
                flush += 1
            assert contender.run is not None
            seconds[contender.name].append(timed(contender.run))
    rows = [_row(work, name, values, peaks) for name, values in seconds.items()]
    rows += [Row(work.name, c.name, missing=c.missing) for c in work.contenders if c.run is None]
    fastest = min((row.median for row in rows if row.contender in set(peers) and not row.missing), default=0.0)
    for row in rows:
        row.ratio = fastest / row.median if row.median else 0.0
    return rows


def _row(work: Work, name: str, values: list[float], peaks: dict[str, float]) -> Row:
    median = statistics.median(values)
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [median] * 3
    gflops, gbps = work.flops / median / 1e9, work.bytes / median / 1e9
    share = max(gflops / peaks["gflops"], gbps / peaks["gbps"])
    return Row(work.name, name, "", median, min(values), (quartiles[2] - quartiles[0]) / median, gflops, gbps, share)


def table(report: Report) -> Any:
    """The report as a Rich table."""
    from rich.table import Table

    view = Table(title=title(report), title_justify="left", caption_justify="left", box=None, pad_edge=False)
    for head in ("work", "contender"):
        view.add_column(head, no_wrap=True)
    for head in ("median ms", "best ms", "spread", "GFLOP/s", "GB/s", "of peak", "× fastest peer"):
        view.add_column(head, justify="right")
    previous = ""
    for row in report.rows:
        name, previous = ("" if row.work == previous else row.work), row.work
        if row.missing:
            view.add_row(name, row.contender, "missing: " + row.missing)
            continue
        figures = (f"{1e3 * row.median:.3f}", f"{1e3 * row.best:.3f}", f"{row.spread:.0%}", f"{row.gflops:.1f}")
        ratio = f"{row.ratio:.2f}" if row.ratio else ""
        view.add_row(name, row.contender, *figures, f"{row.gbps:.1f}", f"{row.peak_share:.0%}", ratio)
    return view


def title(report: Report) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in report.machine["versions"].items())
    peaks = f"measured peaks {report.peaks['gflops']:.0f} GFLOP/s, {report.peaks['gbps']:.0f} GB/s"
    host = f"{report.machine['cpu']}, {report.machine['cores']} cores; {peaks}"
    return f"{host}\nPython {report.machine['python']}, {versions}"


def compare(before: Report, after: Report) -> list[tuple[str, str, float, float, float]]:
    """(work, contender, before, after, before/after) for every pair both reports have; above 1 is faster now."""
    old = {(row.work, row.contender): row.median for row in before.rows if not row.missing}
    return [
        (row.work, row.contender, old[row.work, row.contender], row.median, old[row.work, row.contender] / row.median)
        for row in after.rows
        if not row.missing and (row.work, row.contender) in old
    ]


def roofline(report: Report, works: Iterable[Work], path: Path) -> None:
    """A PNG: each contender's rate over its work's arithmetic intensity, under this machine's measured roof."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    intensity = {work.name: work.flops / work.bytes for work in works if work.bytes}
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    reach = [0.25, *sorted(intensity.values()), 4 * max(intensity.values(), default=64.0)]
    grid = np.geomspace(min(reach), max(reach), 200)
    roof = np.minimum(report.peaks["gflops"], grid * report.peaks["gbps"])
    axes.plot(grid, roof, color="black", label="measured roof")
    for name in dict.fromkeys(row.contender for row in report.rows):
        rows = [r for r in report.rows if r.contender == name and not r.missing and r.work in intensity]
        axes.scatter([intensity[r.work] for r in rows], [r.gflops for r in rows], label=name, s=24)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte (direct algorithm)", ylabel="GFLOP/s (direct algorithm)")
    axes.set_title(f"{report.machine['cpu']}, {report.machine['cores']} cores", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
