"""Where reports go: JSON to compare and to draw later, Markdown, or a picture, by the ending of the file's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alexnet_np.errors import ArgumentError
from alexnet_np.figures import new_figure
from alexnet_np.files import DRAWN, picture_format
from alexnet_np.measure import markdown, pictures
from alexnet_np.measure.report import Report

TEXT = (".json", ".md")


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in DRAWN


def check(path: Path, report: bool = False) -> None:
    """What would fail after minutes of measuring fails now. `report`: it may be text too.

    Raises ArgumentError; MissingPackageError for a picture without Matplotlib.
    """
    if report and not is_picture(path) and path.suffix.lower() not in TEXT:
        raise ArgumentError(f"{path}: a report is saved as {', '.join((*TEXT, *DRAWN))}, by the ending of its name")
    if report and not is_picture(path):
        if not path.parent.is_dir():
            raise ArgumentError(f"{path}: there is no folder {path.parent}; create it first")
        return
    picture_format(path)
    new_figure(1, 1)


def write(report: Report, path: Path) -> None:
    """As JSON, as Markdown, or as the picture that fits the report."""
    if is_picture(path):
        draw([report], pictures.fitting(report), path)
    elif path.suffix.lower() == ".md":
        path.write_text(markdown.page(report), encoding="utf-8")
    else:
        report.save(path)


def draw(reports: Sequence[Report], kind: str, path: Path) -> None:
    """As the picture `kind`, or as Markdown, a table a report."""
    if path.suffix.lower() == ".md":
        path.write_text("\n".join(markdown.page(report) for report in reports), encoding="utf-8")
    else:
        pictures.draw(reports, kind, path)
