"""A layer's weights as a picture, with their statistics.

    first layer, of colour pictures   a tile a filter, its three channels as red, green and blue, grey where it is 0:
                                      figure 3 of the paper; each filter by its own largest weight
    other convolutions                a row a filter, a tile a channel that it reads
    dense layers                      a row a unit, a column an input
    all but the first                 red above 0, blue below, white at 0, by the layer's largest weight

What is too much for a picture is drawn in part, evenly chosen, and the title says so.
Source: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks" (2012), fig. 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.device import Array, to_cpu
from alexnet_np.errors import ArgumentError
from alexnet_np.figures import new_figure, save
from alexnet_np.layers import WeightedLayer
from alexnet_np.models import AlexNet, check_model
from alexnet_np.study.units import check_layer

FILTERS, CHANNELS = 48, 24  # rows and columns of a deeper layer's picture, at most
ALL = 400  # tiles of the first layer's
UNITS, INPUTS = 256, 512  # rows and columns of a dense layer's
SILENT = 1e-6  # a filter is silent where its weights are below this share of the layer's largest


class Statistics(NamedTuple):
    """Of the weights of one layer. `silent`: filters, or units, all of whose weights are next to nothing."""

    layer: str
    type: str
    shape: tuple[int, ...]
    mean: float
    std: float
    least: float
    largest: float
    zeros: float  # share of exact zeros
    norms: list[float]  # of each filter or unit: the root of its sum of squares
    silent: list[int]


def weights_of(model: AlexNet, layer: str) -> Array:
    """The weight of a layer, (F,C,KH,KW) or (F,C), on the CPU. Raises ArgumentError, with the nearest names."""
    check_model("filters", model)
    layers = dict(model.leaves())
    found = layers[check_layer(layer, list(layers))]
    if not isinstance(found, WeightedLayer):
        have = ", ".join(name for name, each in layers.items() if isinstance(each, WeightedLayer))
        raise ArgumentError(f"{layer} is a {type(found).__name__} and has no weights; choose one of {have}")
    return to_cpu(found.weight.data)


def statistics(model: AlexNet, layer: str) -> Statistics:
    """What a table and JSON say of a layer's weights. Raises ArgumentError."""
    weight = weights_of(model, layer)
    of_each = weight.reshape(len(weight), -1).astype(np.float64)
    largest = float(abs(of_each).max())
    silent = np.flatnonzero(abs(of_each).max(1) <= SILENT * largest).tolist()
    kind = "Conv2d" if weight.ndim == 4 else "Linear"
    return Statistics(
        layer,
        kind,
        weight.shape,
        mean=float(of_each.mean()),
        std=float(of_each.std()),
        least=float(of_each.min()),
        largest=float(of_each.max()),
        zeros=float((of_each == 0).mean()),
        norms=np.sqrt((of_each**2).sum(1)).tolist(),
        silent=silent,
    )


def draw_filters(model: AlexNet, layer: str, out: Path) -> str:
    """The picture; returns what of the layer it shows. Raises ArgumentError, MissingPackageError."""
    weight = weights_of(model, layer)
    if weight.ndim == 4 and weight.shape[1] == 3 and layer == next(iter(model.leaves()))[0]:
        picture, shown = colours(weight, model.described().preprocessing), _part(len(weight), ALL, "filters")
        figure = _figure(picture, f"{model.preset} {layer}: {shown}, each by its own largest weight")
    else:
        limit = float(abs(weight).max()) or 1.0
        if weight.ndim == 4:
            picture = tiles(weight)
            rows, columns = _part(len(weight), FILTERS, "filters"), _part(weight.shape[1], CHANNELS, "channels")
            shown = rows if weight.shape[1] == 1 else f"{rows} (rows) of {columns} (columns)"
        else:
            picture = weight[np.ix_(_even(len(weight), UNITS), _even(weight.shape[1], INPUTS))]
            shown = (
                f"{_part(len(weight), UNITS, 'units')} (rows) of {_part(weight.shape[1], INPUTS, 'inputs')} (columns)"
            )
        figure = _figure(picture, f"{model.preset} {layer}: {shown}", limit)
    save(figure, out)
    return shown


def colours(weight: Array, recipe: Any) -> np.ndarray:
    """(H,W,3) in 0..1: the filters of a first layer (F,3,KH,KW), 0 as middle grey, in RGB whatever order they read."""
    chosen = weight[_even(len(weight), ALL)].astype(np.float64)
    if recipe is not None and recipe.mode == "BGR":
        chosen = chosen[:, ::-1]
    largest = abs(chosen).max((1, 2, 3), keepdims=True)
    shown = 0.5 + chosen / (2 * np.where(largest == 0, 1, largest))
    columns = int(np.ceil(np.sqrt(len(shown) * 1.5)))  # wider than high, as in the paper
    return np.moveaxis(_laid_out(shown, columns, fill=1.0), 0, -1)


def tiles(weight: Array) -> np.ndarray:
    """(H,W): of each filter (F,C,KH,KW) a row, of each channel a tile, NaN between them; of one channel a block."""
    chosen = weight[np.ix_(_even(len(weight), FILTERS), _even(weight.shape[1], CHANNELS))].astype(np.float64)
    F, C = chosen.shape[:2]
    columns = C if C > 1 else int(np.ceil(np.sqrt(F * 1.5)))
    return _laid_out(chosen.reshape(F * C, 1, *chosen.shape[2:]), columns, fill=np.nan)[0]


def _laid_out(pictures: np.ndarray, columns: int, fill: float) -> np.ndarray:
    """(n,K,h,w) -> (K,H,W): row by row, a pixel of `fill` around each."""
    n, K, h, w = pictures.shape
    made = np.full((K, -(-n // columns) * (h + 1) + 1, min(columns, n) * (w + 1) + 1), fill)
    for i, picture in enumerate(pictures):
        y, x = i // columns * (h + 1) + 1, i % columns * (w + 1) + 1
        made[:, y : y + h, x : x + w] = picture
    return made


def _figure(picture: np.ndarray, title: str, limit: float = 0.0) -> Any:
    """`limit`: of the scale about 0, for pictures of one channel."""
    H, W = picture.shape[:2]
    width = 9.0
    figure = new_figure(width + (1 if limit else 0), 0.6 + max(2.0, min(width * H / W, 14.0)))
    axes = figure.subplots()
    if limit:
        drawn = axes.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        figure.colorbar(drawn, ax=axes, label="weight", fraction=0.04)
    else:
        axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    return figure


def _even(count: int, most: int) -> np.ndarray:
    """At most `most` of 0..count-1, evenly spaced, the first among them."""
    return np.arange(count) if count <= most else np.arange(most) * count // most


def _part(count: int, most: int, what: str) -> str:
    return f"all {count} {what}" if count <= most else f"{most} of {count} {what}"
