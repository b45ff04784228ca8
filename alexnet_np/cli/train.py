"""`alexnet train`, `finetune` and `curves`. The options of a run are the fields of alexnet_np.training.Config."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from alexnet_np.cli import evaluate, show
from alexnet_np.cli.options import Json, MaxPixels
from alexnet_np.cli.recipes import show_recipes
from alexnet_np.cli.training_progress import ProgressBar
from alexnet_np.errors import CheckpointError, DataError, MissingPackageError, WeightsError
from alexnet_np.files import picture_format
from alexnet_np.identity import identify
from alexnet_np.presets import PRESETS
from alexnet_np.text import counted
from alexnet_np.training import recipes
from alexnet_np.training.checkpoint import Checkpoints
from alexnet_np.training.config import CHOICES, SYNTHETIC, Config
from alexnet_np.training.interrupt import Stopped
from alexnet_np.training.loop import Listener, Trainer
from alexnet_np.training.metrics import Event, read_events
from alexnet_np.training.parallel.group import Group, world
from alexnet_np.training.parallel.launch import Watchdog, share_cores, together
from alexnet_np.training.pictures import draw_curves
from alexnet_np.training.recipes import RECIPES
from alexnet_np.training.tensorboard import TensorBoard

PANEL = "Training"
DATA, NETWORK, RECIPE, FILES, MACHINES = "Data", "Network", "Recipe", "Files", "Several processes"


def choices(name: str) -> str:
    """For a help text: what an option may be, and what that means."""
    described = (f"[bold]{choice}[/]{meaning and f' ({meaning})'}" for choice, meaning in CHOICES[name].items())
    return "; ".join(described) + "."


def option(name: str, panel: str, help: str = "", **more: Any) -> Any:
    return typer.Option(f"--{name.replace('_', '-')}", help=help or choices(name), rich_help_panel=panel, **more)


Dataset = Annotated[str, option("dataset", DATA)]
Data = Annotated[str | None, option("data", DATA, "Folder of the images, or of the IDX files.", show_default="found")]
Limit = Annotated[int | None, option("limit", DATA, "Train on so many images only, evenly spaced.", min=1)]
ValidationLimit = Annotated[
    int | None, option("validation_limit", DATA, "Validate on so many images only, evenly spaced.", min=1)
]
Validation = Annotated[float, option("validation", DATA, "Share of a folder held out, if it has no train/ and val/.")]
Augmentation = Annotated[str, option("augmentation", DATA)]
AugmentationOfHead = Annotated[
    str | None, option("augmentation", DATA, show_default="crop, or none where --freeze features is")
]
Strict = Annotated[bool, option("strict", DATA, "Refuse pictures that cannot be read, instead of leaving them out.")]
LikeTorchvision = Annotated[bool, option("like_torchvision", DATA, "Clip 16-bit pictures at 255, instead of scaling.")]
ImageSize = Annotated[
    int | None,
    option(
        "image_size",
        DATA,
        "Side that small images are enlarged to.",
        min=1,
        show_default="what the preset was made for",
    ),
]
Preset = Annotated[str, typer.Option("--preset", "-p", help=choices("preset"), rich_help_panel=NETWORK)]
Width = Annotated[float, option("width", NETWORK, "Scale every hidden width, for a small copy of the net.")]
WhatTheyAreOf = Annotated[
    str | None,
    typer.Option("--preset", "-p", help="Of the weights.", show_default="as they say", rich_help_panel=NETWORK),
]
WidthOfWeights = Annotated[float | None, option("width", NETWORK, "Of the weights.", show_default="as they say")]
Weights = Annotated[
    str | None, option("weights", NETWORK, "Start from these: a file, a run, a published name; or random.")
]
Freeze = Annotated[
    list[str], option("freeze", NETWORK, "Leave parameters whose names start so as they are; may be repeated.")
]
Activation = Annotated[str, option("activation", NETWORK)]
Pooling = Annotated[str, option("pooling", NETWORK)]
Lrn = Annotated[bool, typer.Option("--lrn/--no-lrn", help="Local response norm.", rich_help_panel=NETWORK)]
Dropout = Annotated[float, option("dropout", NETWORK, "Probability that a unit is dropped; 0 for none.")]
Initialisation = Annotated[str, option("initialisation", NETWORK)]
Raw = Annotated[bool, option("raw", DATA, "Small images as 0 to 255 minus their mean, as in 2012, instead of 0 to 1.")]
DropoutScaling = Annotated[str, option("dropout_scaling", RECIPE)]
Epochs = Annotated[int, typer.Option("--epochs", "-e", help="Times through the images.", min=1, rich_help_panel=RECIPE)]
BatchSize = Annotated[
    int, typer.Option("--batch-size", "--batch", "-b", help="Images a step.", min=1, rich_help_panel=RECIPE)
]
Lr = Annotated[float, option("lr", RECIPE, "Learning rate; for one-cycle the highest.")]
Momentum = Annotated[float, option("momentum", RECIPE, "Of the optimizer.")]
WeightDecay = Annotated[float, option("weight_decay", RECIPE, "Times the weights, added to the gradient.")]
Nesterov = Annotated[bool, option("nesterov", RECIPE, "Nesterov's momentum.")]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="How the 2012 network was trained, as far as no other option says otherwise: "
        f"{', '.join(RECIPES)}; [bold]help[/] shows them side by side, with their sources.",
        callback=show_recipes,
        is_eager=True,
        rich_help_panel=RECIPE,
    ),
]
Rule = Annotated[str, option("rule", RECIPE)]
Biases = Annotated[str, option("biases", RECIPE)]
Shards = Annotated[int, option("shards", MACHINES, "Cut each batch into so many, for mpirun -n R to share.", min=1)]
Reduce = Annotated[str, option("reduce", MACHINES)]
Parallel = Annotated[str, option("parallel", MACHINES)]
Timeout = Annotated[float, option("timeout", MACHINES, "Seconds without a step after which all processes end.", min=1)]
Schedule = Annotated[str, option("schedule", RECIPE)]
StepEpochs = Annotated[int, option("step_epochs", RECIPE, "For the schedule step.", min=1)]
Milestones = Annotated[list[int], option("milestones", RECIPE, "An epoch for the schedule milestones; repeat it.")]
Patience = Annotated[int, option("patience", RECIPE, "For the schedule plateau.", min=0)]
Gamma = Annotated[float, option("gamma", RECIPE, "For the schedules step and plateau.")]
LabelSmoothing = Annotated[float, option("label_smoothing", RECIPE, "Share of the target spread over all classes.")]
Seed = Annotated[int, option("seed", RECIPE, "Of weights, order, augmentation and dropout.", min=0)]
Dtype = Annotated[str, option("dtype", RECIPE)]
Backend = Annotated[str, option("backend", RECIPE, f"{', '.join(CHOICES['backend'])}.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder of this run.", rich_help_panel=FILES)]
Resume = Annotated[
    bool,
    option("resume", FILES, "Go on with the run in --out, with more --epochs for longer; repeat nothing."),
]
Workers = Annotated[int, option("workers", FILES, "Threads that prepare images.", min=1)]
Cache = Annotated[Path | None, option("cache", FILES, "Keep a folder's decoded images here, for the next epochs.")]
Keep = Annotated[int, option("keep", FILES, "Checkpoints that stay.", min=1)]
SaveEvery = Annotated[float, option("save_every", FILES, "Seconds between checkpoints within an epoch.", min=0)]
Tensorboard = Annotated[bool, option("tensorboard", FILES, "Write TensorBoard files too.")]


def register(app: typer.Typer) -> None:
    for command in train, finetune, evaluate.evaluate, evaluate.ablate, curves:
        app.command(rich_help_panel=PANEL)(command)


def train(
    context: typer.Context,
    out: Out,
    resume: Resume = False,
    recipe: Recipe = None,
    dataset: Dataset = Config.dataset,
    data: Data = Config.data,
    limit: Limit = Config.limit,
    validation_limit: ValidationLimit = Config.validation_limit,
    validation: Validation = Config.validation,
    augmentation: Augmentation = Config.augmentation,
    strict: Strict = False,
    like_torchvision: LikeTorchvision = False,
    max_pixels: MaxPixels = None,
    image_size: ImageSize = Config.image_size,
    raw: Raw = False,
    preset: Preset = Config.preset,
    width: Width = Config.width,
    weights: Weights = Config.weights,
    freeze: Freeze = [],  # noqa: B006
    activation: Activation = Config.activation,
    pooling: Pooling = Config.pooling,
    lrn: Lrn = Config.lrn,
    dropout: Dropout = Config.dropout,
    dropout_scaling: DropoutScaling = Config.dropout_scaling,
    initialisation: Initialisation = Config.initialisation,
    epochs: Epochs = Config.epochs,
    batch_size: BatchSize = Config.batch_size,
    lr: Lr = Config.lr,
    momentum: Momentum = Config.momentum,
    weight_decay: WeightDecay = Config.weight_decay,
    nesterov: Nesterov = Config.nesterov,
    rule: Rule = Config.rule,
    biases: Biases = Config.biases,
    schedule: Schedule = Config.schedule,
    step_epochs: StepEpochs = Config.step_epochs,
    milestones: Milestones = [],  # noqa: B006
    patience: Patience = Config.patience,
    gamma: Gamma = Config.gamma,
    label_smoothing: LabelSmoothing = Config.label_smoothing,
    seed: Seed = Config.seed,
    dtype: Dtype = Config.dtype,
    backend: Backend = Config.backend,
    shards: Shards = Config.shards,
    reduce: Reduce = Config.reduce,
    parallel: Parallel = Config.parallel,
    timeout: Timeout = 600.0,
    workers: Workers = 2,
    cache: Cache = None,
    keep: Keep = 3,
    save_every: SaveEvery = 120.0,
    tensorboard: Tensorboard = False,
    as_json: Json = False,
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


def finetune(
    context: typer.Context,
    data: Annotated[str, typer.Argument(metavar="FOLDER", help="Your pictures, a folder a class.")],
    out: Out,
    resume: Resume = False,
    weights: Weights = "IMAGENET1K_V1",
    freeze: Freeze = [],  # noqa: B006
    preset: WhatTheyAreOf = None,
    validation: Validation = Config.validation,
    validation_limit: ValidationLimit = Config.validation_limit,
    augmentation: AugmentationOfHead = None,
    strict: Strict = False,
    like_torchvision: LikeTorchvision = False,
    max_pixels: MaxPixels = None,
    epochs: Epochs = 10,
    batch_size: BatchSize = 32,
    lr: Lr = 0.001,
    momentum: Momentum = 0.9,
    weight_decay: WeightDecay = 5e-4,
    schedule: Schedule = "cosine",
    step_epochs: StepEpochs = Config.step_epochs,
    patience: Patience = Config.patience,
    gamma: Gamma = Config.gamma,
    label_smoothing: LabelSmoothing = Config.label_smoothing,
    dropout: Dropout = Config.dropout,
    width: WidthOfWeights = None,
    seed: Seed = Config.seed,
    backend: Backend = Config.backend,
    shards: Shards = Config.shards,
    reduce: Reduce = Config.reduce,
    parallel: Parallel = Config.parallel,
    timeout: Timeout = 600.0,
    workers: Workers = 2,
    cache: Cache = None,
    keep: Keep = 3,
    save_every: SaveEvery = 120.0,
    tensorboard: Tensorboard = False,
    as_json: Json = False,
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
    options = context.params
    names = [field.name for field in dataclasses.fields(Config)]
    settings = {name: options[name] for name in names if name in options} | fixed
    settings = starting_from_random(settings) if settings["weights"] == "random" else settings
    settings["freeze"] = tuple(settings["freeze"])
    settings["milestones"] = tuple(settings.get("milestones", ()))
    if settings["augmentation"] is None:
        settings["augmentation"] = augmentation_for(settings["freeze"])
    if settings["data"] is not None:
        settings["data"] = str(Path(settings["data"]).resolve())
    # By the enum's name, because Typer brings a copy of click of its own.
    given = {name for name in options if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"}
    if options.get("recipe") is not None:
        settings |= recipes.settings(options["recipe"], {name: settings[name] for name in settings if name in given})
    elif settings["dataset"] == "synthetic":
        settings |= {name: value for name, value in SYNTHETIC.items() if name not in given}
    out, as_json = options["out"], options["as_json"]
    files = {name: options[name] for name in ("workers", "cache", "keep", "save_every")}
    group = world()
    try:
        with together(group), Watchdog(group, options["timeout"], out) as watchdog:
            share_cores(group)
            if out.exists() and not out.is_dir():
                raise CheckpointError(f"{out}: is a file, where a run needs a folder; choose another --out")
            if options["resume"]:
                asked = {name: settings[name] for name in settings if name in given}
                trainer = Trainer.resume(out, asked, group=group, **files)
            else:
                trainer = begun(settings, out, group, files)
            if group.rank:
                trainer.fit([watchdog])
                return
            for notice in trainer.notices:
                show.note(f"alexnet: {notice}")
            result = fit(trainer, out, [watchdog], options["tensorboard"], as_json)
    except Stopped as stopped:
        if not group.rank:
            show.note(f"alexnet: {stopped}")
        raise typer.Exit(130) from None
    finish(result, out, as_json)


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
