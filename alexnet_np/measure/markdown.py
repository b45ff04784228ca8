"""Saved reports as Markdown: every row of one, or RESULTS.md's table of the CPU against the GPU.

    python -m alexnet_np.measure.markdown REPORT.json                  every row of a report
    python -m alexnet_np.measure.markdown --against CPU.json [GPU.json] [--into benchmarks/RESULTS.md]

The second needs reports of `alexnet bench kernels --out`, at the same batch. With --into, it takes the place of what
stands between the two marks in that file. What no report measured says so: nothing is estimated.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from alexnet_np.measure.gpu import LABELS
from alexnet_np.measure.report import Report, Row, title

BEGIN, END = "<!-- cpu-against-gpu: written by alexnet_np.measure.markdown -->", "<!-- cpu-against-gpu: end -->"
NOT_MEASURED = "not measured"
CONTENDERS = {"CPU": ("numpy", "numba", "torch"), "GPU": ("cupy", "cuda", "torch")}


def page(report: Report) -> str:
    """The machine, then a table of every row."""
    heads = ["work", "contender", "median ms", "best ms", "spread", "GFLOP/s", "GB/s", "floor ms", "× fastest peer"]
    errors = any(row.error is not None for row in report.rows)
    heads += ["error"] if errors else []
    lines, previous = [], ""
    for row in report.rows:
        name, previous = ("" if row.work == previous else row.work), row.work
        if row.missing:
            lines.append([name, row.contender, f"missing: {row.missing}", *[""] * (len(heads) - 3)])
            continue
        times = milliseconds(row.median), milliseconds(row.best), f"{row.spread:.0%}"
        ratio = f"{row.ratio:.2f}" if row.ratio else ""
        rates = f"{row.gflops:.0f}", f"{row.gbps:.0f}", milliseconds(row.floor), ratio
        error = "" if row.error is None else f"{row.error:.1e}"
        lines.append([name, row.contender, *times, *rates, *([error] if errors else [])])
    return f"{title(report)}\n\n{table(heads, lines)}"


def against(cpu: Report, gpu: Report | None) -> str:
    """Every kernel that `cpu` measured: FLOPs, bytes, and on each machine the floor and the best times in ms."""
    heads = ["kernel", "MFLOP", "MB"]
    heads += [f"{device} {name}" for device, names in CONTENDERS.items() for name in ("floor", *names)]
    lines = []
    for work in dict.fromkeys(row.work for row in cpu.rows):
        ours, theirs = of_work(cpu, work), {} if gpu is None else of_work(gpu, work)
        if "numpy" not in ours:  # an algorithm of ours alone, beside its peers
            continue
        first = next(iter(ours.values()))
        costs = f"{first.flops / 1e6:.4g}" if first.flops else "", f"{first.bytes / 1e6:.4g}"
        lines.append((work, *costs, *cells(ours, "CPU"), *cells(theirs, "GPU")))
    return table(heads, lines)


def of_work(report: Report, work: str) -> dict[str, Row]:
    """The measured rows of a work, or of its strict float32 where a report tells arithmetics apart."""
    names = work, f"{work}, {LABELS['strict']}"
    return {row.contender: row for row in report.rows if row.work in names and not row.missing}


def cells(rows: dict[str, Row], device: str) -> list[str]:
    floor = milliseconds(next(iter(rows.values())).floor) if rows else NOT_MEASURED
    names = CONTENDERS[device]
    return [floor, *(milliseconds(rows[name].best) if name in rows else NOT_MEASURED for name in names)]


def milliseconds(seconds: float) -> str:
    """Three significant digits."""
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] + ["--:"] * (len(heads) - 1), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def write_into(path: Path, text: str) -> None:
    """Put `text` between the marks in the file."""
    whole = path.read_text(encoding="utf-8")
    if not re.search(f"{BEGIN}.*{END}", whole, flags=re.DOTALL):
        raise SystemExit(f"{path}: nowhere to write: no {BEGIN} ... {END}")
    written = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{text}{END}", whole, flags=re.DOTALL)
    path.write_text(written, encoding="utf-8")


def section(cpu: Report, gpu: Report | None) -> str:
    """RESULTS.md's: which machines, then the table."""
    machines = {"CPU": title(cpu), "GPU": NOT_MEASURED if gpu is None else title(gpu)}
    named = "".join(f"- {device}: {text}.\n".replace("\nPython", "; Python") for device, text in machines.items())
    return f"{named}\n{against(cpu, gpu)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT.json")
    parser.add_argument("--against", action="store_true", help="the reports are a CPU's and, if there is one, a GPU's")
    parser.add_argument("--into", type=Path, metavar="FILE", help="write into this file, between the marks")
    arguments = parser.parse_args()
    reports = [Report.load(path) for path in arguments.reports]
    if arguments.against:
        text = section(reports[0], reports[1] if len(reports) > 1 else None)
    else:
        text = "\n".join(page(report) for report in reports)
    if arguments.into is None:
        print(text, end="")
    else:
        write_into(arguments.into, text)


if __name__ == "__main__":
    main()
