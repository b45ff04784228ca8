"""`alexnet summary`, `walk` and `verify`: a network looked at layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.resources import as_file, files
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from alexnet_np.cli import show
from alexnet_np.cli.options import Backend, BatchSize, Json, Network, Preset, Seed, Weights, Width, load_network
from alexnet_np.errors import AlexNetError
from alexnet_np.presets import preprocess
from alexnet_np.study.summary import summary as summarise
from alexnet_np.study.verify import FLOAT32_FLOOR, FLOAT32_RATIO, FLOAT32_WINOGRAD, FLOAT64_LAYER, Comparison, Report
from alexnet_np.study.verify import verify as compare
from alexnet_np.study.walk import walk as walk_through

Size = Annotated[int, typer.Option("--size", help="Side of the square input, in pixels.", min=1)]


def register(app: typer.Typer) -> None:
    panel = "The network, layer by layer"
    for command in summary, walk, verify:
        app.command(rich_help_panel=panel)(command)


def summary(
    preset: Preset = None,
    weights: Weights = None,
    width: Width = 1.0,
    size: Size = 224,
    batch_size: BatchSize = 1,
    as_json: Json = False,
) -> None:
    """Output shapes, parameters and multiply-accumulates (MACs), without running it.

    Examples:
      alexnet summary --preset paper
      alexnet summary --weights mine.safetensors --json
    """
    network = load_network(preset, weights or "random", None, 0, width=width)
    model = network.model
    made = summarise(model, (batch_size, model.in_channels, size, size))
    if as_json:
        layers = [asdict(row) for row in made.layers]
        totals = {"parameters": made.parameters, "macs": made.macs}
        show.print_json({"preset": model.preset, "input_shape": made.input_shape, "layers": layers, **totals})
        return
    table = show.table("layer", "type", "output", ">parameters", ">MACs")
    table.add_row("input", "", show.shape(made.input_shape))
    for row in made.layers:
        counts = (f"{count:,}" if count else "" for count in (row.parameters, row.macs))
        table.add_row(row.name, row.type, show.shape(row.output_shape), *counts)
    table.add_section()
    table.add_row("total", "", "", f"{made.parameters:,}", f"{made.macs:,}", style="bold")
    show.console().print(table)


def walk(
    image: Annotated[str | None, typer.Argument(help="An image file, or -.", show_default="a cat's photograph")] = None,
    preset: Preset = None,
    weights: Weights = None,
    width: Width = 1.0,
    backend: Backend = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """One image's way through the network, block by block: shapes and statistics.

    "zeros" is the share of values that are exactly 0: after a ReLU, the units that are off.

    Examples:
      alexnet walk
      alexnet walk cat.jpg --preset d2l
    """
    network = load_network(preset, weights, backend, seed, width=width)
    with image_or_cat(image) as source:
        x = preprocess(source, preset=network.model.preset)[None]
    walked = walk_through(network.model, network.place(x))
    if as_json:
        steps = [asdict(step) for step in [walked.input, *walked.steps]]
        show.print_json({"model": network.described(), "image": image, "steps": steps})
        return
    table = show.table("layer", "type", "output", ">mean", ">std", ">zeros")
    for step in [walked.input, *walked.steps]:
        if step.type in BLOCK_STARTS:
            table.add_section()
        numbers = f"{step.mean:.4f}", f"{step.std:.4f}", percent(step.zeros)
        table.add_row(step.name, step.type, show.shape(step.shape), *numbers)
    said = {"AlexNet": str(network), "weights": network.weights}
    show.console().print(show.facts(said), "", table)


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
    size: Size = 224,
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
    x = np.random.default_rng(seed).standard_normal((batch_size, model.in_channels, size, size))
    report = compare(model, network.place(x), seed)
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
    return f"{comparison.quantity} is off by {comparison.ours:.1e}, where {comparison.limit:.1e} is allowed"


def show_report(report: Report, network: Network) -> None:
    console = show.console()
    said = {"AlexNet": str(network), "weights": network.weights, "beside": f"{report.peer}, against float64"}
    console.print(show.facts(said), "", layers_table(report, narrow=console.width < show.WIDTH), "", net_table(report))
    if report.ok:
        console.print()
        allowed = f"{FLOAT32_RATIO}× torch's own error, or {FLOAT32_FLOOR:.1e}"
        if report.dtype == "float64":
            allowed = f"{FLOAT64_LAYER:.0e}"
        elif report.winograd:
            allowed += f", or {FLOAT32_WINOGRAD:.0e} for convolutions by Winograd"
        console.print(f"Agrees with {report.peer} in {report.dtype}, each layer within {allowed}.", style="green")


def layers_table(report: Report, narrow: bool) -> Table:
    """Errors layer by layer, ours and torch's; `narrow` leaves out the layers' types."""
    both = report.dtype == "float32"
    quantities = ("forward", "dx", "dweight", "dbias")
    heads = [f"{quantity}\nours   torch" if both else f">{quantity}" for quantity in quantities]
    table = show.table("layer", *([] if narrow else ["type"]), *heads, ">ratio" if both else "")
    for layer in report.layers:
        if layer.type in BLOCK_STARTS:
            table.add_section()
        by_name = {c.quantity: c for c in layer.comparisons}
        cells = [errors(by_name[q]) if q in by_name else Text() for q in quantities]
        ratios = [c.ratio for c in layer.comparisons if c.ratio]
        worst = max(ratios, default=0.0)
        ratio = f"{worst:.{0 if worst >= 10 else 2}f} " if ratios else ""
        table.add_row(layer.name, *([] if narrow else [layer.type]), *cells, Text(ratio) + verdict(layer.ok))
    return table


def net_table(report: Report) -> Table:
    """End to end: the logits, dx, and the parameter whose gradient is furthest off."""
    logits, dx, *gradients = report.net
    worst = max(gradients, key=lambda c: c.ours)
    table = show.table("end to end", "ours   torch" if report.dtype == "float32" else ">ours", ">allowed", "")
    named = {"logits": logits, "dx": dx, f"{worst.quantity}, worst of {len(gradients)} gradients": worst}
    for name, comparison in named.items():
        table.add_row(name, errors(comparison), f"{comparison.limit:.1e}", verdict(comparison.ok))
    return table


def errors(comparison: Comparison) -> Text:
    """Our error, and torch's beside it."""
    if comparison.ours == 0 and not comparison.torch:
        return Text("exact", "dim")
    text = Text(short(comparison.ours), "" if comparison.ok else "bold red")
    return text if comparison.torch is None else text.append(f" {short(comparison.torch)}", "dim")


def short(error: float) -> str:
    """1.2e-07 as 1.2e-7, six characters wide."""
    mantissa, _, exponent = f"{error:.1e}".partition("e")
    return (f"{mantissa}e{int(exponent)}" if exponent else mantissa).ljust(6)


def verdict(ok: bool) -> Text:
    return Text("✓", "green") if ok else Text("✗", "bold red")
