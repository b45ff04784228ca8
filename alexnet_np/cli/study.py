"""`alexnet walk` and `verify`: a network looked at layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.text import Text

from alexnet_np.cli import show
from alexnet_np.cli.options import (
    Backend,
    BatchSize,
    Json,
    MaxPixels,
    Network,
    Preset,
    Seed,
    Weights,
    Width,
    load_network,
)
from alexnet_np.cli.summary import Size, size_of
from alexnet_np.errors import AlexNetError
from alexnet_np.figures import new_figure
from alexnet_np.files import picture_format
from alexnet_np.study.verify import FLOAT32_FLOOR, FLOAT32_RATIO, FLOAT32_WINOGRAD, FLOAT64_LAYER, Comparison, Report
from alexnet_np.study.verify import verify as compare
from alexnet_np.study.walk import walk as walk_through
from alexnet_np.study.walk_picture import draw_walk


def register(app: typer.Typer) -> None:
    panel = "The network, layer by layer"
    for command in walk, verify:
        app.command(rich_help_panel=panel)(command)


def walk(
    image: Annotated[str | None, typer.Argument(help="An image file, or -.", show_default="a cat's photograph")] = None,
    preset: Preset = None,
    weights: Weights = None,
    width: Width = 1.0,
    backend: Backend = None,
    seed: Seed = 0,
    max_pixels: MaxPixels = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Draw it too: .png, .svg, .pdf or .jpg.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """One image's way through the network, block by block: shapes and statistics.

    "zeros" is the share of values that are exactly 0: after a ReLU, the units that are off. With --out each block's
    strongest maps are drawn, every unit of the dense layers, and the likeliest classes.

    Examples:
      alexnet walk
      alexnet walk cat.jpg --out walk.png
      alexnet walk cat.jpg --preset d2l
    """
    if out is not None:
        picture_format(out)
        new_figure(1, 1)  # if Matplotlib is missing, say so now
    network = load_network(preset, weights, backend, seed, width=width)
    with image_or_cat(image) as source:
        x = network.place(network.prepare(source)[None])
    walked = walk_through(network.model, x)
    drawn = {}
    if out is not None:
        title = f"{network.model.preset}, {network.weights}: the strongest maps of each block"
        shown = draw_walk(network.model, x[0], network.labels(), title, out)
        drawn = {"out": str(out), "strongest": {block.name: block.strongest for block in shown}}
    if as_json:
        steps = [asdict(step) for step in [walked.input, *walked.steps]]
        show.print_json({"model": network.described(), "image": image, "steps": steps, **drawn})
        return
    table = show.table("layer", "type", "output", ">mean", ">std", ">zeros", spare=["type"])
    for step in [walked.input, *walked.steps]:
        if step.type in BLOCK_STARTS:
            table.add_section()
        numbers = f"{step.mean:.4f}", f"{step.std:.4f}", percent(step.zeros)
        table.add_row(step.name, step.type, show.shape(step.shape), *numbers)
    said = {"AlexNet": str(network), "weights": network.weights}
    show.console().print(show.facts(said), "", table)
    if out is not None:
        print(f"{out}: the strongest maps of each block")


BLOCK_STARTS = ("Conv2d", "AdaptiveAvgPool2d", "Linear")


def percent(share: float) -> str:
    return f"{share:.0%}" if share else ""


@contextmanager
def image_or_cat(image: str | None) -> Iterator[str]:
    """The path of the image, or of the photograph that the package carries."""
    if image is not None:
        yield image
        return
    with as_file(files("alexnet_np") / "assets" / "cat.jpg") as path:
        yield str(path)


def verify(
    dtype: Annotated[str, typer.Option("--dtype", help="float32 or float64.")] = "float32",
    preset: Preset = None,
    weights: Weights = None,
    width: Width = 1.0,
    backend: Backend = None,
    seed: Seed = 0,
    size: Size = None,
    batch_size: BatchSize = 2,
    as_json: Json = False,
) -> None:
    """Every layer's output and gradients beside torch's, against float64 truth.

    Each layer gets the same input and gradient in our network and in torch's; then the whole runs
    end to end. In float32 torch's own error stands beside ours. Exit code 1 where they diverge.

    Examples:
      alexnet verify
      alexnet verify --dtype float64 --preset paper --size 96
      alexnet verify --weights mine.pth --backend numba --json
    """
    network = load_network(preset, weights, backend, seed, width=width, dtype=dtype)
    model = network.model
    side = size or size_of(model)
    x = np.random.default_rng(seed).standard_normal((batch_size, model.in_channels, side, side))
    stopped = "every layer would have been compared; nothing is kept"
    with show.stoppable(lambda: stopped), show.progress("layers", 1 + len(list(model.leaves()))) as advance:
        report = compare(model, network.place(x), seed, advance)
    first = report.first_divergence
    if as_json:
        found = asdict(report) | {"ok": report.ok, "first_divergence": first and first.name}
        show.print_json({"model": network.described(), "input_shape": x.shape, **found})
    else:
        show_report(report, network)
    if first:
        worst = max(first.comparisons, key=lambda c: c.ours / c.limit)
        raise DivergenceError(f"diverges from {report.peer} first at {first.name} ({first.type}): {failed(worst)}")
    if not report.ok:
        faults = ", ".join(failed(c) for c in report.net if not c.ok)
        raise DivergenceError(f"every layer agrees with {report.peer} by itself, but not end to end: {faults}")


class DivergenceError(AlexNetError):
    """`verify` found what it looks for."""


def failed(comparison: Comparison) -> str:
    off, allowed = (show.short(error) for error in (comparison.ours, comparison.limit))
    return f"{comparison.quantity} is off by {off}, where {allowed} is allowed"


def show_report(report: Report, network: Network) -> None:
    console = show.console()
    said = {"AlexNet": str(network), "weights": network.weights, "beside": f"{report.peer}, against float64"}
    console.print(show.facts(said), "", layers_table(report), "", net_table(report), "")
    for line in legend(report):
        console.print(line, style="dim")
    if report.ok:
        console.print()
        allowed = f"{FLOAT32_RATIO}× torch's own error, or {show.short(FLOAT32_FLOOR)}"
        if report.dtype == "float64":
            allowed = f"{FLOAT64_LAYER:.0e}"
        elif report.winograd:
            allowed += f", or {show.short(FLOAT32_WINOGRAD)} for convolutions by Winograd"
        console.print(f"Agrees with {report.peer} in {report.dtype}, each layer within {allowed}.", style="green")


def legend(report: Report) -> list[str]:
    """What the columns mean."""
    error = "Errors are relative, ||a - truth|| / ||truth||, where the truth is torch's in float64."
    if report.dtype != "float32":
        return [error]
    return [error, "ratio: our error over torch's own in float32, of the layer's worst; ✓ where all are allowed."]


def layers_table(report: Report) -> show.Table:
    """Errors layer by layer, ours and torch's; on a narrow screen ours alone."""
    both = report.dtype == "float32"
    quantities = ("forward", "dx", "dweight", "dbias")
    heads = [head for quantity in quantities for head in ([f"{quantity}\nours", THEIRS] if both else [quantity])]
    table = show.table("layer", "type", *heads, *([">ratio"] if both else []), "", spare=["type", THEIRS])
    for layer in report.layers:
        if layer.type in BLOCK_STARTS:
            table.add_section()
        by_name = {c.quantity: c for c in layer.comparisons}
        cells = [cell for quantity in quantities for cell in errors(by_name.get(quantity), both)]
        ratios = [c.ratio for c in layer.comparisons if c.ratio]
        worst = max(ratios, default=0.0)
        ratio = [f"{worst:.{0 if worst >= 10 else 2}f}" if ratios else ""] if both else []
        table.add_row(layer.name, layer.type, *cells, *ratio, show.verdict(layer.ok))
    return table


THEIRS = "\ntorch"  # the head of its columns


def net_table(report: Report) -> show.Table:
    """End to end: the logits, dx, and the parameter whose gradient is furthest off."""
    both = report.dtype == "float32"
    logits, dx, *gradients = report.net
    worst = max(gradients, key=lambda c: c.ours)
    name = f"{worst.quantity}, worst of {len(gradients)} gradients"
    table = show.table("end to end", "ours", *(["torch"] if both else []), "allowed", "", folds=["end to end"])
    for quantity, comparison in {"logits": logits, "dx": dx, name: worst}.items():
        table.add_row(quantity, *errors(comparison, both), show.short(comparison.limit), show.verdict(comparison.ok))
    return table


def errors(comparison: Comparison | None, both: bool) -> list[Text]:
    """Our error, and torch's for the cell beside it."""
    if comparison is None:
        return [Text(), *([Text()] if both else [])]
    if comparison.ours == 0 and not comparison.torch:
        return [Text("exact", "dim"), *([Text()] if both else [])]
    ours = Text(show.short(comparison.ours), "" if comparison.ok else "bold red")
    return [ours] if comparison.torch is None else [ours, Text(show.short(comparison.torch), "dim")]
