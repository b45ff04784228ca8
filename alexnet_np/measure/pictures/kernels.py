"""Every kernel's time on the CPU and on the GPU, a line each, beside torch's: from reports of `alexnet bench kernels`.

What no report has measured is said to be missing: no point is an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from alexnet_np.measure.markdown import of_work
from alexnet_np.measure.pictures.accuracy import round_ticks
from alexnet_np.measure.pictures.style import SIZE, SMALL, Picture, begin, by_work, digits, host, plain
from alexnet_np.measure.report import Report, Row

DIRECTIONS = ("forward", "backward", "step")
LINE = 0.205  # inches
APART = 0.08  # of a line: what is equally fast is seen all the same


class Series(NamedTuple):
    device: str
    contenders: tuple[str, ...]  # the fastest of them is the point
    label: str
    colour: str
    marker: str
    filled: bool


SERIES = (
    Series("CPU", ("numpy",), "numpy (array operations)", "0.6", "o", True),
    Series("CPU", ("torch", "torch channels_last", "torch fused"), "torch", "#D55E00", "s", True),
    Series("CPU", ("numba",), "numba (ours)", "#0072B2", "o", True),
    Series("GPU", ("cupy",), "cupy (array operations)", "0.6", "^", False),
    Series("GPU", ("torch", "torch channels_last", "torch fused"), "torch", "#D55E00", "D", False),
    Series("GPU", ("cuda",), "cuda (ours)", "#0072B2", "^", False),
)


def picture(reports: Sequence[Report]) -> Picture:
    """`reports`: a CPU's, and a GPU's if there is one; or either alone."""
    found = {"GPU" if "gpu" in report.machine else "CPU": report for report in reports}
    first = reports[0]
    known = [row for row in first.rows if row.work.split(", ")[-1] in DIRECTIONS or ", strict" in row.work]
    works = [strict(work) for work in by_work(first, known, "the report has no kernel's row")]
    works = [work for work in dict.fromkeys(works) if any(points(found, work).values())]
    title = "Kernels: CPU and GPU"
    figure = begin(first, title, 1.7 + LINE * len(works))
    axes = figure.subplots()
    words = []
    for i, work in enumerate(works):
        times = points(found, work)
        for series, row in times.items():
            if row is not None:
                face = series.colour if series.filled else "white"
                axes.plot(
                    [1e3 * row.median],
                    [i + APART * SERIES.index(series) - 0.2],
                    series.marker,
                    color=series.colour,
                    markersize=6,
                    mfc=face,
                    zorder=2,
                )
        told = (f"{s.device} {row.contender} {digits(1e3 * row.median)}" for s, row in times.items() if row is not None)
        words.append(f"{work}, ms: {', '.join(told)}")
    decorate(axes, works)
    legend(figure, axes, found)
    missing = [f"{device}: not measured." for device in ("CPU", "GPU") if device not in found]
    return Picture(figure, title, "\n".join([*words, *missing]))


def strict(work: str) -> str:
    """A work's name without its arithmetic: a GPU's strict float32 is what a CPU computes."""
    return work.removesuffix(", strict float32")


def points(found: dict[str, Report], work: str) -> dict[Series, Row | None]:
    """Of each series the fastest row for a work."""
    rows = {device: of_work(report, work) for device, report in found.items()}
    made: dict[Series, Row | None] = {}
    for series in SERIES:
        own = [row for name in series.contenders if (row := rows.get(series.device, {}).get(name)) is not None]
        made[series] = min(own, key=lambda row: row.median, default=None)
    return made


def short(work: str, batch: bool) -> str:
    """ "conv2 forward" for "conv2d conv2, batch 8, forward"."""
    first, *rest = work.split(", ")
    told = [part for part in rest if batch or not part.startswith("batch ")]
    return " ".join([first.split(" ", 1)[-1], *told])


def decorate(axes: Any, works: Sequence[str]) -> None:
    plain(axes)
    batches = {part for work in works for part in work.split(", ") if part.startswith("batch ")}
    axes.set_yticks(range(len(works)), [short(work, len(batches) > 1) for work in works], fontsize=SMALL)
    axes.set(xscale="log", ylim=(len(works) - 0.4, -0.6), xlabel=f"ms, {batches.pop()}" if len(batches) == 1 else "ms")
    axes.xaxis.label.set_size(SIZE)
    axes.tick_params(axis="y", length=0)
    axes.grid(alpha=0.25)
    round_ticks(axes.xaxis)


def legend(figure: Any, axes: Any, found: dict[str, Report]) -> None:
    """Each series of a device that was measured; a device that was not is named all the same."""
    handles = []
    for series in SERIES:
        if series.device in found:
            face = series.colour if series.filled else "white"
            label = f"{series.device} {series.label}"
            style = {"color": series.colour, "marker": series.marker, "mfc": face, "linestyle": "none"}
            handles += axes.plot([], [], label=label, markersize=6, **style)
    for device in ("CPU", "GPU"):
        if device not in found:
            handles += axes.plot([], [], " ", label=f"{device}: not measured")
    if len(found) > 1:
        handles += axes.plot([], [], " ", label=f"GPU: {host(found['GPU'])}")
    figure.legend(handles=handles, fontsize=SMALL, loc="outside lower center", ncols=2, frameon=False)
