"""`alexnet weights`: published weight files and those of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from alexnet_np.cli import show
from alexnet_np.cli.options import Json
from alexnet_np.identity import said_of
from alexnet_np.presets import preset_of_weights, recognise
from alexnet_np.weights import registry
from alexnet_np.weights.convert import convert as convert_file
from alexnet_np.weights.convert import inspect as inspect_file
from alexnet_np.weights.fitting import check_finite
from alexnet_np.weights.reading import read

HELP = """List, download, convert and inspect weight files.

Examples:
  alexnet weights list
  alexnet weights download IMAGENET1K_V1
  alexnet weights inspect mine.pth
"""

app = typer.Typer(no_args_is_help=True, help=HELP)

Source = Annotated[str, typer.Argument(metavar="FILE", help="A weight file, or the name of published weights.")]


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
    target: Annotated[Path, typer.Argument(help="The file to write: .safetensors or .npz.")],
    part: Annotated[str | None, typer.Option("--part", help="Which weights, where a file holds several.")] = None,
    as_json: Json = False,
) -> None:
    """Write weights in another format; names, numbers and what they say of their network stay.

    Examples:
      alexnet weights convert alexnet-owt-7be5be79.pth alexnet.safetensors
    """
    written = convert_file(registry.path_of(source), target, part)
    if as_json:
        show.print_json({"path": str(target), "arrays": len(written.rows), "parameters": written.parameters})
    else:
        print(f"{target}: {len(written.rows)} arrays, {written.parameters:,} parameters")


@app.command()
def inspect(
    file: Source,
    finite: Annotated[bool, typer.Option("--finite", help="Fail if an array holds NaN or infinity.")] = False,
    as_json: Json = False,
) -> None:
    """What is in a weight file, without running anything that is in it.

    Examples:
      alexnet weights inspect mine.pth
      alexnet weights inspect mine.pth --finite && echo sound
    """
    path = registry.path_of(file)
    contents = inspect_file(path)
    said = said_of(path) or recognise({row.name: row.shape for row in contents.rows})
    preset = said and said.preset
    if finite:
        check_finite(read(path))
    if as_json:
        rows = [row._asdict() for row in contents.rows]
        network = said and said.to_json()
        show.print_json({"preset": preset, "network": network, "parameters": contents.parameters, "arrays": rows})
        return
    table = show.table("name", "shape", "dtype", ">parameters", folds=["name"])
    for row in contents.rows:
        table.add_row(row.name, show.shape(row.shape), row.dtype, f"{row.parameters:,}")
    table.add_section()
    table.add_row("total", "", "", f"{contents.parameters:,}", style="bold")
    console = show.console()
    console.print(table)
    console.print(f"A network of {said}." if said else "Of no known network, at any width.", soft_wrap=True)
