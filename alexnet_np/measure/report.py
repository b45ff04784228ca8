"""What a benchmark found: rows, saved as JSON and compared. table.py shows them, pictures/ draws them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alexnet_np.text import html_table

PEERS = ("torch", "onnxruntime", "openvino")  # a contender is a peer when its name begins so


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
    peak: str = "gflops"  # which of the report's peaks bounds its arithmetic
    error: float | None = None  # of its result to the same in float64, relative (L2); None where nobody has looked
    reduced: bool = False  # it computes or keeps numbers in fewer bits than float32
    images: int = 0  # that a turn takes; 0 where it is not about images

    def share_of(self, peaks: dict[str, float]) -> float:
        """Of the machine's peaks, of arithmetic or of memory, whichever is nearer.

        Above 1 where an algorithm multiplies less than the direct one, which is counted, or data stay in caches.
        """
        return max(self.gflops / peaks[self.peak], self.gbps / peaks["gbps"])

    @property
    def floor(self) -> float:
        """Seconds below which the direct algorithm cannot go at the measured peaks, of arithmetic and of memory."""
        return self.median * self.peak_share

    @property
    def is_peer(self) -> bool:
        return self.contender.startswith(PEERS)

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
    notes: list[str] = field(default_factory=list)  # what the rows of a work say together

    def _repr_html_(self) -> str:
        """What a notebook shows: the times of every contender, and why one is missing."""
        head = ("work", "contender", "", "median ms", "best ms", "spread", "× fastest peer")
        rows = [
            (row.work, row.contender, f"missing: {row.missing}", "", "", "", "")
            if row.missing
            else (
                row.work,
                row.contender,
                "",
                f"{1e3 * row.median:.3f}",
                f"{1e3 * row.best:.3f}",
                f"{row.spread:.0%}",
                f"{row.ratio:.2f}" if row.ratio else "",
            )
            for row in self.rows
        ]
        return html_table(head, rows, words=3, caption=title(self))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def raise_peaks(self, peaks: dict[str, float]) -> None:
        """Measured once more: the better of both is nearer to what the machine can do, and shares are of that."""
        self.peaks = {name: max(rate, peaks[name]) for name, rate in self.peaks.items()}
        for row in self.rows:
            row.peak_share = row.share_of(self.peaks)

    @classmethod
    def load(cls, path: Path) -> Report:
        stored = json.loads(path.read_text())
        return cls(stored["machine"], stored["peaks"], [Row(**row) for row in stored["rows"]], stored.get("notes", []))


def title(report: Report) -> str:
    """Machine, peaks and versions, in two lines."""
    machine = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    rates = {name.removeprefix("gflops"): rate for name, rate in report.peaks.items() if name != "gbps"}
    arithmetic = ", ".join(f"{rate:.0f} GFLOP/s{label}" for label, rate in rates.items())
    peaks = f"measured peaks {arithmetic}, {report.peaks['gbps']:.0f} GB/s"
    host = machine["gpu"] if "gpu" in machine else f"{machine['cpu']}, {machine['cores']} cores"
    busy = f"\nBusy: {machine['busy']}; these figures are worth little" if machine.get("busy") else ""
    return f"{host}; {peaks}\nPython {machine['python']}, {versions}{busy}"


def compare(before: Report, after: Report) -> list[tuple[str, str, float, float, float]]:
    """(work, contender, before, after, before/after) for every pair both reports have; above 1 is faster now."""
    old = {(row.work, row.contender): row.median for row in before.rows if not row.missing}
    return [
        (row.work, row.contender, old[row.work, row.contender], row.median, old[row.work, row.contender] / row.median)
        for row in after.rows
        if not row.missing and (row.work, row.contender) in old
    ]
