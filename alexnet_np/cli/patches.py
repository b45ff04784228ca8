"""`alexnet patches`: what in a folder of pictures excites the units of a layer most."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from alexnet_np import jobs
from alexnet_np.cli import show
from alexnet_np.cli.images import about, listed, report, warn_if_random
from alexnet_np.cli.options import (
    BatchSize,
    JobBackend,
    Json,
    MaxPixels,
    Preset,
    Seed,
    Weights,
    Width,
    load_network,
)
from alexnet_np.errors import ArgumentError
from alexnet_np.files import PAINTED, picture, picture_format
from alexnet_np.identity import recipe_of
from alexnet_np.jobs import exciting
from alexnet_np.study.patches import Patch, find_patches, sheet
from alexnet_np.study.units import check_layer, places

MOST = 1024  # units on a sheet
DEFAULT = "0-15"

Folders = Annotated[list[str], typer.Argument(metavar="FOLDER", help="Folders, or image files.")]


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="See inside")(patches)


def patches(
    folders: Folders,
    layer: Annotated[str, typer.Option("--layer", "-l", help="As `alexnet summary` names them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write: .png, .pdf or .jpg.")] = Path(
        "patches.png"
    ),
    units: Annotated[
        str, typer.Option("--units", "-u", help="Which maps or units: numbers and ranges, 0-15,40; or all.")
    ] = DEFAULT,
    top: Annotated[int, typer.Option("--top", "-k", help="How many pictures for each.", min=1, max=100)] = 9,
    preset: Preset = None,
    weights: Weights = None,
    width: Width = 1.0,
    backend: JobBackend = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the job that was stopped.")] = False,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
) -> None:
    """The pictures of a folder that excite each unit of a layer most, cropped to what the unit sees of them.

    Of a map what counts is its largest number; a picture appears once for each. What is done is kept in OUT.state until
    OUT is written: stopped or killed, the same command with --resume goes on. Files that cannot be read are passed over
    and listed at the end; then the exit code is 1.

    Examples:
      alexnet patches photographs/ --layer features.8 --out conv4.png
      alexnet patches photographs/ --layer features.0 --units all --top 16 --out conv1.png
      alexnet patches photographs/ --layer classifier.6 --units 281-285 --json
    """
    form = picture_format(out, PAINTED)
    network = load_network(preset, weights, None, seed, width=width, trained=True)
    recipe = recipe_of(network.model)
    shapes = {name: place.shape for name, place in places(network.model, recipe.shape).items() if name != "softmax"}
    count = shapes[check_layer(layer, list(shapes))][0]
    chosen = parse_units(units, layer, count)
    warn_if_random(network)
    if "-" in folders:
        raise ArgumentError("pictures are read again for the sheet, which standard input cannot be: name files")
    files, failures = jobs.find(folders)
    if not files:
        report(failures)
    try:
        with show.progress("images", len(files), rate=True) as advance:
            done = jobs.excite(
                network.model,
                files,
                layer,
                chosen,
                out,
                top=top,
                backend=backend,
                batch_size=batch_size,
                resume=resume,
                progress=advance,
            )
    except jobs.Interrupted as stopped:
        show.note(f"alexnet: stopped: {stopped}")
        raise typer.Exit(130) from None
    failures += done.failures
    found = find_patches(network.model, layer, chosen, files, done.best, recipe.shape[1:])
    *_, (logits, _) = network.model.leaves()
    labels = network.labels() if layer == logits else []
    names = {unit: f"{unit} {labels[unit]}" if labels else str(unit) for unit in chosen}
    title = f"{layer} of {network.model.preset}, {network.weights}: what excites it most in {len(files):,} pictures"
    with show.progress("patches", len({patch.file for patch in found})) as advance:
        drawn = sheet(found, names, top, title, recipe, advance)
    with picture(out, PAINTED) as (temporary, _):
        drawn.save(temporary, form)
    exciting.clear(out)
    if as_json:
        written = {"out": str(out), "layer": layer, "images": len(files), "kept": done.kept}
        units_of = [to_json(unit, found) for unit in chosen]
        show.print_json({**about(network, done.engine), **written, "units": units_of, "failures": listed(failures)})
    else:
        idle = len(set(chosen) - {patch.unit for patch in found})
        off = f"; {idle} that nothing excites" if idle else ""
        print(
            f"{out}: {layer}, {len(chosen)} units, {len(found)} patches of {len(files) - len(failures):,} pictures{off}"
        )
    report(failures)


def parse_units(text: str, layer: str, count: int) -> list[int]:
    """ "0-2,7" -> [0, 1, 2, 7]. Raises ArgumentError."""
    found: list[int] = []
    for part in [f"0-{count - 1}"] if text.strip() == "all" else text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ArgumentError(f"--units {text}: numbers and ranges, as in 0-15,40; or all")
        end = int(last or first)
        if text == DEFAULT:
            end = min(end, count - 1)  # of a layer of fewer, all
        if not int(first) <= end < count:
            raise ArgumentError(f"--units {text}: {layer} has {count} units, 0 to {count - 1}")
        found += range(int(first), end + 1)
    found = list(dict.fromkeys(found))
    if len(found) > MOST:
        raise ArgumentError(f"--units {text}: {len(found)} of them; a sheet holds {MOST}, name fewer")
    return found


def to_json(unit: int, found: list[Patch]) -> dict[str, Any]:
    mine = [patch for patch in found if patch.unit == unit]
    listed = [{"file": p.file, "value": p.value, "at": p.at, "receptive_field": p.field._asdict()} for p in mine]
    return {"unit": unit, "patches": listed}
