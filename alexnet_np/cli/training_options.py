"""The options of `alexnet train` and `finetune`, for their signatures: how each is called, its panel and its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from alexnet_np.cli.recipes import show_recipes
from alexnet_np.training.config import CHOICES
from alexnet_np.training.recipes import RECIPES

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
ColourEpochs = Annotated[
    int | None,
    option("colour_epochs", DATA, "Shift colours in so many epochs only.", min=1, show_default="all"),
]
Mean = Annotated[str, option("mean", DATA)]
Resizing = Annotated[str, option("resizing", DATA)]
Jpeg = Annotated[
    int,
    option("jpeg", DATA, "Store a folder's resized pictures as JPEG of this quality first; 0: not.", min=0, max=100),
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
FreezeAfter = Annotated[
    list[str],
    option("freeze_after", NETWORK, "As --freeze, but after so many epochs: PREFIX:EPOCHS; may be repeated."),
]
Activation = Annotated[str, option("activation", NETWORK)]
Pooling = Annotated[str, option("pooling", NETWORK)]
Ties = Annotated[str, option("ties", NETWORK)]
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
