"""`alexnet similar`: the pictures of a folder that are nearest to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from alexnet_np import jobs
from alexnet_np.cli import show
from alexnet_np.cli.images import about, report, warn_if_random
from alexnet_np.cli.options import BatchSize, JobBackend, Json, MaxPixels, Preset, Seed, Weights, load_network
from alexnet_np.errors import ArgumentError, ImageError
from alexnet_np.files import PAINTED, picture, picture_format
from alexnet_np.jobs.nearest import NAME, to_json
from alexnet_np.jobs.nearest import similar as find_similar
from alexnet_np.study.contact_sheet import Picture, picture_sheet


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="See inside")(similar)


def similar(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The picture to look for.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to look.")],
    top: Annotated[int, typer.Option("--top", "-k", help="How many.", min=1, max=1000)] = 10,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A contact sheet: .png, .pdf or .jpg.")] = None,
    index: Annotated[
        Path | None,
        typer.Option("--index", help="The file that keeps the vectors.", show_default=f"FOLDER/{NAME}"),
    ] = None,
    preset: Preset = None,
    weights: Weights = None,
    backend: JobBackend = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
) -> None:
    """The pictures of a folder nearest to one: by the cosine of their 4096-D vectors.

    The vectors are kept in an index beside the pictures: the next search computes only what is new or has changed, and
    a search that is stopped goes on. Files that cannot be read are passed over and listed at the end; then the exit
    code is 1.

    Examples:
      alexnet similar cat.jpg holiday/
      alexnet similar cat.jpg holiday/ --top 24 --out like-the-cat.png
      alexnet similar cat.jpg /media/photographs --index photographs.safetensors --json
    """
    form = None if out is None else picture_format(out, PAINTED)
    if not folder.is_dir():
        raise ArgumentError(f"{folder}: no such folder; name the one to look in")
    if query == "-":
        raise ArgumentError("the query is read more than once, which standard input cannot be: name a file")
    network = load_network(preset, weights, None, seed, trained=True)
    warn_if_random(network)
    files, failures = jobs.find([str(folder)])
    if not files:
        raise ImageError(failures[0].error if failures else f"{folder}: no images in this folder")
    try:
        with show.progress("images", len(files), rate=True) as advance:
            found = find_similar(
                network.model,
                query,
                folder,
                files,
                top=top,
                index=index,
                backend=backend,
                batch_size=batch_size,
                progress=advance,
            )
    except KeyboardInterrupt:
        show.note(f"alexnet: stopped: what is done is kept in {index or folder / NAME}; the same command goes on")
        raise typer.Exit(130) from None
    if out is not None:
        nearest = [Picture(match.file, f"{match.cosine:.3f}") for match in found.matches]
        title = f"like {Path(query).name}: {found.images:,} pictures, {network.model.preset}, {network.weights}"
        with picture(out, PAINTED) as (temporary, _):
            picture_sheet([Picture(query, "the query"), *nearest], title).save(temporary, form)
    if as_json:
        written = {"query": query, "out": None if out is None else str(out), "index": str(index or folder / NAME)}
        show.print_json({**about(network, found.engine), **written, **to_json(found)})
    else:
        for match in found.matches:
            show.say(Text.assemble((f"{match.cosine:6.3f}  ", "cyan"), match.file))
        new = f"{found.computed:,} computed, {found.kept:,} from the index"
        show.note(f"{found.images:,} pictures: {new}{'' if out is None else f'; {out}'}")
    report(found.failures)
