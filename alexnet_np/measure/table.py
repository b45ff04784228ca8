"""A report as a table that fits its terminal: a heading a work, a line a contender, fewer columns if it is narrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from alexnet_np.measure.report import Report, Row, title

INDENT, GAP = 2, 2


class Column(NamedTuple):
    head: str
    cell: Callable[[Row], str]
    legend: str = ""


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"


def share(row: Row) -> str:
    return f"{row.peak_share:.0%}" if row.peak_share <= 1 else ">100%"


COLUMNS = (  # in the order in which they stand
    Column("median ms", lambda row: milliseconds(row.median)),
    Column("best ms", lambda row: milliseconds(row.best)),
    Column("spread", lambda row: f"{row.spread:.0%}", "spread: from the first to the third quartile, of the median."),
    Column(
        "GFLOP/s",
        lambda row: f"{row.gflops:.1f}" if row.gflops else "",
        "GFLOP/s, GB/s: the direct algorithm's, over the median.",
    ),
    Column("GB/s", lambda row: f"{row.gbps:.1f}"),
    Column("floor ms", lambda row: milliseconds(row.floor), "floor: the direct algorithm at the measured peaks."),
    Column("of peak", share, "of peak: of the measured peak of arithmetic or of memory, whichever is nearer."),
    Column(
        "× fastest peer",
        lambda row: f"{row.ratio:.2f}" if row.ratio else "",
        "× fastest peer: the fastest peer's median over this one's; above 1 is faster than every peer.",
    ),
    Column(
        "error",
        lambda row: "" if row.error is None else f"{row.error:.1e}",
        "error: of the result to float64, relative (L2).",
    ),
)
IMPORTANCE = ("median ms", "× fastest peer", "best ms", "error", "of peak", "spread", "GFLOP/s", "floor ms", "GB/s")
OVER = "Over 100%: fewer multiplications than the direct algorithm's, which are counted (Winograd), or data in caches."


class ReportTable:
    """`rich.print(ReportTable(report))`; a GPU's has the floor beside each time."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.rows = [row for row in report.rows if not row.missing]
        empty = set() if "gpu" in report.machine else {"floor ms"}
        empty |= {"error"} if all(row.error is None for row in self.rows) else set()
        self.columns = [c for c in COLUMNS if c.head not in empty]
        self.widths = {c.head: max(map(len, (c.head, *map(c.cell, self.rows)))) for c in self.columns}
        self.name = max((len(row.contender) for row in report.rows), default=0)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        columns = self.fitting(options.max_width)
        yield Text(title(self.report) + "\n", "dim")
        yield Text(self.line("", [column.head for column in columns], columns), "bold")
        for work in dict.fromkeys(row.work for row in self.report.rows):
            yield Text(work, "bold")
            rows = [row for row in self.report.rows if row.work == work]
            for row in sorted(rows, key=lambda row: bool(row.missing)):
                told = [f"missing: {row.missing}"] if row.missing else [column.cell(row) for column in columns]
                yield Text(self.line(row.contender, told, columns))
        yield Text("\n" + " ".join(self.legends(columns)), "dim")

    def line(self, name: str, cells: list[str], columns: list[Column]) -> str:
        widths = [self.widths[column.head] for column in columns]
        aligned = (f"{'':{GAP}}{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))
        return f"{'':{INDENT}}{name:{self.name}}{''.join(aligned)}"

    def fitting(self, width: int) -> list[Column]:
        """As many columns as there is room for, the important ones first."""
        left = width - INDENT - self.name
        kept = set()
        for head in IMPORTANCE:
            if head in self.widths and self.widths[head] + GAP <= left:
                left -= self.widths[head] + GAP
                kept.add(head)
        return [column for column in self.columns if column.head in kept]

    def legends(self, columns: list[Column]) -> list[str]:
        said = [column.legend for column in columns if column.legend]
        over = any(row.peak_share > 1 for row in self.rows) and any(column.head == "of peak" for column in columns)
        return [*said, OVER] if over else said
