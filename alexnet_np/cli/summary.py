"""`alexnet summary`: what a network is made of, layer by layer, and what that takes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from alexnet_np.cli import show
from alexnet_np.cli.options import BatchSize, Json, Network, Preset, Weights, Width, load_network
from alexnet_np.errors import ArgumentError
from alexnet_np.models import AlexNet
from alexnet_np.presets import PRESETS
from alexnet_np.study.compare import aligned
from alexnet_np.study.memory import Memory
from alexnet_np.study.summary import Row, Summary
from alexnet_np.study.summary import summary as summarise
from alexnet_np.training.config import CHOICES
from alexnet_np.training.parallel.traffic import Term, terms

Size = Annotated[
    int | None,
    typer.Option(
        "--size", help="Side of the square input, in pixels.", min=1, show_default="what the network was made for"
    ),
]
BYTES = ">activation", ">gradient", ">workspace"
LEGEND = (
    "sees: the side of a unit's receptive field; stride: from one to the next; start: the first one's edge; in pixels"
)
TAKEN = "activation: what forward keeps; gradient: what backward leaves; workspace: the most that either takes beside"


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="The network, layer by layer")(summary)


def summary(
    preset: Preset = None,
    weights: Weights = None,
    width: Width = 1.0,
    size: Size = None,
    batch_size: BatchSize = 1,
    memory: Annotated[
        bool, typer.Option("--memory", "-m", help="Run a training step too, and measure the bytes that it takes.")
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option("--compare", "-c", help="Another preset, or a weight file, beside it.", show_default=False),
    ] = None,
    parallel: Annotated[
        str | None,
        typer.Option(
            "--parallel",
            help=f"What a training step sends on several processes: {', '.join(CHOICES['parallel'])}.",
            show_default=False,
        ),
    ] = None,
    ranks: Annotated[int, typer.Option("--ranks", "-R", help="Processes, for --parallel.", min=1)] = 2,
    as_json: Json = False,
) -> None:
    """Output shapes, parameters, multiply-accumulates (MACs) and receptive fields of every layer, without running it.

    With --memory one training step is run, by the array operations and layer by layer, and the bytes of its arrays are
    counted as they are. With --parallel the bytes that a training step of the batch sends between processes
    stand below, by the formula. Columns that a screen has no room for are left out; --json has all.

    Examples:
      alexnet summary --preset paper
      alexnet summary --memory --batch-size 32
      alexnet summary --compare paper
      alexnet summary --preset paper --parallel towers --batch 128
      alexnet summary --weights mine.safetensors --size 180 --json
    """
    if parallel is not None and parallel not in CHOICES["parallel"]:
        raise ArgumentError(f"--parallel must be one of {', '.join(CHOICES['parallel'])}, got {parallel!r}")
    if parallel is not None and compare is not None:
        raise ArgumentError("--parallel is of one network; leave --compare out")
    first = load_network(preset, weights or "random", None, 0, width=width)
    one = summarise(first.model, shape_of(first.model, size, batch_size), memory)
    if compare is None:
        sent = None if parallel is None else terms(first.model, one.input_shape, parallel, ranks)
        if as_json:
            exchange = None if sent is None else exchange_to_json(sent, parallel, ranks)
            show.print_json(to_json(first, one) | ({} if exchange is None else {"exchange": exchange}))
        else:
            show_one(one)
            if sent is not None:
                show_exchange(sent, parallel, ranks)
        return
    preset, weights = (compare, "random") if compare in PRESETS else (None, compare)
    second = load_network(preset, weights, None, 0, width=width)
    other = summarise(second.model, shape_of(second.model, size, batch_size), memory)
    pairs = [[None if leaf is None else leaf[0] for leaf in leaves] for leaves in aligned(first.model, second.model)]
    if as_json:
        show.print_json({"a": to_json(first, one), "b": to_json(second, other), "pairs": pairs})
    else:
        names = first.model.preset, second.model.preset
        show.console().print(beside_each_other(names, (one, other), pairs))


def size_of(model: AlexNet) -> int:
    """The side of its input: what it was made for, or torchvision's where nobody has said."""
    return model.input_size or 224


def shape_of(model: AlexNet, size: int | None, batch_size: int) -> tuple[int, int, int, int]:
    side = size or size_of(model)
    return batch_size, model.in_channels, side, side


