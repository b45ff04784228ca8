"""`alexnet evaluate` and `ablate`: how good is a network, and what makes it so."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from alexnet_np import jobs
from alexnet_np.cli import cluster, show
from alexnet_np.cli.cluster import Asked, Engine, FilesFrom, Labelled, PartSize, Scheduler, SchedulerFile
from alexnet_np.cli.images import listed, report
from alexnet_np.cli.options import BatchSize, JobBackend, Json, MaxPixels, Preset
from alexnet_np.data.augment import Augment
from alexnet_np.data.dataset import Dataset
from alexnet_np.errors import ArgumentError
from alexnet_np.figures import new_figure
from alexnet_np.files import picture_format
from alexnet_np.identity import labels_of, recipe_of
from alexnet_np.jobs.choosing import AUTO
from alexnet_np.jobs.labelled import evaluation_in
from alexnet_np.jobs.scoring import CROPS
from alexnet_np.text import counted
from alexnet_np.training.ablation import ablate as train_variants
from alexnet_np.training.config import Config
from alexnet_np.training.evaluation import Evaluation, from_logits
from alexnet_np.training.metrics import Event
from alexnet_np.training.pictures import draw_confusion, draw_curves
from alexnet_np.training.task import evaluation_augment, first_images
from alexnet_np.training.trained import images_to_evaluate, open_trained
from alexnet_np.training.variants import ABLATIONS


def evaluate(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="A run's folder, a weight file or a published name.")
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Folder of images, a folder a class.", show_default="the run's validation"),
    ] = None,
    files_from: FilesFrom = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Evaluate so many images only, evenly spaced.", min=1)
    ] = None,
    ten_crop: Annotated[bool, typer.Option("--ten-crop", help="Mean of ten crops, as the paper does.")] = False,
    confusion: Annotated[
        Path | None,
        typer.Option("--confusion", help="Draw the confusion matrix: .png, .svg, .pdf or .jpg (at most 50 classes)."),
    ] = None,
    preset: Preset = None,
    backend: JobBackend = None,
    batch_size: BatchSize = 64,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Threads that carry images.", min=1, show_default="one a core"),
    ] = None,
    max_pixels: MaxPixels = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="Of --engine dask: a folder.")] = None,
    engine: Engine = "local",
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    part_size: PartSize = 64,
    as_json: Json = False,
) -> None:
    """Top-1 and top-5 accuracy on images whose classes are known.

    With --engine dask the same numbers, by this machine's cores or a cluster, from a folder of Parquet files with a row
    an image; a second run does only what is missing (docs/clusters.md).

    Examples:
      alexnet evaluate FASHION_MNIST_V1
      alexnet evaluate runs/d2l --confusion confusion.png
      alexnet evaluate IMAGENET1K_V1 --data imagenet/val --ten-crop
      alexnet evaluate IMAGENET1K_V1 --data s3://imagenet/val --engine dask --out judged/
    """
    asked = Asked(engine, scheduler, scheduler_file, part_size, workers)
    if not asked.on_dask() and out is not None:
        raise ArgumentError("--out is for --engine dask; of this one --json is the file: alexnet evaluate ... > x.json")
    if files_from is not None and (asked.engine != "dask" or data is not None):
        raise ArgumentError("--files-from is for --engine dask, without --data: each file's folder is its class")
    if confusion is not None:
        picture_format(confusion)
    trained = open_trained(network, None if backend == AUTO else backend, preset)
    labels = labels_of(trained.model)
    if asked.on_dask():
        options: dict[str, Any] = {"ten_crop": ten_crop, "backend": backend, "batch_size": batch_size}
        done = cluster.evaluate(trained, Labelled(data, files_from), limit, out, asked, **options)
        result, failures = evaluation_in(str(out), done.parts, len(labels)), done.failures
        parts = {"out": out, "parts": done.parts, "computed": done.computed, "failures": listed(failures)}
        by: dict[str, Any] = {**parts, "engine": {"engine": "dask", "job": "evaluate"}}
    else:
        images = images_to_evaluate(trained, None if data is None else Path(data))
        images = images if limit is None else first_images(images, limit)
        cluster.check_classes(trained.model, len(images.classes), data)
        augment = evaluation_augment(trained.config, recipe_of(trained.model), ten_crop)
        ready = jobs.open_engine(
            trained.model,
            images=len(images.targets) * (CROPS if ten_crop else 1),
            size=augment.shape[-1],
            backend=backend,
            batch_size=batch_size,
            workers=workers,
            forget=True,
        )
        result, failures = evaluated(images, augment, ready), []
        by = {"engine": ready.described()}
    if as_json:
        crops = {"crops": CROPS if ten_crop else 1}
        matrix = {"classes": labels, "confusion": result.confusion.tolist()}
        show.print_json({**result.to_json(), **crops, **matrix, **by})
    else:
        seen = "mean of ten crops" if ten_crop else "one crop"
        rows = {"top-1": f"{result.top1:.2%}", "top-5": f"{result.top5:.2%}", "loss": f"{result.loss:.4f}"}
        show.console().print(show.facts({"images": f"{result.images}, {seen}", **rows}))
    if confusion is not None:  # last: where it cannot be written, the figures stand all the same
        draw_confusion(result.confusion, labels, confusion)
        if not as_json:
            print(confusion)
    report(failures)


def evaluated(images: Dataset, augment: Augment, engine: jobs.Engine) -> Evaluation:
    """All images on this machine, with a bar. Raises ImageError; Exit after Ctrl-C."""
    count, done = len(images.targets), [0]

    def watched(found: Any, advance: Any) -> Any:
        for logits, target in found:
            yield logits, target
            done[0] += len(target)
            advance(len(target))

    bar = show.progress("images", count, rate=True)
    stopped = show.stoppable(lambda: f"{done[0]} of {counted(count, 'image')} were seen; nothing is kept")
    with stopped, bar as advance, closing(jobs.stream_logits(images, augment, engine)) as found:
        return from_logits(watched(found, advance), len(images.classes))


def ablate(
    what: Annotated[str, typer.Argument(metavar="WHAT", help=f"One of {', '.join(ABLATIONS)}.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder for the curves (.png) and the figures (.jsonl).")],
    preset: Annotated[str, typer.Option("--preset", "-p", help="The network to take the idea out of.")] = "paper",
    width: Annotated[float, typer.Option("--width", help="Scale every hidden width.")] = 0.125,
    image_size: Annotated[int, typer.Option("--image-size", help="Side of the images.", min=1)] = 112,
    limit: Annotated[int | None, typer.Option("--limit", help="Train on so many images only.", min=1)] = 6000,
    dataset: Annotated[str, typer.Option("--dataset", help="fashion-mnist, synthetic or folder.")] = "fashion-mnist",
    data: Annotated[str | None, typer.Option("--data", help="Folder of the images.")] = None,
    epochs: Annotated[int, typer.Option("--epochs", "-e", help="Times through the images.", min=1)] = 5,
    batch_size: BatchSize = 64,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate.")] = 0.02,
    momentum: Annotated[float, typer.Option("--momentum", help="Of the optimizer.")] = 0.9,
    initialisation: Annotated[str, typer.Option("--initialisation", help="See alexnet train --help.")] = "kaiming",
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order and dropout.", min=0)] = 0,
    backend: Annotated[str, typer.Option("--backend", help="numpy, numba, cupy or cuda.")] = Config.backend,
    workers: Annotated[int, typer.Option("--workers", help="Threads that prepare images.", min=1)] = 2,
    as_json: Json = False,
) -> None:
    """Take one of the paper's ideas out of a small network: train it with and without, side by side, draw both curves.

    Every variant starts from the same weights and sees the same batches. `alexnet ablate activation` is the paper's
    figure 1: ReLU against tanh, and sigmoid too.

    Examples:
      alexnet ablate activation --out ablations
      alexnet ablate pooling --out ablations --epochs 10 --limit 60000
    """
    if what not in ABLATIONS:
        raise ArgumentError(f"ablate: WHAT is one of {', '.join(ABLATIONS)}, got {what!r}")
    config = Config(
        dataset=dataset,
        data=data,
        limit=limit,
        image_size=image_size,
        preset=preset,
        width=width,
        initialisation=initialisation,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        momentum=momentum,
        seed=seed,
        backend=backend,
    )
    out.mkdir(parents=True, exist_ok=True)
    new_figure(1, 1)  # if matplotlib is missing, say so now
    lines = out / f"{what}.jsonl"
    with lines.open("w", encoding="utf-8") as file:

        def report(name: str, event: Event) -> None:
            file.write(json.dumps({"variant": name, **event}) + "\n")
            if event["kind"] == "epoch" and not as_json:
                figures = f"loss {event['loss']:.4f}, accuracy {event['accuracy']:.2%}"
                print(f"epoch {event['epoch']}/{epochs}  {name}: {figures}")

        events = train_variants(what, config, workers, report)
    picture = out / f"{what}.png"
    draw_curves(events, picture)
    if as_json:
        last: dict[str, Any] = {name: variant[-1] for name, variant in events.items()}
        show.print_json({"ablation": what, "config": config.to_json(), "variants": last, "curves": str(picture)})
    else:
        print(f"{picture}\n{lines}")
