"""How exact, and how fast: each contender's error to float64 over its time, both logarithmic; a panel a work.

What lies lower is more exact, what lies further left is faster; nothing is worse in both than what deserves its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alexnet_np.measure.pictures import style
from alexnet_np.measure.pictures.labels import name_points
from alexnet_np.measure.pictures.peers import common, own
from alexnet_np.measure.pictures.style import Picture, begin, by_work, marks, plain
from alexnet_np.measure.report import Report, Row

PANEL = 3.4  # inches
FEW = 300.0  # the ends of an axis apart, up to which there is room for 2 and 5


def picture(reports: Sequence[Report]) -> Picture:
    (report,) = reports
    known = [row for row in report.rows if not row.missing and row.error]
    works = by_work(report, known, "no row has an error; `alexnet bench model --reduced` measures them")
    shared = common(list(works))
    title = f"Accuracy against time: {shared[:1].lower()}{shared[1:]}"
    figure = begin(report, title, 0.9 + PANEL * len(works))
    panels = figure.subplots(len(works), 1, squeeze=False)[:, 0]
    figure.supxlabel(
        "left is faster, lower is more exact; hollow: fewer bits than float32", fontsize=style.SMALL, color=style.GREY
    )
    words = []
    for axes, (work, rows) in zip(panels, works.items(), strict=True):
        axes.set_title(own(work, shared), fontsize=style.SIZE, loc="left")
        points(axes, rows)
        told = (
            f"{row.contender} {style.digits(style.each(row))} ms {row.error:.1e}"
            for row in sorted(rows, key=style.each)
        )
        words.append(f"{work}, ms an image and relative error: {', '.join(told)}")
    for axes, rows in zip(panels, works.values(), strict=True):
        at = [(style.each(row), row.error or 0.0) for row in rows]
        name_points(axes, at, [row.contender for row in rows], [style.FAMILIES[style.family(row)][0] for row in rows])
    return Picture(figure, title, "\n".join(words))


def points(axes: Any, rows: Sequence[Row]) -> None:
    for row in rows:
        axes.plot([style.each(row)], [row.error], **marks(row))
    plain(axes)
    times, errors = [style.each(row) for row in rows], [row.error or 0.0 for row in rows]
    axes.set(xscale="log", yscale="log", xlabel="ms an image", ylabel="relative error of the logits")
    axes.set(xlim=(min(times) / 1.7, max(times) * 2.2), ylim=(min(errors) / 10, max(errors) * 6))
    axes.xaxis.label.set_size(style.SIZE), axes.yaxis.label.set_size(style.SIZE)
    round_ticks(axes.xaxis)
    axes.grid(alpha=0.25)


def round_ticks(axis: Any) -> None:
    """1, 2, 5, 10 ... as they are read, instead of powers of ten; 1, 10, 100 where there are many decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high < FEW * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
