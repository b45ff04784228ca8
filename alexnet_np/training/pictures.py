"""Training curves and confusion matrices as PNG files, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.errors import ArgumentError, DataError, MissingPackageError
from alexnet_np.training.metrics import Event
from alexnet_np.weights.files import replacing

MOST_CLASSES = 50  # in a confusion matrix that can still be read
POINTS = 400  # a training curve is averaged down to so many


def draw_curves(runs: Mapping[str, Sequence[Event]], out: Path) -> None:
    """Loss and error over the epochs: thin lines for training (running mean), thick ones with dots for validation.

    `runs`: name -> the "batch" and "epoch" events of a run, in order. Raises MissingPackageError; DataError where there
    is nothing to draw yet.
    """
    figure = new_figure(11, 4.2)
    loss, error = figure.subplots(1, 2)
    for i, (name, events) in enumerate(runs.items()):
        batches = [event for event in events if event["kind"] == "batch"]
        epochs = [event for event in events if event["kind"] == "epoch"]
        if not batches:
            raise DataError(f"{name}: nothing to draw yet; wait for the first batches")
        label, colour = f"{name} " if len(runs) > 1 else "", f"C{i}"
        at, mean_loss, accuracy = smoothed(batches)
        loss.plot(at, mean_loss, color=colour, linewidth=1, alpha=0.6, label=f"{label}training")
        error.plot(at, 100 * (1 - accuracy), color=colour, linewidth=1, alpha=0.6, label=f"{label}training")
        ends = [event["epoch"] for event in epochs]
        style: dict[str, Any] = {"color": colour, "linewidth": 2, "marker": "o", "markersize": 4}
        loss.plot(ends, [event["loss"] for event in epochs], label=f"{label}validation", **style)
        error.plot(ends, [100 * (1 - event["accuracy"]) for event in epochs], label=f"{label}validation", **style)
    for axes, title in ((loss, "loss"), (error, "error, %")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    error.legend()
    save(figure, out)


def smoothed(batches: Sequence[Event]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, losses and accuracies of the batches, averaged over as many at a time as leaves some hundred points."""
    at = np.array([event["epoch"] - 1 + event["batch"] / event["batches"] for event in batches])
    columns = at, np.array([event["loss"] for event in batches]), np.array([event["accuracy"] for event in batches])
    group = max(1, len(batches) // POINTS)
    whole = len(batches) // group * group
    means = [column[:whole].reshape(-1, group).mean(1) for column in columns]
    return means[0], means[1], means[2]


def draw_confusion(confusion: np.ndarray, classes: Sequence[str], out: Path) -> None:
    """The share of each class (row) that was taken for each class (column), with the numbers of images in the cells.

    Raises MissingPackageError; ArgumentError for more than 50 classes.
    """
    K = len(classes)
    if K > MOST_CLASSES:
        raise ArgumentError(f"{out}: a confusion matrix of {K} classes cannot be read; at most {MOST_CLASSES}")
    side = 2.5 + 0.45 * K
    figure = new_figure(side, side)
    axes = figure.subplots()
    share = confusion / np.maximum(1, confusion.sum(1, keepdims=True))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(K), classes, rotation=90)
    axes.set_yticks(range(K), classes)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    for row, column in np.argwhere(confusion):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize=7, color=colour)
    save(figure, out)


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches. Raises MissingPackageError."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("pictures need matplotlib: pip install 'alexnet-np[plots]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, out: Path) -> None:
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
