"""`alexnet weights`: published weight files and those of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.padding import Padding

from alexnet_np import export, inspection
from alexnet_np.cli import show
from alexnet_np.cli.options import Json
from alexnet_np.presets import preset_of_weights
from alexnet_np.text import several
from alexnet_np.weights import registry
from alexnet_np.weights.fitting import check_finite
from alexnet_np.weights.lrn import in_every_dialect
from alexnet_np.weights.reading import read
from alexnet_np.weights.writing import ARRAYS, NETWORKS

HELP = """List, download, convert and inspect weight files.

Examples:
  alexnet weights list
  alexnet weights download IMAGENET1K_V1
  alexnet weights inspect mine.pth
"""

app = typer.Typer(no_args_is_help=True, help=HELP)

ENDINGS = (*ARRAYS, *NETWORKS)
CONSTANTS = ("size", "alpha", "beta", "k")

Source = Annotated[
    str, typer.Argument(metavar="FILE", help="A weight file, a run's folder, or the name of published weights.")
]
Part = Annotated[str | None, typer.Option("--part", help="Which weights, where a file holds several.")]


@app.command("list")
def list_published(as_json: Json = False) -> None:
    """The published weights, and whether they are on this machine.

    Examples:
      alexnet weights list
    """
    found = {name: registry.find(name) for name in registry.ENTRIES}
    if as_json:
        rows = [
            {
                "name": name,
                "preset": preset_of_weights(name),
                **entry._asdict(),
                "path": found[name] and str(found[name]),
            }
            for name, entry in registry.ENTRIES.items()
        ]
        show.print_json({"weights": rows})
        return
    console = show.console()
    heads = "name", "preset", ">classes", ">MiB", ">top-1 %", ">top-5 %", "on this machine"
    table = show.table(*heads, spare=["classes", "MiB", "top-5 %"], folds=["name"])
    for name, entry in registry.ENTRIES.items():
        figures = str(entry.num_classes), f"{entry.size / 2**20:.0f}", f"{entry.top1:.2f}", f"{entry.top5:.2f}"
        table.add_row(name, preset_of_weights(name), *figures, "yes" if found[name] else "no")
    console.print(table)
    for path in filter(None, found.values()):
        console.print(str(path), style="dim", soft_wrap=True)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="As `alexnet weights list` names them.")] = "IMAGENET1K_V1",
    as_json: Json = False,
) -> None:
    """Fetch published weights into the cache, if they are not there already, and print where they are.

    Examples:
      alexnet weights download IMAGENET1K_V1
    """
    path = registry.find(name) or registry.download(name, progress=sys.stderr.isatty())
    if as_json:
        show.print_json({"name": name, "path": str(path)})
    else:
        print(path)


@app.command()
def convert(
    source: Source,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help=f"The file to write: {', '.join(ENDINGS)}.")],
    preset: Annotated[
        str | None,
        typer.Option("--preset", "-p", help="Whose weights they are, where several networks have these shapes."),
    ] = None,
    part: Part = None,
    channels: Annotated[
        str | None, typer.Option("--channels", help="RGB or BGR: what the written network takes.")
    ] = None,
    mean_inside: Annotated[
        bool, typer.Option("--mean-inside", help="The mean goes into the first bias: it takes pixels as they are.")
    ] = False,
    dense: Annotated[bool, typer.Option("--dense", help="Grouped convolutions are written as dense ones.")] = False,
    trained_dropout: Annotated[
        str | None,
        typer.Option("--trained-dropout", help="When it scaled as they were trained: training or testing."),
    ] = None,
    dropout: Annotated[
        str, typer.Option("--dropout", help="When the program that reads it scales: training or testing.")
    ] = "training",
    opset: Annotated[int, typer.Option("--opset", help="Of ONNX: 13 to 20.")] = 17,
    as_json: Json = False,
) -> None:
    """Write weights in another format. Numbers, and what they say of their network, stay.

    Where it is known whose weights they are they get torchvision's names; .onnx and .caffemodel hold the whole network.

    Examples:
      alexnet weights convert alexnet-owt-7be5be79.pth alexnet.safetensors
      alexnet weights convert bvlc_alexnet.caffemodel bvlc.onnx --channels RGB
    """
    changes = export.Changes(channels, mean_inside, dense, trained_dropout, dropout)
    made = export.convert(source, target, preset=preset, part=part, changes=changes, opset=opset)
    parameters = sum(array.size for array in made.arrays.values())
    if as_json:
        name = made.said and made.said.preset
        counts = {"path": str(target), "preset": name, "arrays": len(made.arrays), "parameters": parameters}
        show.print_json({**counts, "changed": made.changed, "left": made.left})
        return
    print(f"{target}: {len(made.arrays)} arrays, {parameters:,} parameters")
    for words in made.changed:
        print(f"  {words}")
    if made.left:
        print(f"  not taken: {several(made.left)}")


@app.command()
def inspect(
    file: Source,
    part: Part = None,
    finite: Annotated[bool, typer.Option("--finite", help="Fail if an array holds NaN or infinity.")] = False,
    as_json: Json = False,
) -> None:
    """What is in a weight file, which network it is and by which evidence, without running anything that is in it.

    Examples:
      alexnet weights inspect mine.pth
      alexnet weights inspect mine.pth --finite && echo sound
    """
    seen = inspection.inspect(file, part)
    if finite:
        check_finite(read(registry.path_of(file), part=part))
    if as_json:
        show.print_json(seen.to_json())
        return
    table = show.table("name", "shape", "dtype", ">parameters", folds=["name"])
    for row in seen.arrays.rows:
        table.add_row(row.name, show.shape(row.shape), row.dtype, f"{row.parameters:,}")
    table.add_section()
    table.add_row("total", "", "", f"{seen.arrays.parameters:,}", style="bold")
    console = show.console()
    console.print(table)
    console.print()
    for words in seen.words():
        console.print(Padding(words.lstrip(), (0, 0, 0, len(words) - len(words.lstrip())), expand=False))
    if seen.norms:
        console.print()
        console.print(_norms(seen))


def _norms(seen: inspection.Inspection) -> show.Table:
    """The constants of every normalisation in every dialect; dialects that write the same stand in one row."""
    table = show.table(
        "normalisation", "dialects", ">size", ">alpha", ">beta", ">k", folds=["normalisation", "dialects"]
    )
    for names, each in seen.norms:
        settings, title = each.settings, f"{', '.join(names)}: {each.settings['region']} maps"
        title += f", {settings['groups']} towers" if settings["groups"] > 1 and settings["region"] == "across" else ""
        rows: dict[tuple[str, ...], list[str]] = {}
        for dialect, said in in_every_dialect(each).items():
            mark = " (its own)" if dialect == settings["convention"] else ""
            rows.setdefault(tuple(f"{said[name]:g}" for name in CONSTANTS), []).append(f"{dialect}{mark}")
        for numbers, dialects in rows.items():
            table.add_row(title, ", ".join(dialects), *numbers)
            title = ""
    return table
