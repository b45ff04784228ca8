"""Training curves and confusion matrices, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.errors import ArgumentError, DataError
from alexnet_np.figures import new_figure, save
from alexnet_np.training.metrics import Event

MOST_CLASSES = 50  # in a confusion matrix that can still be read
SMOOTHING = 1 / 30  # of a run's batches are averaged for a point of its training curve
POINTS = 400  # at most twice as many are drawn


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
        at, mean_loss, mean_error = running_means(batches)
        loss.plot(at, mean_loss, color=f"C{i}", linewidth=1)
        error.plot(at, mean_error, color=f"C{i}", linewidth=1)
        ends = [event["epoch"] for event in epochs]
        style: dict[str, Any] = {"color": f"C{i}", "linewidth": 2, "marker": "o", "markersize": 5}
        loss.plot(ends, [event["loss"] for event in epochs], **style)
        error.plot(ends, [100 * (1 - event["accuracy"]) for event in epochs], **style)
        error.plot([], [], color=f"C{i}", linewidth=4, label=name)
    error.plot([], [], color="0.4", linewidth=1, label="training, running mean")
    error.plot([], [], color="0.4", linewidth=2, marker="o", markersize=5, label="validation")
    for axes, title in ((loss, "loss"), (error, "error, %")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    error.legend(frameon=False)
    save(figure, out)


def running_means(batches: Sequence[Event]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, losses and errors (%): the means of neighbouring batches, a thirtieth of the run at a time."""
    at = np.array([event["epoch"] - 1 + event["batch"] / event["batches"] for event in batches])
    losses = np.array([event["loss"] for event in batches])
    errors = 100 * (1 - np.array([event["accuracy"] for event in batches]))
    window = max(1, round(SMOOTHING * len(batches)))
    means = [np.convolve(column, np.full(window, 1 / window), "valid") for column in (at, losses, errors)]
    step = max(1, len(means[0]) // POINTS)
    return means[0][::step], means[1][::step], means[2][::step]


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
