"""One picture's way through a network, drawn: of each block the maps that answer most, of dense layers every unit.

A block is a convolution or dense layer with what follows it up to the next. Its maps are those of its last layer that
has any; the strongest are those of the largest mean |value|. They share one scale: from 0 upwards where no value of the
block is below 0, else red above 0 and blue below, white at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.device import Array, to_cpu
from alexnet_np.figures import new_figure, save
from alexnet_np.layers import WeightedLayer
from alexnet_np.models import AlexNet
from alexnet_np.study.units import activations

STRONGEST = 8  # maps of a block
NAMED = 5  # units and classes


class Block(NamedTuple):
    name: str  # of its first layer and its last: "features.0 to features.2"
    values: np.ndarray  # what the last layer gives: (C,H,W), or (units,)

    @property
    def strongest(self) -> list[int]:
        """Maps by their mean |value|, units by their |value|, the strongest first; equal ones in their order."""
        size = np.abs(self.values).reshape(len(self.values), -1).mean(1)
        return np.argsort(-size, kind="stable")[:STRONGEST].tolist()


def blocks(model: AlexNet, seen: dict[str, Array]) -> list[Block]:
    """`seen`: every layer's output for one image, as `activations` gives them."""
    found: list[Block] = []
    first, rank = "", 0
    for name, layer in model.leaves():
        values = to_cpu(seen[name])
        if isinstance(layer, WeightedLayer):
            first, rank = name, values.ndim
            found.append(Block(name, values))
        elif found and values.ndim == rank:
            found[-1] = Block(f"{first} to {name}", values)
    return found


def draw_walk(model: AlexNet, x: Array, labels: Sequence[str], title: str, out: Path) -> list[Block]:
    """The picture, in a file; returns what it shows. `x`: one image (C,H,W), as the model takes it.

    Raises ArgumentError, MissingPackageError, DataError, and what the model raises.
    """
    seen = activations(model, x)
    found = blocks(model, seen)
    figure = new_figure(1.35 * (STRONGEST + 1), 1.55 * (len(found) + 1))
    figure.suptitle(title, fontsize=11)
    grid = figure.add_gridspec(len(found) + 1, STRONGEST + 1)
    for row, block in enumerate(found):
        head = figure.add_subplot(grid[row, 0])
        head.set_axis_off()
        head.text(0, 0.5, _words(block), fontsize=8, va="center", transform=head.transAxes)
        if block.values.ndim == 3:
            _maps(figure, grid, row, block)
        else:
            _units(figure.add_subplot(grid[row, 1:]), block)
    _classes(figure.add_subplot(grid[-1, 1:]), to_cpu(seen["softmax"]), labels)
    save(figure, out)
    return found


def _words(block: Block) -> str:
    sizes = "×".join(map(str, block.values.shape))
    off = float((block.values == 0).mean())
    low, high = float(block.values.min()), float(block.values.max())
    return "\n".join([block.name.replace(" to ", " to\n"), sizes, f"{low:.3g} to {high:.3g}", f"{off:.0%} zeros"])


def _maps(figure: Any, grid: Any, row: int, block: Block) -> None:
    """The strongest, beside each other, by one scale that the last one carries."""
    largest = float(np.abs(block.values).max()) or 1.0
    signed = bool(block.values.min() < 0)
    scale = {"cmap": "RdBu_r", "vmin": -largest} if signed else {"cmap": "magma", "vmin": 0.0}
    drawn, used = None, []
    for column, unit in enumerate(block.strongest):
        axes = figure.add_subplot(grid[row, column + 1])
        drawn = axes.imshow(block.values[unit], vmax=largest, interpolation="nearest", **scale)
        axes.set_title(f"map {unit}", fontsize=8, pad=2)
        axes.set_axis_off()
        used.append(axes)
    bar = figure.colorbar(drawn, ax=used, fraction=0.012, pad=0.01)
    bar.ax.tick_params(labelsize=7)


def _units(axes: Any, block: Block) -> None:
    """Every unit a line; the strongest by their numbers, where one does not hide another's."""
    axes.vlines(np.arange(len(block.values)), 0, block.values, color="#3b528b", linewidth=0.6)
    axes.axhline(0, color="#999999", linewidth=0.5)
    named: list[int] = []
    for unit in block.strongest[:NAMED]:
        if any(abs(unit - other) * 30 < len(block.values) for other in named):
            continue
        named.append(unit)
        above = block.values[unit] >= 0
        axes.annotate(str(unit), (unit, block.values[unit]), fontsize=7, ha="center", va="bottom" if above else "top")
    axes.margins(x=0.005, y=0.25)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("unit", fontsize=7)


def _classes(axes: Any, probabilities: np.ndarray, labels: Sequence[str]) -> None:
    best = np.argsort(-probabilities, kind="stable")[:NAMED]
    axes.barh(np.arange(len(best)), probabilities[best], color="#b5367a")
    axes.set_yticks(np.arange(len(best)), [f"{labels[i]}  {probabilities[i]:.1%}" for i in best], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("probability", fontsize=7)
