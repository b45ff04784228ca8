"""`alexnet train`, `finetune` and `curves`. The options of a run are the fields of alexnet_np.training.Config."""

from __future__ import annotations

import dataclasses
import json
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from alexnet_np.cli import evaluate, show
from alexnet_np.cli import training_options as options
from alexnet_np.cli.options import Json, MaxPixels
from alexnet_np.cli.training_progress import ProgressBar
from alexnet_np.errors import (
    AlexNetError,
    ArgumentError,
    CheckpointError,
    DataError,
    MissingPackageError,
    WeightsError,
    one_line,
)
from alexnet_np.files import picture_format
from alexnet_np.identity import identify
from alexnet_np.presets import PRESETS
from alexnet_np.text import counted
from alexnet_np.training import recipes
from alexnet_np.training.checkpoint import Checkpoints
from alexnet_np.training.config import SYNTHETIC, Config
from alexnet_np.training.interrupt import Stopped
from alexnet_np.training.loop import Listener, Trainer
from alexnet_np.training.metrics import Event, read_events
from alexnet_np.training.parallel.group import Group, hear_out, speaks, world
from alexnet_np.training.parallel.launch import Watchdog, share_cores, together
from alexnet_np.training.pictures import draw_curves
from alexnet_np.training.tensorboard import TensorBoard

PANEL = "Training"


def register(app: typer.Typer) -> None:
    for command in train, finetune, evaluate.evaluate, evaluate.ablate, curves:
        app.command(rich_help_panel=PANEL)(command)


def common_options(
    strict: options.Strict = False,
    like_torchvision: options.LikeTorchvision = False,
    max_pixels: MaxPixels = None,
    step_epochs: options.StepEpochs = Config.step_epochs,
    patience: options.Patience = Config.patience,
    gamma: options.Gamma = Config.gamma,
    label_smoothing: options.LabelSmoothing = Config.label_smoothing,
    seed: options.Seed = Config.seed,
    backend: options.Backend = Config.backend,
    shards: options.Shards = Config.shards,
    reduce: options.Reduce = Config.reduce,
    parallel: options.Parallel = Config.parallel,
    timeout: options.Timeout = 600.0,
    workers: options.Workers = 2,
    cache: options.Cache = None,
    keep: options.Keep = 3,
    save_every: options.SaveEvery = 120.0,
    tensorboard: options.Tensorboard = False,
    as_json: Json = False,
) -> None:
    """What `train` and `finetune` both take, with the same defaults: read for its signature only."""


def with_common_options(command: Any) -> Any:
    """`command` as Typer sees it: with those options behind its own, in the place of **common."""
    parameters = [*signature(command, eval_str=True).parameters.values()]
    common = signature(common_options, eval_str=True).parameters.values()
    command.__signature__ = Signature([*(each for each in parameters if each.kind != each.VAR_KEYWORD), *common])
    return command


@with_common_options
def train(
    context: typer.Context,
    out: options.Out,
    resume: options.Resume = False,
    recipe: options.Recipe = None,
    dataset: options.Dataset = Config.dataset,
    data: options.Data = Config.data,
    limit: options.Limit = Config.limit,
    validation_limit: options.ValidationLimit = Config.validation_limit,
    validation: options.Validation = Config.validation,
    augmentation: options.Augmentation = Config.augmentation,
    colour_epochs: options.ColourEpochs = Config.colour_epochs,
    mean: options.Mean = Config.mean,
    resizing: options.Resizing = Config.resizing,
    jpeg: options.Jpeg = Config.jpeg,
    image_size: options.ImageSize = Config.image_size,
    raw: options.Raw = False,
    preset: options.Preset = Config.preset,
    width: options.Width = Config.width,
    weights: options.Weights = Config.weights,
    freeze: options.Freeze = [],  # noqa: B006
    freeze_after: options.FreezeAfter = [],  # noqa: B006
    activation: options.Activation = Config.activation,
    pooling: options.Pooling = Config.pooling,
    ties: options.Ties = Config.ties,
    lrn: options.Lrn = Config.lrn,
    dropout: options.Dropout = Config.dropout,
    dropout_scaling: options.DropoutScaling = Config.dropout_scaling,
    initialisation: options.Initialisation = Config.initialisation,
    epochs: options.Epochs = Config.epochs,
    batch_size: options.BatchSize = Config.batch_size,
    lr: options.Lr = Config.lr,
    momentum: options.Momentum = Config.momentum,
    weight_decay: options.WeightDecay = Config.weight_decay,
    nesterov: options.Nesterov = Config.nesterov,
    rule: options.Rule = Config.rule,
    biases: options.Biases = Config.biases,
    schedule: options.Schedule = Config.schedule,
    milestones: options.Milestones = [],  # noqa: B006
    dtype: options.Dtype = Config.dtype,
    **common: Any,
) -> None:
    """Train a network. The defaults are d2l's: its AlexNet on Fashion-MNIST.

    Ctrl-C saves and says how to go on; killed or cut off, a run goes on from its last checkpoint, to the same bits.

    Under mpirun or srun, every process takes its part of the shards that each batch is cut into; the weights come out
    the same to the bit on any number of them.

    With --dataset synthetic what is left open is a small network's recipe, which learns in a minute or two.

    Examples:
      alexnet train --out runs/d2l
      alexnet train --out runs/d2l --resume
      alexnet train --out runs/2012 --recipe paper --dataset folder --data imagenet
      alexnet train --recipe help
      alexnet train --out runs/stripes --dataset synthetic
      mpirun -n 4 alexnet train --out runs/d2l --shards 4
    """
    start(context)


