"""`alexnet filters`: a layer's weights as a picture, with their statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from alexnet_np.cli import show
from alexnet_np.cli.options import Json, Preset, Seed, Weights, Width, load_network
from alexnet_np.files import picture_format
from alexnet_np.study.filters import draw_filters
from alexnet_np.study.filters import statistics as statistics_of


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="See inside")(filters)


def filters(
    layer: Annotated[str, typer.Option("--layer", "-l", help="As `alexnet summary` names them.")] = "features.0",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The picture to write: .png, .svg, .pdf or .jpg.")
    ] = None,
    preset: Preset = None,
    weights: Weights = None,
    width: Width = 1.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """A layer's weights: their statistics, and with --out a picture of them.

    The first layer is drawn in colour, as in the paper's figure 3; the others red above 0 and blue below, by one scale.

    Examples:
      alexnet filters --out filters.png
      alexnet filters --weights runs/d2l --layer features.3 --out conv2.svg
      alexnet filters --preset caffenet --weights caffenet.caffemodel --layer fc6 --json
    """
    if out is not None:
        picture_format(out)
    network = load_network(preset, weights, None, seed, width=width)
    found = statistics_of(network.model, layer)
    shown = None if out is None else draw_filters(network.model, layer, out)
    if as_json:
        written = {"out": None if out is None else str(out), "shown": shown}
        show.print_json({"model": network.described(), **found._asdict(), **written})
        return
    norms = np.array(found.norms)
    said = {
        "AlexNet": str(network),
        "weights": network.weights,
        "layer": f"{layer}, {found.type}",
        "shape": show.shape(found.shape),
        "mean, std": f"{found.mean:.6f}, {found.std:.6f}",
        "range": f"{found.least:.6f} to {found.largest:.6f}",
        "zeros": f"{found.zeros:.1%}",
        "norms": f"{norms.min():.4f} to {norms.max():.4f}, median {np.median(norms):.4f}",
        "silent": named(found.silent, len(norms)),
    }
    show.console().print(show.facts(said))
    if out is not None:
        print(f"{out}: {shown}")


def named(silent: list[int], count: int) -> str:
    """How many say nothing, and which where they are few."""
    which = f": {', '.join(map(str, silent))}" if 0 < len(silent) <= 8 else ""
    return f"{len(silent)} of {count}{which}"
