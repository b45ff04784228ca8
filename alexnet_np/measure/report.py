"""What a benchmark found: rows, saved as JSON, shown as a table, compared, drawn as a roofline."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.errors import ArgumentError


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


def roofline(report: Report, path: Path) -> None:
    """A PNG: each contender's rate over its work's arithmetic intensity, under this machine's measured roof.

    Raises ArgumentError where no work counts FLOPs: there is nothing to draw.
    """
    intensity = {row.work: row.gflops / row.gbps for row in report.rows if row.gflops and row.gbps}
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
