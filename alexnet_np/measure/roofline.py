"""A report as a roofline: each contender's rate over its work's arithmetic intensity, under the measured roof.

Source: Williams, Waterman, Patterson, "Roofline" (2009).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.errors import ArgumentError
from alexnet_np.figures import new_figure, save
from alexnet_np.measure.report import Report, Row, title

MARKERS = "osD^vP<>Xph*"
DIRECTIONS = ("forward", "backward")


def draw_roofline(report: Report, path: Path) -> None:
    """Forward and backward beside each other, in the format that the ending of `path` names.

    Raises ArgumentError where no work counts FLOPs: there is nothing to draw.
    """
    rows = [row for row in report.rows if row.gflops and row.gbps]
    if not rows:
        raise ArgumentError("roofline: none of these kernels counts FLOPs; draw it with conv2d or linear among them")
    panels = {name: found for name in DIRECTIONS if (found := [row for row in rows if row.work.endswith(name)])}
    rest = [row for row in rows if not row.work.endswith(DIRECTIONS)]
    panels |= {"": rest} if rest else {}
    figure = new_figure(1.5 + 5.5 * len(panels), 6)
    figure.suptitle(title(report).split(";")[0], fontsize=10)
    names = list(dict.fromkeys(row.contender for row in rows))
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, found) in zip(every, panels.items(), strict=True):
        _draw(axes, found, report.peaks, names)
        axes.set_title(name, fontsize=10, pad=70)
    every[0].set_ylabel("GFLOP/s (direct algorithm)")
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside right center")
    save(figure, path)


def _draw(axes: Any, rows: list[Row], peaks: dict[str, float], names: list[str]) -> None:
    at = {row.work: row.gflops / row.gbps for row in rows}
    grid = np.geomspace(min(0.25, *at.values()) / 2, 4 * max(at.values()), 200)
    axes.plot(grid, np.minimum(peaks["gflops"], grid * peaks["gbps"]), color="black", label="measured roof")
    for i, name in enumerate(names):
        found = [row for row in rows if row.contender == name]
        style = {"color": f"C{i % 10}", "marker": MARKERS[i % len(MARKERS)]}
        axes.scatter([at[r.work] for r in found], [r.gflops for r in found], label=name, s=24, zorder=2, **style)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte (direct algorithm)", xlim=(grid[0], grid[-1]))
    axes.grid(alpha=0.2)
    _name_works(axes, at)


def _name_works(axes: Any, at: dict[str, float]) -> None:
    """Each work's name above its column of points; names that would lie on each other are drawn apart."""
    low, high = np.log(axes.get_xlim())
    works = sorted(at, key=lambda work: at[work])
    wanted = np.array([(np.log(at[work]) - low) / (high - low) for work in works])
    placed, step = wanted.copy(), 0.055
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + step)
    placed -= max(0.0, placed[-1] - 0.97)
    for work, x, place in zip(works, wanted, placed, strict=True):
        axes.plot([x, place], [1.0, 1.04], transform=axes.transAxes, color="0.6", linewidth=0.6, clip_on=False)
        axes.axvline(at[work], color="0.85", linewidth=0.6, zorder=0)
        name = work.partition(",")[0]
        axes.text(place, 1.05, name, transform=axes.transAxes, rotation=60, fontsize=7, ha="left", va="bottom")
