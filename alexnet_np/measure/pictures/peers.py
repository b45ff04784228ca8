"""Who takes how long: a panel a work (one batch size, say), a bar a contender, the fastest above."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from alexnet_np.measure.pictures.style import (
    FAMILIES,
    GREY,
    SIZE,
    SMALL,
    Picture,
    begin,
    by_work,
    digits,
    each,
    family,
    plain,
)
from alexnet_np.measure.report import Report, Row

PARTS = ("decoding alone", "network alone")  # of a job: together the bound that scheduling works against
BAR = 0.21  # inches


def picture(reports: Sequence[Report]) -> Picture:
    (report,) = reports
    works = by_work(report, [row for row in report.rows if not row.missing], "the report has no row")
    shared = common(list(works))
    heights = [len(rows) + 1.7 for rows in works.values()]
    figure = begin(report, shared or "Times", 0.9 + BAR * sum(heights))
    panels = figure.subplots(len(works), 1, squeeze=False, height_ratios=heights)[:, 0]
    words = []
    for axes, (work, rows) in zip(panels, works.items(), strict=True):
        rows = sorted(rows, key=lambda row: row.median)
        unit = "ms an image" if rows[0].images else "ms"
        bars(axes, rows)
        axes.set_title(", ".join(filter(None, (own(work, shared), unit))), fontsize=SIZE, loc="left")
        words.append(f"{work}, {unit}: " + ", ".join(f"{row.contender} {said(row)}" for row in rows))
    legend = "shorter is faster; thin line: the middle half of the turns;\n×: the fastest peer's time over this one's"
    if any(row.reduced for row in report.rows):
        legend += "; hatched: fewer bits than float32"
    figure.supxlabel(legend, fontsize=SMALL, color=GREY)
    return Picture(figure, shared or "Times", "\n".join(words))


def common(works: Sequence[str]) -> str:
    """What all names of works begin with, up to a comma: "inference, torchvision" of several batches."""
    parts = [work.split(", ") for work in works]
    shared = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1 or (len(works) == 1 and re.match(r"batch \d", column[0])):
            break
        shared.append(column[0])
    text = ", ".join(shared)
    return text[:1].upper() + text[1:]


def own(work: str, shared: str) -> str:
    """What is left of a work's name."""
    return work[len(shared) :].removeprefix(", ")


def said(row: Row) -> str:
    ratio = f", {row.ratio:.2f}×" if row.ratio and not row.is_peer else ""
    return f"{digits(each(row))}{ratio}"


def bars(axes: Any, rows: Sequence[Row]) -> None:
    longest = max(each(row) * (1 + row.spread / 2) for row in rows)
    for i, row in enumerate(rows):
        colour, _ = FAMILIES[family(row)]
        middle, half = each(row), each(row) * row.spread / 2
        face: dict[str, Any] = {"color": colour}
        if row.reduced:
            face = {"facecolor": "white", "edgecolor": colour, "hatch": "/////"}
        axes.barh(i, middle, height=0.72, linewidth=0.8, **face)
        axes.plot([max(0.0, middle - half), middle + half], [i, i], color="0.25", linewidth=1)
        axes.text(middle + half + 0.015 * longest, i, said(row), fontsize=SMALL, va="center")
    bound = [each(row) for row in rows if row.contender in PARTS]
    if len(bound) == len(PARTS):
        axes.axvline(sum(bound), color="0.25", linestyle="--", linewidth=1)
        axes.text(sum(bound), -0.62, "bound: both parts", fontsize=SMALL, color=GREY, ha="center", va="bottom")
    plain(axes)
    axes.set_yticks(range(len(rows)), [row.contender for row in rows], fontsize=SIZE)
    axes.set(xlim=(0, 1.27 * longest), ylim=(len(rows) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
