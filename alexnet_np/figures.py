"""A picture drawn by Matplotlib, which is an extra: a figure to draw in, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alexnet_np.errors import MissingPackageError
from alexnet_np.files import picture


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches. Raises MissingPackageError."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("pictures need matplotlib: pip install matplotlib") from None
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, out: Path) -> None:
    with picture(out) as (temporary, form):
        figure.savefig(temporary, format=form, dpi=120)
