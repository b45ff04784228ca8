"""How the 2012 network was trained, three times over, as data: every choice beside where it is written.

    settings("krizhevsky145", {"epochs": 30})     fields of a Config: the recipe's, and what is given in their place
    table()                                       the recipes side by side

What is said in epochs is said of the published run, and drawn out or in over as many as are asked for. On small images
there is nothing to crop and no colour: they are mirrored only, and taken as bytes minus their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from alexnet_np import arguments
from alexnet_np.presets import PRESETS
from alexnet_np.training.config import COLOURED, SMALL_IMAGES, Config

CHM = "computerhistory/AlexNet-Source-Code: "
CC2 = "akrizhevsky/cuda-convnet2: "
CAFFE = "BVLC/caffe: "
PARAMS = CHM + "layers/layer-params-145.cfg"
SOLVER = CAFFE + "models/bvlc_alexnet/solver.prototxt"
NET = CAFFE + "models/bvlc_alexnet/train_val.prototxt"


FOR_FOLDERS = ("resizing", "jpeg")  # of pictures larger than the input


class Choice(NamedTuple):
    value: Any  # of the Config's field
    source: str


@dataclass(frozen=True)
class Recipe:
    title: str
    choices: Mapping[str, Choice]  # by the Config's fields
    notes: tuple[str, ...]  # what differs but is not a choice here, and why

    def lines(self) -> list[str]:
        """Every source, those of a repository together, and the notes."""
        found: dict[str, dict[str, list[str]]] = {}
        for field, choice in self.choices.items():
            repository, _, inside = choice.source.partition(": ")
            where, what = (repository, inside) if "/" in repository else ("", choice.source)
            found.setdefault(where, {}).setdefault(what, []).append(field)
        lines = []
        for repository, sources in found.items():
            lines += [repository] if repository else []
            indent = "  " if repository else ""
            lines += [f"{indent}{', '.join(fields)}: {source}" for source, fields in sources.items()]
        return lines + list(self.notes)


RECIPES = {
    "paper": Recipe(
        "Krizhevsky, Sutskever, Hinton (2012), as printed",
        {
            "preset": Choice("paper", "sec. 3.5, figure 2"),
            "initialisation": Choice("paper", "sec. 5: std 0.01; biases 1 in conv 2, 4, 5 and the hidden dense layers"),
            "epochs": Choice(90, "sec. 5: roughly 90 cycles"),
            "batch_size": Choice(128, "sec. 5"),
            "lr": Choice(0.01, "sec. 5"),
            "momentum": Choice(0.9, "sec. 5"),
            "weight_decay": Choice(5e-4, "sec. 5"),
            "rule": Choice("paper", "sec. 5: v = 0.9 v - 0.0005 lr w - lr g"),
            "biases": Choice("same", "sec. 5: an equal learning rate for all layers"),
            "schedule": Choice("plateau", "sec. 5: divided by 10 when the validation error stopped improving"),
            "gamma": Choice(0.1, "sec. 5"),
            "dropout": Choice(0.5, "sec. 4.2"),
            "dropout_scaling": Choice("testing", "sec. 4.2: outputs times 0.5 at test time"),
            "augmentation": Choice("paper", "sec. 4.1: crops, mirror, PCA of the RGB values"),
            "mean": Choice("place", "sec. 2: the mean activity over the training set, from each pixel"),
        },
        (
            "images are scaled by the shorter side to 256, their centre cut out (sec. 2), as here",
            "colour noise goes by the standard deviations along the components, as in the authors' code "
            f"({CHM}convdata_jpeg.py); sec. 4.1 says eigenvalues, their squares",
        ),
    ),
    "krizhevsky145": Recipe(
        "the authors' run 145, as its files have it",
        {
            "preset": Choice("krizhevsky145", CHM + "layers/layers-145.cfg"),
            "initialisation": Choice(
                "krizhevsky145", CHM + "layers/layers-145.cfg: initW 0.01, in conv 3, 4, 5 0.03; initB 1"
            ),
            "epochs": Choice(91, PARAMS),
            "batch_size": Choice(128, "the paper, sec. 5"),
            "lr": Choice(0.01, PARAMS + ": epsW"),
            "momentum": Choice(0.9, PARAMS + ": momW, momB"),
            "weight_decay": Choice(5e-4, PARAMS + ": wc"),
            "rule": Choice("paper", CHM + "src/weights.cu, Weights::update"),
            "biases": Choice("held", PARAMS + ": epsB 0.02 to the end, no decay"),
            "schedule": Choice("milestones", PARAMS + ": epsW cut by hand after epochs 25, 51, 79"),
            "milestones": Choice((25, 51, 79), PARAMS + ": epsW cut by hand after epochs 25, 51, 79"),
            "gamma": Choice(0.1, "the paper, sec. 5: divided by 10"),
            "dropout": Choice(0.5, CHM + "layers/layers-145.cfg, layer.py"),
            "dropout_scaling": Choice("testing", CHM + "layers/layers-145.cfg, layer.py"),
            "augmentation": Choice(
                "krizhevsky145",
                CHM + "convdata_jpeg.py, crop_chunk: 32 images go together; colour noise, then divided by 1.1",
            ),
            "colour_epochs": Choice(66, PARAMS + ", comments: colour noise off from epoch 67"),
            "freeze_after": Choice({"features.0": 71}, PARAMS + ", comments: conv 1's epsW and epsB 0 from epoch 72"),
            "mean": Choice("centre", CC2 + "convdata.py: data_mean_crop, the centre for every crop"),
            "resizing": Choice("area", CC2 + "make-data/pyext/src/pyext.cpp: INTER_AREA, INTER_CUBIC to enlarge"),
            "jpeg": Choice(95, CC2 + "make-data/pyext/include/pyext.h: JPEG_QUALITY"),
            "ties": Choice("all", CC2 + "cudaconv3/src/conv_util.cu, kLocalMaxUndo"),
        },
        (
            "the rate of conv 1 is 0 from then on, so momentum still moves it for some batches, as there",
            f"the colours' components are the training set's own; ImageNet's are in {CC2}make-data/input_meta",
        ),
    ),
    "caffe": Recipe(
        "Caffe's bvlc_alexnet",
        {
            "preset": Choice("bvlc", NET),
            "initialisation": Choice("caffe", NET + ": std 0.01, in fc 6 and 7 0.005; biases 0.1"),
            "epochs": Choice(90, SOLVER + ": 450,000 iterations of 256 images"),
            "batch_size": Choice(256, NET),
            "lr": Choice(0.01, SOLVER),
            "momentum": Choice(0.9, SOLVER),
            "weight_decay": Choice(5e-4, SOLVER),
            "rule": Choice("paper", CAFFE + "src/caffe/solvers/sgd_solver.cpp"),
            "biases": Choice("double", NET + ": lr_mult 2, decay_mult 0"),
            "schedule": Choice("step", SOLVER + ": every 100,000 iterations, 20 epochs"),
            "step_epochs": Choice(20, SOLVER + ": every 100,000 iterations, 20 epochs"),
            "gamma": Choice(0.1, SOLVER),
            "dropout": Choice(0.5, NET),
            "dropout_scaling": Choice("training", CAFFE + "src/caffe/layers/dropout_layer.cpp: times 2 in training"),
            "augmentation": Choice("crop", NET + ": crop and mirror, no colour noise"),
            "mean": Choice("place", CAFFE + "src/caffe/data_transformer.cpp: the mean file, at the crop's place"),
            "resizing": Choice("linear", CAFFE + "src/caffe/util/io.cpp: cv::resize as it is by default"),
            "ties": Choice("first", CAFFE + "src/caffe/layers/pooling_layer.cpp"),
        },
        (
            f"images are warped to 256x256 ({CAFFE}examples/imagenet/create_imagenet.sh), as here",
            "CaffeNet's biases start at 1 (models/bvlc_reference_caffenet/train_val.prototxt): --preset caffenet "
            "--initialisation caffenet",
        ),
    ),
}


def settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a Config: the recipe's, but what is `given` as it is. Raises ArgumentError for an unknown recipe."""
    recipe = RECIPES[arguments.choice("training", "recipe", name, RECIPES)]
    chosen = {field: choice.value for field, choice in recipe.choices.items()}
    published = chosen["epochs"]
    epochs = given.get("epochs", published)
    if "milestones" in chosen:
        drawn = (_drawn_in(epoch, epochs, published) for epoch in chosen["milestones"])
        chosen["milestones"] = tuple(sorted({epoch for epoch in drawn if epoch < epochs}) or (epochs,))
    drawn_in = partial(_drawn_in, epochs=epochs, published=published)
    chosen |= {field: drawn_in(chosen[field]) for field in ("step_epochs", "colour_epochs") if field in chosen}
    if "freeze_after" in chosen:
        chosen["freeze_after"] = {prefix: drawn_in(epoch) for prefix, epoch in chosen["freeze_after"].items()}
    if given.get("dataset", Config.dataset) in SMALL_IMAGES:
        chosen |= {"augmentation": "mirror", "raw": True}
        chosen = {field: value for field, value in chosen.items() if field not in FOR_FOLDERS}
    if given.get("augmentation", chosen["augmentation"]) not in COLOURED:
        chosen.pop("colour_epochs", None)
    return chosen | dict(given) | {"recipe": name}


def _drawn_in(epoch: int, epochs: int, published: int) -> int:
    return max(1, round(epochs * epoch / published))


def configured(name: str, **given: Any) -> Config:
    """The configuration of a recipe, with what is given in the place of its own. Raises ArgumentError."""
    return Config(**settings(name, given))


def table() -> list[list[str]]:
    """A row a choice: the field, and what each recipe says."""
    fields = dict.fromkeys(field for recipe in RECIPES.values() for field in recipe.choices)
    rows = [["input", *(_input(recipe) for recipe in RECIPES.values())]]
    for field in fields:
        said = (recipe.choices.get(field) for recipe in RECIPES.values())
        rows.append([field.replace("_", " "), *("" if choice is None else _readable(choice.value) for choice in said)])
    return rows


def _input(recipe: Recipe) -> str:
    taken = PRESETS[recipe.choices["preset"].value].preprocessing
    return f"{taken.crop} of {taken.resize} {'warped ' if taken.warp else ''}{taken.mode}"


def _readable(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {epochs}" for name, epochs in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