def to_json(network: Network, made: Summary) -> dict[str, Any]:
    layers = [
        {
            **{name: getattr(row, name) for name in ("name", "type", "output_shape", "parameters", "macs")},
            "receptive_field": None if row.sees is None else row.sees._asdict(),
            "memory": None if row.memory is None else row.memory._asdict(),
        }
        for row in made.layers
    ]
    memory = None if made.memory is None else made.memory._asdict()
    totals = {"parameters": made.parameters, "macs": made.macs, "memory": memory}
    return {"preset": network.model.preset, "input_shape": made.input_shape, "layers": layers, **totals}


def exchange_to_json(sent: list[Term], parallel: str | None, ranks: int) -> dict[str, Any]:
    total = sum(term.bytes for term in sent)
    return {"parallel": parallel, "ranks": ranks, "terms": [term._asdict() for term in sent], "bytes": total}


def show_exchange(sent: list[Term], parallel: str | None, ranks: int) -> None:
    """What a training step sends, term by term."""
    table = show.table(f"sent a step, {parallel}, by {ranks} together", "numbers x bytes each", ">bytes")
    for term in sent:
        table.add_row(term.what, term.formula, f"{term.bytes:,}")
    table.add_section()
    table.add_row("total", "", f"{sum(term.bytes for term in sent):,}", style="bold")
    show.console().print("", table)


def show_one(made: Summary) -> None:
    """The table, and in words whatever of its columns needs them."""
    taken = made.memory is not None
    heads = ["layer", "type", "output", ">parameters", ">MACs", *(BYTES if taken else ()), ">sees", ">stride", ">start"]
    spare = ["start", "stride", "type", "sees", "workspace", "MACs", "gradient"]
    table = show.table(*heads, spare=spare)
    table.add_row("input", "", show.shape(made.input_shape))
    for row in made.layers:
        counted = (row.name, row.type, show.shape(row.output_shape), count(row.parameters), count(row.macs))
        table.add_row(*counted, *(sizes(row.memory) if taken else ()), *row.sight)
    table.add_section()
    totals = ("total", "", "", count(made.parameters), count(made.macs), *(sizes(made.memory) if taken else ()))
    table.add_row(*totals, style="bold")
    console = show.console()
    console.print(table, "")
    console.print(LEGEND, style="dim")
    if taken:
        console.print(TAKEN, style="dim")


def beside_each_other(names: tuple[str, str], made: tuple[Summary, Summary], pairs: list[list[str | None]]) -> Any:
    """A table of both networks' layers, those that stand behind the same convolution or dense layer on one line."""
    taken = made[0].memory is not None
    columns = ["output", ">parameters", ">MACs", *(BYTES if taken else ())]
    spare = ["workspace", "gradient", "type", "MACs", "activation", "parameters"]
    table = show.table(names[0], "type", *columns, names[1], *columns, spare=spare)
    rows = [{row.name: row for row in one.layers} for one in made]
    inputs = [show.shape(one.input_shape) for one in made]
    blank = [""] * (len(columns) - 1)
    table.add_row("input", "", inputs[0], *blank, "input", inputs[1], *blank)
    for pair in pairs:
        a, b = (None if name is None else rows[i][name] for i, name in enumerate(pair))
        kinds = dict.fromkeys(row.type for row in (a, b) if row is not None)
        left, right = cells(a, taken), cells(b, taken)
        table.add_row(left[0], " / ".join(kinds), *left[1:], *right)
    table.add_section()
    totals = [[count(one.parameters), count(one.macs), *(sizes(one.memory) if taken else ())] for one in made]
    table.add_row("total", "", "", *totals[0], "", "", *totals[1], style="bold")
    return table


def cells(row: Row | None, taken: bool) -> list[str]:
    """Name, output and counts; blank where the network has no such layer."""
    if row is None:
        return [""] * (7 if taken else 4)
    counts = [count(row.parameters), count(row.macs), *(sizes(row.memory) if taken else ())]
    return [row.name, show.shape(row.output_shape), *counts]


def count(number: int) -> str:
    return f"{number:,}" if number else ""


def sizes(memory: Memory | None) -> tuple[str, ...]:
    """Bytes for a screen: 774 kB, 3.10 MB; less than half a kB is what Python itself takes, and blank."""
    return tuple(size(number) for number in memory) if memory is not None else ("", "", "")


def size(number: int) -> str:
    if number < 500:
        return ""
    return f"{number / 1e6:,.2f} MB" if number >= 1e6 else f"{number / 1e3:.0f} kB"
