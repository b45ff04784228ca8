"""`alexnet similar`: the pictures of a folder that are nearest to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from alexnet_np import jobs
from alexnet_np.cli import cluster, show
from alexnet_np.cli.cluster import Asked, Engine, FilesFrom, Images, PartSize, Scheduler, SchedulerFile
from alexnet_np.cli.images import about, report, warn_if_random
from alexnet_np.cli.options import BatchSize, JobBackend, Json, MaxPixels, Network, Preset, Seed, Weights, load_network
from alexnet_np.errors import ArgumentError, ImageError
from alexnet_np.files import PAINTED, picture, picture_format
from alexnet_np.jobs.listing import is_url, opened
from alexnet_np.jobs.nearest import NAME, Similar, to_json
from alexnet_np.jobs.nearest import similar as find_similar
from alexnet_np.study.contact_sheet import Picture, picture_sheet


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="See inside")(similar)


def similar(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The picture to look for.")],
    folder: Annotated[str | None, typer.Argument(metavar="FOLDER", help="Where to look.", show_default=False)] = None,
    files_from: FilesFrom = None,
    top: Annotated[int, typer.Option("--top", "-k", help="How many.", min=1, max=1000)] = 10,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A contact sheet: .png, .pdf or .jpg.")] = None,
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            help="The file that keeps the vectors; of --engine dask a folder of parts, as embed makes them.",
            show_default=f"FOLDER/{NAME}",
        ),
    ] = None,
    preset: Preset = None,
    weights: Weights = None,
    backend: JobBackend = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    max_pixels: MaxPixels = None,
    engine: Engine = "local",
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    part_size: PartSize = 64,
    as_json: Json = False,
) -> None:
    """The pictures of a folder nearest to one: by the cosine of their 4096-D vectors.

    The vectors are kept in an index beside the pictures: the next search computes only what is new or has changed, and
    a search that is stopped goes on. Files that cannot be read are passed over and listed at the end; then the exit
    code is 1.

    With --engine dask the index is a folder of Parquet files, made and asked by this machine's cores or a cluster; what
    alexnet embed --engine dask has made is one (docs/clusters.md).

    Examples:
      alexnet similar cat.jpg holiday/
      alexnet similar cat.jpg holiday/ --top 24 --out like-the-cat.png
      alexnet similar cat.jpg /media/photographs --index photographs.safetensors --json
      find . -name '*.jpg' | alexnet similar cat.jpg --files-from - --index here.safetensors
      alexnet similar cat.jpg s3://photographs --engine dask --index parts/
    """
    form = None if out is None else picture_format(out, PAINTED)
    asked = Asked(engine, scheduler, scheduler_file, part_size)
    on_dask = asked.on_dask()
    if query == "-":
        raise ArgumentError("the query is read more than once, which standard input cannot be: name a file")
    if folder is None and files_from is None:
        raise typer.BadParameter("no FOLDER: name the one to look in, or a list by --files-from")
    if folder is None and index is None:
        raise ArgumentError("a list has no folder to keep its vectors in: name a place with --index")
    if folder is not None and not on_dask and not Path(folder).is_dir():
        raise ArgumentError(f"{folder}: no such folder; name the one to look in")
    images = Images.of(None if folder is None else [folder], files_from)
    network = load_network(preset, weights, None, seed, trained=True)
    warn_if_random(network)
    options: dict[str, Any] = {"top": top, "backend": backend, "batch_size": batch_size}
    if on_dask:
        found, place = cluster.similar(network, query, images, index, asked, **options)
    else:
        found, place = here(network, query, images, index, **options)
    if out is not None:
        nearest = [Picture(m.file, f"{m.cosine:.3f}", opened(".", m.file)) for m in found.matches]
        title = f"like {Path(query).name}: {found.images:,} pictures, {network.model.preset}, {network.weights}"
        with picture(out, PAINTED) as (temporary, _):
            picture_sheet([Picture(query, "the query", opened(".", query)), *nearest], title).save(temporary, form)
    if as_json:
        written = {"query": query, "out": None if out is None else str(out), "index": place}
        show.print_json({**about(network, found.engine), **written, **to_json(found)})
    else:
        for match in found.matches:
            show.say(Text.assemble((f"{match.cosine:6.3f}  ", "cyan"), match.file))
        new = f"{found.computed:,} computed, {found.kept:,} from the index"
        show.note(f"{found.images:,} pictures: {new}{'' if out is None else f'; {out}'}")
    report(found.failures)


def here(network: Network, query: str, images: Images, index: str | None, **options: Any) -> tuple[Similar, str]:
    """The search on this machine, with a bar, and where its index is.

    Raises ArgumentError, ImageError, DataError; Exit.
    """
    folder = Path(*images.paths)
    place = folder / NAME if index is None else Path(index)
    for address in filter(is_url, images.named):
        raise ArgumentError(f"{address}: addresses are for --engine dask")
    files, failures = jobs.find(images.paths)
    files += images.named
    if not files:
        raise ImageError(failures[0].error if failures else f"{folder}: no images in this folder")
    stopped = show.stoppable(lambda: f"what is done is kept in {place}; the same command goes on")
    with stopped, show.progress("images", len(files), rate=True) as advance:
        return find_similar(network.model, query, folder, files, index=place, progress=advance, **options), str(place)
