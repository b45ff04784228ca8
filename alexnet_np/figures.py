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


def save(figure: Any, out: Path, title: str = "", words: str = "") -> None:
    """Write it in the format that the ending of `out` names; the same figure gives the same file.

    `words`: what it shows, kept in the file with its title where the format has room for them.
    """
    from matplotlib import rc_context

    with picture(out) as (temporary, form), rc_context({"svg.hashsalt": "alexnet-np"}):
        figure.savefig(temporary, format=form, dpi=120, metadata=about(form, title, words) or None)


def about(form: str, title: str, words: str) -> dict[str, Any]:
    """What a file of this format says of itself."""
    if form in ("svg", "png"):
        said = {"Title": title, "Description": words}
    else:
        said = {"Title": title, "Subject": words} if form == "pdf" else {}
    dates: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form, {})
    return {key: text for key, text in said.items() if text} | dates
