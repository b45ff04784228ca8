"""A report as a roofline: each layer's rate over its arithmetic intensity, under the measured roof, a panel a pass.

Named is the fastest of ours, with a line to the fastest peer; every other version is a grey dot. Rates are the direct
algorithm's over the time taken: above the roof is who multiplies less, as Winograd's convolutions do.
Source: Williams, Waterman, Patterson, "Roofline" (2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet_np.errors import ArgumentError
from alexnet_np.measure.pictures.accuracy import round_ticks
from alexnet_np.measure.pictures.labels import name_points
from alexnet_np.measure.pictures.style import FAMILIES, SIZE, SMALL, Picture, begin, digits, plain
from alexnet_np.measure.report import Report, Row

DIRECTIONS = ("forward", "backward")
PANEL = 3.3  # inches
OURS, PEER = FAMILIES["alexnet-np"][0], FAMILIES["torch"][0]


def picture(reports: Sequence[Report]) -> Picture:
    (report,) = reports
    rows = [row for row in report.rows if row.gflops and row.gbps]
    if not rows:
        raise ArgumentError("roofline: none of these kernels counts FLOPs; draw it with conv2d or linear among them")
    panels = {name: found for name in DIRECTIONS if (found := [row for row in rows if row.work.endswith(name)])}
    rest = [row for row in rows if not row.work.endswith(DIRECTIONS)]
    kinds = {row.work.rpartition(", ")[2] for row in rest}
    panels |= {kinds.pop() if len(kinds) == 1 else "": rest} if rest else {}
    figure = begin(report, "Roofline", 0.9 + PANEL * len(panels))
    every = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (name, found) in zip(every, panels.items(), strict=True):
        _draw(axes, found, report.peaks)
        axes.set_title(name, fontsize=SIZE, loc="left")
    every[-1].set_xlabel("FLOP per byte (as GFLOP/s: the direct algorithm's)", fontsize=SIZE)
    handles = every[0].get_legend_handles_labels()
    figure.legend(*handles, fontsize=SMALL, loc="outside lower center", ncols=2, frameon=False)
    words = []
    for axes, found in zip(every, panels.values(), strict=True):
        bests = [each for each in map(of_work, works(found).values()) if each[0] is not None]
        named = [ours for ours, _ in bests if ours is not None]
        at = [(row.gflops / row.gbps, row.gflops) for row in named]
        avoid = [(peer.gflops / peer.gbps, peer.gflops) for _, peer in bests if peer is not None]
        avoid += roof(report.peaks, np.geomspace(axes.get_xlim()[0], axes.get_xlim()[1], 80))
        name_points(axes, at, [layer(row) for row in named], [OURS] * len(named), avoid)
        words += [told(*each) for each in bests]
    return Picture(figure, "Roofline", "\n".join(words))


def works(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {work: [row for row in rows if row.work == work] for work in dict.fromkeys(row.work for row in rows)}


def of_work(rows: Sequence[Row]) -> tuple[Row | None, Row | None]:
    """The fastest of ours and the fastest peer."""
    fastest = [[row for row in rows if row.is_peer is peer] for peer in (False, True)]
    ours, theirs = (min(found, key=lambda row: row.median, default=None) for found in fastest)
    return ours, theirs


def roof(peaks: dict[str, float], grid: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(grid, np.minimum(peaks["gflops"], grid * peaks["gbps"]), strict=True))


def layer(row: Row) -> str:
    """What to call a point: the layer without its op, or a network's batch."""
    return f"batch {row.images}" if row.images else row.work.split(", ")[0].split(" ", 1)[-1]


def told(ours: Row | None, peer: Row | None) -> str:
    assert ours is not None
    theirs = "" if peer is None else f"; {peer.contender} {digits(peer.gflops)}"
    intensity = f"{ours.gflops / ours.gbps:.3g} FLOP/byte"
    return f"{ours.work}: {ours.contender} {digits(ours.gflops)} GFLOP/s at {intensity}{theirs}"


def _draw(axes: Any, rows: Sequence[Row], peaks: dict[str, float]) -> None:
    at = {row.work: row.gflops / row.gbps for row in rows}
    grid = np.geomspace(min(0.25, *at.values()) / 2, 4 * max(at.values()), 200)
    axes.plot(*zip(*roof(peaks, grid), strict=True), color="black", label="measured roof")
    labels = {"ours": "fastest of alexnet-np", "peer": "fastest peer", "rest": "other versions"}
    for work, found in works(rows).items():
        ours, peer = of_work(found)
        x = at[work]
        others = [row.gflops for row in found if row not in (ours, peer)]
        axes.plot([x] * len(others), others, ".", color="0.75", markersize=4, label=labels.pop("rest", None), zorder=1)
        if ours is not None and peer is not None:
            axes.plot([x, x], [ours.gflops, peer.gflops], color="0.6", linewidth=0.8, zorder=1)
        for who, key, colour, marker in ((ours, "ours", OURS, "o"), (peer, "peer", PEER, "s")):
            if who is not None:
                style = {"color": colour, "marker": marker, "markersize": 6, "linestyle": "none"}
                axes.plot([x], [who.gflops], label=labels.pop(key, None), zorder=2, **style)
    rates = [row.gflops for row in rows]
    axes.set(xscale="log", yscale="log", ylabel="GFLOP/s", xlim=(grid[0], grid[-1]))
    axes.set(ylim=(min(rates) / 1.6, 2.0 * max(peaks["gflops"], *rates)))
    axes.yaxis.label.set_size(SIZE)
    plain(axes)
    for axis in (axes.xaxis, axes.yaxis):
        round_ticks(axis)
    axes.grid(alpha=0.25)