@with_common_options
def finetune(
    context: typer.Context,
    data: Annotated[str, typer.Argument(metavar="FOLDER", help="Your pictures, a folder a class.")],
    out: options.Out,
    resume: options.Resume = False,
    weights: options.Weights = "IMAGENET1K_V1",
    freeze: options.Freeze = [],  # noqa: B006
    preset: options.WhatTheyAreOf = None,
    validation: options.Validation = Config.validation,
    validation_limit: options.ValidationLimit = Config.validation_limit,
    augmentation: options.AugmentationOfHead = None,
    epochs: options.Epochs = 10,
    batch_size: options.BatchSize = 32,
    lr: options.Lr = 0.001,
    momentum: options.Momentum = 0.9,
    weight_decay: options.WeightDecay = 5e-4,
    schedule: options.Schedule = "cosine",
    dropout: options.Dropout = Config.dropout,
    width: options.WidthOfWeights = None,
    **common: Any,
) -> None:
    """Teach a trained network other classes: a fresh last layer, trained on a folder of pictures.

    What network it is, its weights say: preset, width, activation, preprocessing and all. With --weights random it
    starts from nothing.

    Examples:
      alexnet finetune flowers/ --out runs/flowers
      alexnet finetune flowers/ --out runs/flowers --freeze features --epochs 50
      alexnet finetune roses/ --out runs/roses --weights runs/flowers
    """
    start(context, dataset="folder", new_head=True, initialisation="torch")


def start(context: typer.Context, **fixed: Any) -> None:
    """Begin or resume the run that the command's options describe, and see it to its end."""
    params, group = context.params, processes()
    out, as_json = params["out"], params["as_json"]
    files = {name: params[name] for name in ("workers", "cache", "keep", "save_every")}
    try:
        with together(group), Watchdog(group, params["timeout"], out) as watchdog:
            share_cores(group)
            settings, given = settings_of(context, fixed)
            if out.exists() and not out.is_dir():
                raise CheckpointError(f"{out}: is a file, where a run needs a folder; choose another --out")
            if params["resume"]:
                asked = {name: settings[name] for name in settings if name in given}
                trainer = Trainer.resume(out, asked, group=group, **files)
            else:
                trainer = begun(settings, out, group, files)
            if group.rank:
                trainer.fit([watchdog])
                return
            if group.size > 1 and not as_json:
                show.note(f"alexnet: {group.size} processes; to stop and save: touch {out / 'stop'}")
            for notice in trainer.notices:
                show.note(f"alexnet: {notice}")
            result = fit(trainer, out, [watchdog], params["tensorboard"], as_json)
    except Stopped as stopped:
        if not group.rank:
            show.note(f"alexnet: {stopped}")
        raise typer.Exit(130 if group.size == 1 else 0) from None
    finish(result, out, as_json)


def processes() -> Group:
    """Those that were started together. What keeps all of them from meeting, the first one says."""
    try:
        return world()
    except AlexNetError as error:
        if speaks():
            show.note(f"alexnet: {one_line(error)}")
        hear_out()
        raise typer.Exit(1) from None


