"""What the pictures of reports share: colours that everybody can tell apart, marks, and the machine in words.

A picture is five inches wide, so that its letters can be read where a page shows it at the width of a telephone.
Colours: Okabe and Ito, "Color Universal Design" (2008).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from alexnet_np.errors import ArgumentError
from alexnet_np.figures import new_figure
from alexnet_np.measure.report import PEERS, Report, Row

WIDTH = 5.0  # inches
SIZE = 9  # points, of most letters
SMALL = 8
GREY = "0.45"

FAMILIES = {  # who a contender belongs to -> colour and mark
    "alexnet-np": ("#0072B2", "o"),
    "torch": ("#D55E00", "s"),
    "onnxruntime": ("#009E73", "^"),
    "openvino": ("#AA4499", "D"),
}


class Picture(NamedTuple):
    figure: Any
    title: str
    words: str  # what it shows, for whoever does not see it


def family(row: Row) -> str:
    return next((name for name in PEERS if row.contender.startswith(name)), "alexnet-np")


def marks(row: Row, size: float = 7) -> dict[str, Any]:
    """How a row's point is drawn: hollow where it computes or keeps numbers in fewer bits."""
    colour, marker = FAMILIES[family(row)]
    face = "white" if row.reduced else colour
    return {"color": colour, "marker": marker, "markersize": size, "markerfacecolor": face, "linestyle": "none"}


def begin(report: Report, title: str, height: float) -> Any:
    """A figure with its title, and the machine under it."""
    figure = new_figure(WIDTH, height)
    figure.suptitle(f"{title}\n", fontsize=11, fontweight="bold")
    figure.text(0.5, 1 - 0.27 / height, host(report), fontsize=SMALL, color=GREY, ha="center", va="top")
    return figure


def host(report: Report) -> str:
    """The machine in a few words."""
    machine = report.machine
    name = machine["gpu"] if "gpu" in machine else f"{machine['cpu']}, {machine['cores']} cores"
    return f"{name}; {machine['busy'].partition(' (')[0]}" if machine.get("busy") else name


def plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SIZE)


def by_work(report: Report, rows: list[Row], what: str) -> dict[str, list[Row]]:
    """The rows of each work, in the report's order. Raises ArgumentError where there are none."""
    if not rows:
        raise ArgumentError(f"nothing to draw: {what}")
    return {work: [row for row in rows if row.work == work] for work in dict.fromkeys(row.work for row in rows)}


def each(row: Row) -> float:
    """Milliseconds: an image's where a work counts images, else a turn's."""
    return 1e3 * row.median / (row.images or 1)


def digits(number: float) -> str:
    """Three of them."""
    return f"{number:.3g}" if number < 1000 else f"{number:.0f}"
