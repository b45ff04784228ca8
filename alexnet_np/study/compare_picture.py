"""A comparison of two networks as a picture: how far apart each layer is, and what each difference alone changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_np.figures import new_figure, save
from alexnet_np.study.compare import TOLERANCE, Compared
from alexnet_np.study.differences import Effect

SMALLEST = 1e-8  # a difference below is drawn as this: float32's rounding


def draw_compared(compared: Compared, out: Path) -> None:
    """Layer by layer on the left, difference by difference on the right. Raises MissingPackageError, ArgumentError."""
    rows = max(len(compared.pairs), len(compared.effects))
    figure = new_figure(11 if compared.effects else 6, 1.2 + 0.24 * rows)
    axes = figure.subplots(1, 2 if compared.effects else 1, squeeze=False)[0]
    _layers(axes[0], compared)
    if compared.effects:
        _effects(axes[1], compared.effects, "what b does otherwise, each alone in a", rows)
    figure.suptitle(f"a: {compared.a}     b: {compared.b}", fontsize=10)
    save(figure, out)


def draw_effects(effects: Sequence[Effect], title: str, out: Path) -> None:
    """What each of the nine differences alone changes. Raises MissingPackageError, ArgumentError."""
    figure = new_figure(8, 1.2 + 0.26 * len(effects))
    _effects(figure.subplots(), effects, "each difference alone")
    figure.suptitle(title, fontsize=10)
    save(figure, out)


def _layers(axes: Any, compared: Compared) -> None:
    for row, pair in enumerate(compared.pairs):
        if pair.difference is not None:
            colour = "C3" if pair.parts else "C0"
            axes.plot([SMALLEST, max(pair.difference, SMALLEST)], [row, row], color=colour, linewidth=1)
            axes.plot(max(pair.difference, SMALLEST), row, "o", color=colour, markersize=4)
        else:
            words = "other shapes" if pair.a and pair.b else "a alone" if pair.a else "b alone"
            axes.text(SMALLEST * 1.5, row, words, va="center", fontsize=7, color="0.4")
    axes.axvline(TOLERANCE, color="0.7", linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlim(SMALLEST, 10)
    axes.set_xlabel("max |b - a| / max |a|")
    _names(axes, [f"{pair.name} {(pair.a or pair.b).type}" for pair in compared.pairs])  # type: ignore[union-attr]


def _effects(axes: Any, effects: Sequence[Effect], title: str, rows: int = 0) -> None:
    for row, effect in enumerate(effects):
        if effect.change is None:
            axes.text(0, row, " other shapes", va="center", fontsize=7, color="0.4")
        else:
            axes.barh(row, effect.change, color=f"C{effect.number}", height=0.7)
            axes.text(effect.change, row, f" {effect.change:.2g}", va="center", fontsize=7)
    axes.set_xlabel("change of the logits, where the largest is 1")
    axes.set_title(title, fontsize=9)
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    _names(axes, [f"{effect.difference}: {effect.words}" for effect in effects], rows)


def _names(axes: Any, names: Sequence[str], rows: int = 0) -> None:
    """A row for each name, the first on top; as many as `rows` have room."""
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(max(len(names), rows) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