def settings_of(context: typer.Context, fixed: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """What a new run is configured with, and which options were given."""
    params = context.params
    names = [field.name for field in dataclasses.fields(Config)]
    settings = {name: params[name] for name in names if name in params} | fixed
    settings = starting_from_random(settings) if settings["weights"] == "random" else settings
    settings["freeze"] = tuple(settings["freeze"])
    settings["freeze_after"] = dict(map(freezing, settings.get("freeze_after", ())))
    settings["milestones"] = tuple(settings.get("milestones", ()))
    if settings["augmentation"] is None:
        settings["augmentation"] = augmentation_for(settings["freeze"])
    if settings["data"] is not None:
        settings["data"] = str(Path(settings["data"]).resolve())
    # By the enum's name, because Typer brings a copy of click of its own.
    given = {name for name in params if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"}
    if params.get("recipe") is not None:
        settings |= recipes.settings(params["recipe"], {name: settings[name] for name in settings if name in given})
    elif settings["dataset"] == "synthetic":
        settings |= {name: value for name, value in SYNTHETIC.items() if name not in given}
    return settings, given


def freezing(given: str) -> tuple[str, int]:
    """PREFIX:EPOCHS."""
    prefix, _, epochs = given.rpartition(":")
    if not prefix or not epochs.isdecimal():
        raise ArgumentError(f"--freeze-after: PREFIX:EPOCHS, such as features.0:71, got {given!r}")
    return prefix, int(epochs)


def begun(settings: dict[str, Any], out: Path, group: Group, files: dict[str, Any]) -> Trainer:
    """A new run."""
    if Checkpoints(out / "checkpoints").paths():
        raise CheckpointError(f"{out}: holds a run already; --resume it, or choose another --out")
    if settings.get("new_head"):
        if not Path(settings["data"]).is_dir():  # said before weights are fetched
            raise DataError(f"{settings['data']}: no such folder; name one that holds a folder a class")
        settings = settings | network_of(settings)
    return Trainer(Config(**settings), out, group=group, **files)


def augmentation_for(freeze: tuple[str, ...]) -> str:
    """Random crops; none where the features are frozen, which are then computed once instead of in every epoch."""
    if not any("features".startswith(prefix) for prefix in freeze):
        return "crop"
    if speaks():
        show.note(
            "alexnet: the features are frozen, so they are computed once and pictures are taken as they are; "
            "--augmentation crop crops at random and computes them every time"
        )
    return "none"


def starting_from_random(settings: dict[str, Any]) -> dict[str, Any]:
    """No weights to start from: every layer is new, of the network that the options describe."""
    preset, width = settings["preset"] or "torchvision", settings["width"]
    network = {"preset": preset, "width": Config.width if width is None else width}
    return settings | network | {"weights": None} | ({"new_head": False} if "new_head" in settings else {})


def network_of(settings: dict[str, Any]) -> dict[str, Any]:
    """What network the weights to be fine-tuned are of. Raises WeightsError where the options say otherwise."""
    weights, preset = settings["weights"], settings["preset"]
    said = identify(weights, preset)
    said.check_same({"preset": preset, "width": settings["width"]}, weights, "leave --preset and --width out")
    recipe = said.preprocessing
    if recipe is None:
        raise WeightsError(f"{weights}: nobody knows how pictures become its {counted(said.in_channels, 'channel')}")
    changed = {name: getattr(said, name) for name in ("preset", "width", "activation", "pooling", "lrn")}
    recipe = recipe._replace(mean_image=None)  # of other pictures: its mean a channel remains
    return changed | ({} if recipe == PRESETS[said.preset].preprocessing else {"preprocessing": recipe._asdict()})


def fit(trainer: Trainer, out: Path, listeners: list[Listener], tensorboard: bool, as_json: bool) -> Event:
    """Train to the end, showing how it goes."""
    more: list[Listener] = [TensorBoard(out / "tensorboard")] if tensorboard else []
    with ProgressBar(trainer.config.epochs, quiet=as_json) as progress:
        return trainer.fit([progress, *listeners, *more, *([print_event] if as_json else [])])


def finish(result: Event, out: Path, as_json: bool) -> None:
    """Draw the curves, and say what there is."""
    written = [out / "weights.safetensors"]
    try:
        draw_curves({out.name: read_events(out / "metrics.jsonl")}, out / "curves.png")
        written.append(out / "curves.png")
    except (MissingPackageError, DataError) as error:
        show.note(f"alexnet: no curves: {error}")
    if not as_json:
        names = " and ".join(map(str, written))
        show.tell(f"{result['accuracy']:.2%} of the validation images are right; written: {names}")


def print_event(event: dict[str, Any]) -> None:
    if event["kind"] not in ("validation", "gathering"):
        print(json.dumps(event), flush=True)


def curves(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, finished or not.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write: .png, .svg, .pdf or .jpg.")] = Path(
        "curves.png"
    ),
    as_json: Json = False,
) -> None:
    """Draw loss and error of one or several runs, at any time.

    Examples:
      alexnet curves runs/d2l runs/paper --out both.svg
    """
    picture_format(out)
    events = {str(run): read_events(run / "metrics.jsonl") for run in runs}
    draw_curves(events, out)
    if as_json:
        ends = {run: [event for event in of if event["kind"] == "epoch"] for run, of in events.items()}
        show.print_json({"out": str(out), "runs": ends})
    else:
        print(out)
