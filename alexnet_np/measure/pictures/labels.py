"""Names beside the points of a plot: none on another, none on a point, all within the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from alexnet_np.measure.pictures.style import SMALL

DISTANCES = (7, 12, 18, 26, 36, 48, 62, 78)  # points from the mark to the nearest edge of its name
ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200)  # degrees, in the order in which they are tried
NEAR = 12  # from farther away a line leads to the mark
MARK = 5  # half a mark's side, points

Box = tuple[float, float, float, float]  # left, bottom, right, top, in points


def name_points(
    axes: Any, points: Sequence[tuple[float, float]], names: Sequence[str], colours: Sequence[str], avoid: Any = ()
) -> None:
    """Write each of `names` beside its point. Limits and scales must stand already; the layout is fixed here.

    `avoid`: further points that no name may cover.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # where the axes lie is only known once they are laid out
    unit = figure.dpi / 72  # pixels a point
    inside = [side / unit for side in axes.get_window_extent().extents]
    at = [[side / unit for side in axes.transData.transform(point)] for point in (*points, *avoid)]
    taken: list[Box] = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in at]
    for (x, y), point, name, colour in zip(at, points, names, colours, strict=False):
        text = axes.annotate(name, point, (0, 0), textcoords="offset points", fontsize=SMALL, color=colour, va="center")
        text.set_in_layout(False)
        size = text.get_window_extent()
        place = best_place((x, y), (size.width / unit, size.height / unit), taken, inside)
        taken += [place.box, *place.line]
        text.set_position((place.dx, place.dy))
        text.set_horizontalalignment("center")
        if place.line:
            arrow = {"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkA": 0, "shrinkB": MARK}
            end, edge = nearest_of((x, y), place.box)
            line = axes.annotate("", point, (end - x, edge - y), textcoords="offset points", arrowprops=arrow)
            line.set_in_layout(False)


class Place(NamedTuple):
    box: Box
    dx: float  # from the point to the box's middle
    dy: float
    line: list[Box]  # pieces of the line that leads from the mark to the name, where it is far away


def best_place(
    point: tuple[float, float], size: tuple[float, float], taken: Sequence[Box], inside: Sequence[float]
) -> Place:
    """The first place that is free, or the one that covers least."""
    (x, y), (width, height) = point, size
    found = []
    for distance in DISTANCES:
        for angle in ANGLES:
            right, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            dx, dy = right * (distance + width / 2), up * (distance + height / 2)
            box = (x + dx - width / 2, y + dy - height / 2, x + dx + width / 2, y + dy + height / 2)
            line = line_to(point, box) if distance > NEAR else []
            covered = sum(overlap(piece, other) for piece in (box, *line) for other in taken) + outside(box, inside)
            if not covered:
                return Place(box, dx, dy, line)
            found.append((covered, Place(box, dx, dy, line)))
    return min(found, key=lambda each: each[0])[1]


def nearest_of(point: tuple[float, float], box: Box) -> tuple[float, float]:
    """The point of a box that is nearest to `point`."""
    (x, y), (left, bottom, right, top) = point, box
    return min(max(x, left), right), min(max(y, bottom), top)


def line_to(point: tuple[float, float], box: Box) -> list[Box]:
    """Small boxes along the line from outside a point's mark to a box."""
    (x, y), (end, edge) = point, nearest_of(point, box)
    length = math.hypot(end - x, edge - y)
    steps = [MARK + 2 + 2 * i for i in range(int((length - MARK - 3) / 2))]
    at = [(x + (end - x) * step / length, y + (edge - y) * step / length) for step in steps]
    return [(a - 0.5, b - 0.5, a + 0.5, b + 0.5) for a, b in at]


def overlap(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def outside(box: Box, inside: Sequence[float]) -> float:
    """How much of a box lies beyond the axes: worse than lying on another."""
    whole = (box[2] - box[0]) * (box[3] - box[1])
    return 10 * (whole - overlap(box, (inside[0], inside[1], inside[2], inside[3])))
