"""`--engine dask` of classify, embed, evaluate and similar: the same job on many machines, into Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from alexnet_np.cli import show
from alexnet_np.cli.options import Network
from alexnet_np.errors import ArgumentError, DataError, ImageError
from alexnet_np.identity import labels_of
from alexnet_np.jobs import cluster
from alexnet_np.jobs.cluster import Cluster, Done
from alexnet_np.jobs.dataset import Job
from alexnet_np.jobs.labelled import evenly, list_labelled, list_named, of_dataset
from alexnet_np.jobs.listing import Listed, list_images, read_list
from alexnet_np.jobs.nearest import Similar
from alexnet_np.jobs.searching import NAME
from alexnet_np.jobs.searching import similar as find_similar
from alexnet_np.jobs.store import names_in
from alexnet_np.models import AlexNet
from alexnet_np.text import counted
from alexnet_np.training.trained import Trained, images_to_evaluate

PANEL = "Cluster"
ENGINES = ("local", "dask")

Engine = Annotated[
    str,
    typer.Option(
        "--engine", help="local, or dask: many machines, images from s3:// and the like too.", rich_help_panel=PANEL
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", help="Its address.", show_default="a cluster on this machine", rich_help_panel=PANEL),
]
SchedulerFile = Annotated[
    Path | None,
    typer.Option("--scheduler-file", help="What dask scheduler --scheduler-file wrote.", rich_help_panel=PANEL),
]
FilesFrom = Annotated[
    str | None,
    typer.Option(
        "--files-from",
        metavar="LIST",
        help="More images: a text file, a path or an address a line (- for standard input), or the column file of a "
        ".parquet.",
        show_default=False,
    ),
]
PartSize = Annotated[int, typer.Option("--part-size", help="Images a file.", min=1, rich_help_panel=PANEL)]


class Asked(NamedTuple):
    """What the options say of the cluster."""

    engine: str
    scheduler: str | None
    scheduler_file: Path | None
    part_size: int
    workers: int | None = None  # of a cluster on this machine

    def on_dask(self) -> bool:
        """Raises ArgumentError for an engine that there is not, and for a cluster's options without one."""
        if self.engine not in ENGINES:
            raise ArgumentError(f"--engine is {' or '.join(ENGINES)}, got {self.engine!r}")
        if self.engine == "local" and (self.scheduler or self.scheduler_file):
            raise ArgumentError("--scheduler and --scheduler-file are for --engine dask")
        if self.workers and (self.scheduler or self.scheduler_file):
            raise ArgumentError("--workers are those of a cluster on this machine; a scheduler has its own")
        return self.engine == "dask"

    @property
    def where(self) -> Cluster:
        return Cluster(self.scheduler, self.scheduler_file, self.workers, lambda said: show.note(f"alexnet: {said}"))


def run(kind: str, network: Network, images: Images, out: str | None, asked: Asked, **options: Any) -> Done:
    """The job, with a bar; `options` are cluster.describe's. Raises ArgumentError, DataError; Exit after Ctrl-C."""
    check(out, images.paths)
    with stoppable(str(out)):
        job = cluster.describe(kind, network.model, str(out), **options)
        return carried_out(job, network.model, list_images(images.paths, images.named), asked)


def evaluate(
    trained: Trained, images: Labelled, limit: int | None, out: str | None, asked: Asked, **options: Any
) -> Done:
    """The evaluation of labelled images into parts, with a bar. Raises as `run` does."""
    check(out, [])
    data = images.data
    with stoppable(str(out)):
        small = trained.config is not None and trained.config.dataset != "folder"
        if images.files_from is not None:
            listed, classes = list_named(read_list(images.files_from), trained.classes)
        elif data is None or small:
            found = images_to_evaluate(trained, None if data is None else Path(data))
            listed, classes = of_dataset(found), list(found.classes)
        else:
            listed, classes = list_labelled(data, trained.classes)
        check_classes(trained.model, len(classes), images.files_from or data)
        listed = listed if limit is None else evenly(listed, limit)
        job = cluster.describe("evaluate", trained.model, str(out), **options)
        return carried_out(job, trained.model, listed, asked)


def similar(
    network: Network, query: str, images: Images, index: str | None, asked: Asked, top: int, **options: Any
) -> tuple[Similar, str]:
    """The search, with a bar, and where its index is. Raises as `run` does; ImageError."""
    place = index or f"{images.paths[0].rstrip('/')}/{NAME}"
    check(place, [query])
    with stoppable(place):
        listed = list_images(images.paths, images.named)
        if not listed.files:
            raise ImageError(f"{images.paths[0]}: {listed.failures[0].error}")
        job = cluster.describe("embed", network.model, place, **options)
        with show.progress("images", len(listed.files), rate=True) as advance:
            found = find_similar(
                job, network.model, query, listed, asked.part_size, asked.where, top=top, progress=advance
            )
    return found, place


class Images(NamedTuple):
    """Which images: files, folders and addresses, and what a list names one by one."""

    paths: list[str]
    named: list[str]

    @classmethod
    def of(cls, paths: list[str] | None, files_from: str | None) -> Images:
        """Raises DataError; BadParameter where there are none."""
        if not paths and files_from is None:
            raise typer.BadParameter("no IMAGE: name files, folders, or a list by --files-from")
        return cls(paths or [], [] if files_from is None else read_list(files_from))


class Labelled(NamedTuple):
    """Which images with a class: a folder's or address's, a list's, or without either the run's own."""

    data: str | None
    files_from: str | None


def check_classes(model: AlexNet, found: int, named: str | None) -> None:
    """Raises DataError unless the images `named` have as many classes as the network."""
    wanted = len(labels_of(model))
    if found != wanted:
        raise DataError(f"{named}: {counted(found, 'class')}, where the network has {wanted}")


def check(out: str | None, read: list[str]) -> None:
    """What can be said before any work. Raises ArgumentError, MissingPackageError."""
    if out is None:
        raise ArgumentError("--engine dask writes a folder of Parquet files: name it, --out parts/")
    if "-" in read:
        raise ArgumentError("other machines have no standard input of ours: name files, folders or addresses")
    cluster.import_distributed()


def carried_out(job: Job, model: AlexNet, listed: Listed, asked: Asked) -> Done:
    with show.progress("images", len(listed.files), rate=True) as advance:
        return cluster.run(job, model, listed, asked.part_size, asked.where, advance)


@contextmanager
def stoppable(out: str) -> Iterator[None]:
    with show.stoppable(lambda: f"{counted(len(names_in(out)), 'part')} stand in {out}; the same command goes on"):
        yield


def tell(done: Done, out: str, kind: str, network: Network, as_json: bool) -> None:
    """What was written, on standard output."""
    if as_json:
        failures = [{"file": failure.file, "error": failure.error} for failure in done.failures]
        parts = {"out": out, "parts": done.parts, "computed": done.computed, "images": done.images}
        engine = {"engine": "dask", "job": kind}
        model = {**network.described(), "backend": "chosen by each worker"}
        show.print_json({"model": model, "engine": engine, **parts, "failures": failures})
    elif done.parts:
        print(f"{out}: {done.images} images in {done.parts} parts, {done.computed} of them computed now")
