"""Reports as pictures, measured now or read from their JSON: one a file, each with its numbers as words inside it.

peers.py      who takes how long for an image: a panel a batch, the fastest above
accuracy.py   how far each is from float64, over how long it takes
roofline.py   the rate of each layer and pass over its arithmetic intensity, under the measured roof
kernels.py    every kernel's time on the CPU and on the GPU, beside torch's
style.py      colours, marks and words that they share; labels.py: names beside points, none on another
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from alexnet_np.errors import ArgumentError
from alexnet_np.figures import save
from alexnet_np.measure.pictures import accuracy, kernels, peers, roofline
from alexnet_np.measure.pictures.style import Picture
from alexnet_np.measure.report import Report

KINDS: dict[str, Callable[[Sequence[Report]], Picture]] = {
    "peers": peers.picture,
    "accuracy": accuracy.picture,
    "roofline": roofline.picture,
    "kernels": kernels.picture,
}


def draw(reports: Sequence[Report], kind: str, out: Path) -> None:
    """The picture `kind` of the reports into `out`, in the format that its ending names.

    "kernels" takes a CPU's report and, if there is one, a GPU's; the others take one report. Raises ArgumentError where
    the reports hold nothing of the kind; MissingPackageError without Matplotlib.
    """
    if len(reports) > (2 if kind == "kernels" else 1):
        raise ArgumentError(f"{kind}: {len(reports)} reports are too many; draw them one by one")
    made = KINDS[kind](reports)
    save(made.figure, out, made.title, made.words)


def fitting(report: Report) -> str:
    """The kind that says most of a report: kernels have directions, everything else is compared with its peers."""
    return "kernels" if any(kernels.strict(row.work).endswith(kernels.DIRECTIONS) for row in report.rows) else "peers"
