"""`alexnet classify` and `alexnet embed`: many images, past the bad ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

from alexnet_np import jobs
from alexnet_np.cli import cluster, show
from alexnet_np.cli.cluster import Asked, FilesFrom, Images, PartSize, Scheduler, SchedulerFile
from alexnet_np.cli.cluster import Engine as EngineOption
from alexnet_np.cli.options import (
    BatchSize,
    JobBackend,
    Json,
    LikeTorchvision,
    MaxPixels,
    Network,
    Preset,
    Seed,
    Weights,
    load_network,
)
from alexnet_np.data.preprocess import source_name
from alexnet_np.errors import ArgumentError
from alexnet_np.jobs import Failure
from alexnet_np.ops import softmax
from alexnet_np.text import counted

Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IMAGE", help="Image files, folders, or - for one image on standard input.", show_default=False
    ),
]


@dataclass(frozen=True)
class Guess:
    index: int
    label: str
    probability: float


def register(app: typer.Typer) -> None:
    panel = "Images"
    app.command(rich_help_panel=panel)(classify)
    app.command(rich_help_panel=panel)(embed)


def classify(
    images: Paths = None,
    files_from: FilesFrom = None,
    top: Annotated[int, typer.Option("--top", "-k", help="How many labels for each image.", min=1)] = 5,
    preset: Preset = None,
    weights: Weights = None,
    backend: JobBackend = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    like_torchvision: LikeTorchvision = False,
    max_pixels: MaxPixels = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="Of --engine dask: a folder.")] = None,
    engine: EngineOption = "local",
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    part_size: PartSize = 64,
    as_json: Json = False,
) -> None:
    """The most probable labels of images.

    Files that cannot be read are passed over and listed at the end; then the exit code is 1.

    With --engine dask: into a folder of Parquet files, on this machine's cores or a cluster; a second run does only
    what is missing (docs/clusters.md).

    Examples:
      alexnet classify cat.jpg
      alexnet classify holiday/ --top 1 --json > labels.json
      curl -s https://example.org/cat.jpg | alexnet classify -
      find . -name '*.jpg' | alexnet classify --files-from - --top 1
      alexnet classify s3://photographs/2026 --engine dask --out labels/ --scheduler tcp://10.0.0.1:8786
    """
    asked = Asked(engine, scheduler, scheduler_file, part_size)
    if not asked.on_dask() and out is not None:
        raise ArgumentError(
            "--out is for --engine dask; of this one --json is the file: alexnet classify ... > labels.json"
        )
    wanted = Images.of(images, files_from)
    network = load_network(preset, weights, None, seed, trained=True, clip=like_torchvision)
    if asked.on_dask():
        warn_if_random(network)
        options = {"top": top, "backend": backend, "batch_size": batch_size}
        done_there = cluster.run("classify", network, wanted, out, asked, **options)
        cluster.tell(done_there, str(out), "classify", network, as_json)
        report(done_there.failures)
        return
    labels = network.labels()
    files, failures = found(wanted)
    ready = jobs.open_engine(network.model, images=len(files), backend=backend, batch_size=batch_size, forget=True)
    warn_if_random(network)
    results: list[dict[str, Any]] = []
    done = [0]
    lost = "JSON is written at the end, so nothing is kept" if as_json else "the labels above stand"
    stopped = show.stoppable(lambda: f"{done[0]} of {counted(len(files), 'image')} were classified; {lost}")
    bar = show.progress("images", len(files), rate=True)
    with stopped, closing(jobs.stream(files, ready)) as made, bar as advance:
        for rows in made:
            for file, row in zip(rows.files, softmax.forward(rows.values)[0], strict=True):
                guesses = best(row, labels, top)
                if as_json:
                    results.append({"file": file, "top": [asdict(guess) for guess in guesses]})
                else:
                    show_guesses(file, guesses)
            failures += rows.failures
            done[0] += len(rows.files)
            advance(len(rows.files) + len(rows.failures))
    if as_json:
        show.print_json({**about(network, ready.described()), "results": results, "failures": listed(failures)})
    report(failures)


def embed(
    out: Annotated[str, typer.Option("--out", "-o", help="The file to write: .npy, .npz or .parquet.")],
    images: Paths = None,
    files_from: FilesFrom = None,
    preset: Preset = None,
    weights: Weights = None,
    backend: JobBackend = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the job that was stopped.")] = False,
    like_torchvision: LikeTorchvision = False,
    max_pixels: MaxPixels = None,
    engine: EngineOption = "local",
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    part_size: PartSize = 64,
    as_json: Json = False,
) -> None:
    """Images as vectors: the 4096 numbers of the last hidden layer.

    .npz and .parquet hold the files' names too; those of v.npy stand in v.npy.txt, a line each. What is done is kept in
    OUT.parts until OUT is whole: stopped or killed, the same command with --resume does what is missing; of what is
    whole (OUT.done.json says of what it is) nothing.
    Files that cannot be read are passed over and listed at the end; then the exit code is 1.

    With --engine dask OUT is a folder of Parquet files, made on this machine's cores or a cluster; a second run does
    only what is missing (docs/clusters.md).

    Examples:
      alexnet embed holiday/ --out holiday.npz
      alexnet embed *.jpg --out vectors.npy --batch-size 64
      alexnet embed photographs/ --out vectors.parquet --resume
      alexnet embed photographs/ --out parts/ --engine dask
    """
    asked = Asked(engine, scheduler, scheduler_file, part_size)
    if not asked.on_dask():
        jobs.check_output(Path(out))
    wanted = Images.of(images, files_from)
    network = load_network(preset, weights, None, seed, trained=True, clip=like_torchvision)
    warn_if_random(network)
    if asked.on_dask():
        done_there = cluster.run("embed", network, wanted, out, asked, backend=backend, batch_size=batch_size)
        cluster.tell(done_there, out, "embed", network, as_json)
        report(done_there.failures)
        return
    files, failures = found(wanted)
    try:
        with show.progress("images", len(files), rate=True) as advance:
            done = jobs.embed(
                network.model,
                files,
                Path(out),
                backend=backend,
                batch_size=batch_size,
                resume=resume,
                forget=True,
                progress=advance,
            )
    except jobs.Interrupted as stopped:
        show.note(f"alexnet: stopped: {stopped}")
        raise typer.Exit(130) from None
    failures += done.failures
    if as_json:
        written = {"out": str(out) if done.files else None, "files": done.files, "failures": listed(failures)}
        show.print_json({**about(network, done.engine), "kept": done.kept, **written})
    elif done.files:
        show.tell(f"{out}: {counted(len(done.files), 'vector')} of {counted(done.features, 'number')}")
    report(failures)


def found(images: Images) -> tuple[list[str], list[Failure]]:
    files, failures = jobs.find(images.paths)
    return files + images.named, failures


def about(network: Network, engine: dict[str, Any]) -> dict[str, Any]:
    """The network and who computed it, for JSON."""
    return {"model": {**network.described(), "backend": engine["backend"]}, "engine": engine}


def listed(failures: Sequence[Failure]) -> list[dict[str, str]]:
    return [asdict(failure) for failure in failures]


def report(failures: list[Failure]) -> None:
    """List the files that could not be read on standard error, and end with exit code 1 if there are any."""
    for failure in failures:
        show.note(f"alexnet: {source_name(failure.file)}: {failure.error}")
    if failures:
        raise typer.Exit(1)


def warn_if_random(network: Network) -> None:
    if network.random:
        show.note(f"alexnet: weights {network.weights}: what comes out means nothing")


def best(probabilities: np.ndarray, labels: list[str], top: int) -> list[Guess]:
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [Guess(int(i), labels[i], float(probabilities[i])) for i in order]


def show_guesses(file: str, guesses: list[Guess]) -> None:
    """The file's name and under it its labels; all on one line where there is one label."""
    name = source_name(file)
    if len(guesses) == 1:
        only = guesses[0]
        show.say(Text.assemble((f"{only.probability:6.1%}  ", "cyan"), f"{only.label}  ", (name, "dim")))
        return
    bars = [(guess, show.bar(guess.probability, 24)) for guess in guesses]
    rows = [Text.assemble(f"  {guess.probability:6.1%}  ", bar, f"  {guess.label}") for guess, bar in bars]
    show.say(Text(name, "bold"), *rows)
