"""Everything that decides how a training run turns out, in one frozen, JSON-able object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from alexnet_np import arguments
from alexnet_np.backend import BACKENDS
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.errors import ArgumentError, CheckpointError
from alexnet_np.initialisation import SCHEMES
from alexnet_np.presets import PRESETS

Reader = Callable[[str, str, Any], Any]  # (where, what, value): see arguments.py

# What each of these may be, and what it means.
CHOICES = {
    "dataset": {
        "fashion-mnist": "60,000 training and 10,000 test images of clothing, enlarged to image_size",
        "folder": "your own pictures, a folder a class",
        "synthetic": "stripes made on the fly, to try things out",
    },
    "preset": dict.fromkeys(PRESETS, ""),
    "initialisation": dict.fromkeys(SCHEMES, ""),
    "activation": {"own": "the preset's: ReLU, in lenet5 the sigmoid", "relu": "", "tanh": "", "sigmoid": ""},
    "pooling": {"overlapping": "3x3, stride 2, as in every preset", "plain": "2x2, stride 2"},
    "augmentation": {
        "none": "every image as it is",
        "mirror": "mirrored half the time (not for folders)",
        "crop": "random crop, mirrored half the time (folders only)",
        "paper": "crop, mirror and PCA colour noise (folders of colour pictures only)",
        "krizhevsky145": "as paper, 32 images cropped and mirrored alike, all divided by 1.1",
    },
    "mean": {
        "channel": "one number a channel, the preset's",
        "place": "the training set's mean image, where each crop was cut out: the paper's, Caffe's",
        "centre": "the mean image's centre, for every crop: the authors'",
    },
    "resizing": {
        "bilinear": "antialiased, as torchvision",
        "area": "by area, cubic where it grows, as OpenCV: the authors'",
        "linear": "not antialiased, as OpenCV: Caffe's",
    },
    "ties": {
        "first": "of equal maxima in a pooling the first gets the gradient",
        "all": "each does, as in cuda-convnet",
    },
    "rule": {"torch": "torch's SGD", "paper": "the 2012 paper's update"},
    "biases": {
        "same": "trained as weights are",
        "double": "twice the rate, no decay: Caffe's",
        "held": "twice the rate that the run begins with, to its end, no decay: the authors'",
    },
    "dropout_scaling": {
        "training": "units that stay are scaled up",
        "testing": "as in 2012 nothing is scaled in training, and all is halved in testing; kept in the usual form",
    },
    "schedule": {
        "constant": "lr all along",
        "step": "times gamma every step_epochs",
        "milestones": "times gamma after each of these epochs",
        "plateau": "times gamma when the validation error has not improved for more than patience epochs",
        "cosine": "from lr to 0 along half a cosine",
        "one-cycle": "up to lr in 30% of the steps, then down to almost 0",
    },
    "reduce": {
        "exact": "gradients added in an order that is the same for any number of processes",
        "fast": "added by MPI or NCCL, in an order of their own",
    },
    "parallel": {
        "data": "every process computes its shards of each batch",
        "weird": "so do the convolutions, but of dense layers each process has some units: Krizhevsky, 2014",
        "towers": "each of two processes has a tower of a network that has two: Krizhevsky and others, 2012",
    },
    "dtype": {"float32": "", "float64": ""},
    "backend": dict.fromkeys(BACKENDS, ""),
}


def _chosen(where: str, what: str, value: Any) -> str:
    if isinstance(value, str) and value in CHOICES[what]:
        return value
    raise ArgumentError(f"{where}: {what} must be one of {', '.join(CHOICES[what])}, got {arguments.shown(value)}")


def _share(where: str, what: str, value: Any) -> float:
    share = arguments.number(where, what, value)
    if not 0 <= share < 1:
        raise ArgumentError(f"{where}: {what} must be at least 0 and below 1, got {share:g}")
    return share


def _held_out(where: str, what: str, value: Any) -> float:
    share = arguments.number(where, what, value)
    if not 0 < share < 1:
        raise ArgumentError(f"{where}: {what} must be between 0 and 1, and neither, got {share:g}")
    return share


def _power_of_two(where: str, what: str, value: Any) -> int:
    count = arguments.integer(where, what, value, 1)
    if count & (count - 1):
        raise ArgumentError(
            f"{where}: {what} must be a power of two, got {count}; take {1 << (count.bit_length() - 1)}"
        )
    return count


def _prefixes(where: str, what: str, value: Any) -> tuple[str, ...]:
    names = arguments.items(where, what, value, "a list of names, such as ['features']")
    return tuple(arguments.text(where, what, name) for name in names)


def _freezing(where: str, what: str, value: Any) -> dict[str, int]:
    given = arguments.mapping(where, what, value, "names and epochs, such as {'features.0': 71}")
    return {arguments.text(where, what, name): arguments.integer(where, what, n, 1) for name, n in given.items()}


def _quality(where: str, what: str, value: Any) -> int:
    return arguments.integer(where, what, value, 0, 100)


def _epochs(where: str, what: str, value: Any) -> tuple[int, ...]:
    given = arguments.items(where, what, value, "a list of epochs, such as [25, 51]")
    return tuple(arguments.integer(where, what, epoch, 1) for epoch in given)


def _input(where: str, what: str, value: Any) -> Mapping[str, Any]:
    given = arguments.mapping(where, what, value, "the fields of a Preprocessing")
    usual = Preprocessing._field_defaults
    if not set(Preprocessing._fields) - set(usual) <= set(given) <= set(Preprocessing._fields):
        raise ArgumentError(f"{where}: {what} has the fields {', '.join(Preprocessing._fields)}, got {sorted(given)}")
    return given


def _path(where: str, what: str, value: Any) -> str:
    return str(arguments.path(where, what, value))


def _or_none(read: Reader) -> Reader:
    return lambda where, what, value: None if value is None else read(where, what, value)


_COUNT: Reader = partial(arguments.integer, least=1)
_SIZE: Reader = partial(arguments.number, least=0)
_READERS: dict[str, Reader] = {
    **dict.fromkeys(CHOICES, _chosen),
    **dict.fromkeys(("epochs", "batch_size", "step_epochs"), _COUNT),
    **dict.fromkeys(("limit", "validation_limit", "image_size", "colour_epochs"), _or_none(_COUNT)),
    **dict.fromkeys(("lr", "momentum", "weight_decay", "gamma"), _SIZE),
    **dict.fromkeys(("dropout", "label_smoothing"), _share),
    **dict.fromkeys(("new_head", "lrn", "nesterov", "strict", "like_torchvision", "raw"), arguments.flag),
    **dict.fromkeys(("data", "weights"), _or_none(_path)),
    "freeze": _prefixes,
    "freeze_after": _freezing,
    "jpeg": _quality,
    "milestones": _epochs,
    "recipe": _or_none(arguments.text),
    "patience": partial(arguments.integer, least=0),
    "preprocessing": _or_none(_input),
    "shards": _power_of_two,
    "seed": partial(arguments.integer, least=0, most=arguments.SEEDS),
    "validation": _held_out,
    "width": arguments.above,
}
COLOURED = ("paper", "krizhevsky145")  # augmentations with colour noise
SMALL_IMAGES = ("fashion-mnist", "synthetic")  # enlarged to image_size; pictures in folders are cropped instead

# What learns on the synthetic images, in a minute or two: Config(dataset="synthetic", **SYNTHETIC).
SYNTHETIC: Mapping[str, Any] = {
    "width": 0.125,
    "image_size": 112,
    "initialisation": "kaiming",
    "dropout": 0.0,
    "batch_size": 32,
    "lr": 0.005,
    "momentum": 0.9,
    "schedule": "one-cycle",
}


@dataclass(frozen=True)
class Config:
    """One training run. The defaults are d2l's: its network on Fashion-MNIST (Dive into Deep Learning, sec. 8.1.3).

    With the same configuration, the same data and the same numerical libraries on the same number of threads, two runs
    end with the same bits.
    """

    dataset: str = "fashion-mnist"
    data: str | None = None  # folder of the images, or of the IDX files; None: where they are usually found
    limit: int | None = None  # train on so many images only, evenly spaced
    validation_limit: int | None = None  # validate on so many only, likewise
    preset: str = "d2l"
    width: float = 1.0
    image_size: int | None = None  # for small images; None: what the preset was made for
    raw: bool = False  # small images as 0 to 255 minus their mean, as in 2012, instead of 0 to 1
    recipe: str | None = None  # which of recipes.py the rest was taken from
    weights: str | None = None  # start from these instead of from random numbers: a file or a registry name
    new_head: bool = False  # but the last layer, which starts anew, for other classes
    freeze: tuple[str, ...] = ()  # parameters with these prefixes stay as they are
    freeze_after: Mapping[str, int] = dataclasses.field(default_factory=dict)  # prefix: their rate is 0 after so many
    # epochs, as the authors stopped conv 1; by the paper's rule momentum still moves them a little
    activation: str = "own"
    pooling: str = "overlapping"
    lrn: bool = True  # where the preset has it
    dropout: float = 0.5
    dropout_scaling: str = "training"
    ties: str = "first"
    initialisation: str = "xavier"
    augmentation: str = "none"
    colour_epochs: int | None = None  # of an augmentation with colour noise: epochs that have it; None: all
    mean: str = "channel"
    resizing: str = "bilinear"  # of a folder's pictures
    jpeg: int = 0  # a folder's pictures, once resized, were stored as JPEG of this quality; 0: they were not
    validation: float = 0.1  # share of a folder's images held out, where it has no train/ and val/
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    rule: str = "torch"
    biases: str = "same"
    schedule: str = "constant"
    step_epochs: int = 30
    milestones: tuple[int, ...] = ()  # epochs
    patience: int = 3
    gamma: float = 0.1
    label_smoothing: float = 0.0
    seed: int = 0
    shards: int = 1  # each batch is cut into so many, a power of two, which several processes share
    reduce: str = "exact"
    parallel: str = "data"
    dtype: str = "float32"
    backend: str = "numba"
    preprocessing: Mapping[str, Any] | None = None  # Preprocessing's fields; None: small images' or the preset's
    strict: bool = False  # a picture that cannot be read is refused instead of left out
    like_torchvision: bool = False  # 16-bit pictures clipped at 255, as Pillow converts them, instead of scaled

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            read = _READERS[field.name]
            object.__setattr__(self, field.name, read("training", field.name, getattr(self, field.name)))
        self._check_data()

    def _check_data(self) -> None:
        if self.dataset == "folder" and self.data is None:
            raise ArgumentError("dataset 'folder' needs data, the folder that holds a folder a class")
        if self.dataset == "synthetic" and self.data is not None:
            raise ArgumentError("dataset 'synthetic' is made on the fly; leave data out")
        small = self.dataset in SMALL_IMAGES
        if self.schedule == "milestones" and not self.milestones:
            raise ArgumentError("schedule 'milestones' needs milestones, the epochs after which the rate falls")
        if small and (self.resizing != "bilinear" or self.jpeg):
            raise ArgumentError(f"resizing and jpeg are for folders; the images of {self.dataset} are only enlarged")
        if self.colour_epochs is not None and self.augmentation not in COLOURED:
            raise ArgumentError(
                f"colour_epochs is for augmentations with colour noise ({', '.join(COLOURED)}), not for "
                f"{self.augmentation!r}"
            )
        if self.raw and not small:
            raise ArgumentError("raw is for small images; a folder's pictures are what the preset takes")
        if self.augmentation in ("crop", "paper", "krizhevsky145") and small:
            raise ArgumentError(
                f"augmentation {self.augmentation!r} is for folders; for {self.dataset} use none or mirror"
            )
        if self.augmentation == "mirror" and not small:
            raise ArgumentError(
                "augmentation 'mirror' is for small images; a folder takes none, crop, paper or krizhevsky145"
            )

    def given_input(self) -> Preprocessing | None:
        """The input that the network takes, where it is neither small images' nor the preset's own."""
        given = self.preprocessing
        if given is None:
            return None
        return Preprocessing(**{**given, "mean": tuple(given["mean"]), "std": tuple(given["std"])})

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Config:
        """Raises CheckpointError for what another version wrote."""
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})  # what is missing came later
        if unknown:
            raise CheckpointError(f"written by another version of this package: {', '.join(unknown)}; use that version")
        return cls(**{**values, "freeze": tuple(values.get("freeze", ()))})

    def check_same(self, asked: Mapping[str, Any]) -> None:
        """Raises CheckpointError unless what is asked for is what this run was begun with.

        `data` may have moved, and `epochs` may be more.
        """
        unknown = sorted(set(asked) - {field.name for field in dataclasses.fields(self)})
        if unknown:
            raise ArgumentError(f"training: there is no {', '.join(unknown)} to ask for; see Config's fields")
        changed = [
            f"{name} was {getattr(self, name)!r}, not {value!r}"
            for name, value in asked.items()
            if name != "data" and value != getattr(self, name) and not (name == "epochs" and value > self.epochs)
        ]
        if changed:
            raise CheckpointError(
                f"the configuration has changed: {'; '.join(changed)}; leave that out to resume, or start a new run"
            )
