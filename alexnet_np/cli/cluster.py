"""`--engine dask` of `classify` and `embed`: the same job on many machines, into a folder of Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from alexnet_np.cli import show
from alexnet_np.cli.options import Network
from alexnet_np.errors import ArgumentError
from alexnet_np.jobs import cluster
from alexnet_np.jobs.cluster import Cluster, Done
from alexnet_np.jobs.listing import list_images

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
PartSize = Annotated[int, typer.Option("--part-size", help="Images a file.", min=1, rich_help_panel=PANEL)]


class Asked(NamedTuple):
    """What the options say of the cluster."""

    engine: str
    scheduler: str | None
    scheduler_file: Path | None
    part_size: int

    def on_dask(self) -> bool:
        """Raises ArgumentError for an engine that there is not, and for a cluster's options without one."""
        if self.engine not in ENGINES:
            raise ArgumentError(f"--engine is {' or '.join(ENGINES)}, got {self.engine!r}")
        if self.engine == "local" and (self.scheduler or self.scheduler_file):
            raise ArgumentError("--scheduler and --scheduler-file are for --engine dask")
        return self.engine == "dask"


def run(kind: str, network: Network, images: list[str], out: str | None, asked: Asked, **options: Any) -> Done:
    """The job, with a bar; `options` are cluster.describe's. Raises ArgumentError, DataError; Exit after Ctrl-C."""
    if out is None:
        raise ArgumentError("--engine dask writes a folder of Parquet files: name it, --out parts/")
    if "-" in images:
        raise ArgumentError("other machines have no standard input of ours: name files, folders or addresses")
    cluster.import_distributed()
    listed = list_images(images)
    job = cluster.describe(kind, network.model, out, **options)
    where = Cluster(asked.scheduler, asked.scheduler_file, notice=lambda said: show.note(f"alexnet: {said}"))
    try:
        with show.progress("images", len(listed.files), rate=True) as advance:
            return cluster.run(job, network.model, listed, asked.part_size, where, advance)
    except KeyboardInterrupt:
        show.note(f"alexnet: stopped: the parts that are done stand in {out}; the same command goes on")
        raise typer.Exit(130) from None


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
