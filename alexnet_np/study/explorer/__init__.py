"""The explorer: a network on one picture as a single HTML file, in which every number can be followed to the pixels.

`Subject` is what a page shows, `render` makes it. The page itself lies in page/: page.html (Jinja2), page.css and the
scripts, which are put into it, so that the file needs nothing else and asks for nothing: its Content-Security-Policy
refuses every request.
"""

from __future__ import annotations

import base64
import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from time import perf_counter
from typing import Any

import numpy as np

from alexnet_np.data.preprocess import normalise
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.device import Array, array_module
from alexnet_np.errors import DtypeError, MissingPackageError
from alexnet_np.models import AlexNet
from alexnet_np.study.explorer.attributions import QUICK, attributed
from alexnet_np.study.explorer.layers import describe_layers
from alexnet_np.study.explorer.tensors import Tensors
from alexnet_np.study.timing import time_layers
from alexnet_np.study.units import activations
from alexnet_np.threads import blas_alone, get_num_threads

SCRIPTS = (
    "tensors",
    "arithmetic",
    "colour",
    "elements",
    "network",
    "picture",
    "overlay",
    "about",
    "thumbnails",
    "layer",
    "filters",
    "sum",
    "terms",
    "main",
)
ORDER = {"L": [0], "RGB": [0, 1, 2], "BGR": [2, 1, 0]}  # the picture's channel that is the input's
RUNS = 3  # of which a layer's time is the median
LONG = 0.4  # seconds: of a network that takes longer, or on a machine so busy, one run has to do


@dataclass(frozen=True)
class Subject:
    """A network and the picture that it is shown."""

    model: AlexNet
    pixels: np.ndarray  # uint8 (H,W,C), resized and cropped, RGB or grey
    recipe: Preprocessing  # which makes them the network's input
    labels: list[str]  # of the classes
    picture: str  # what it is, in words
    weights: str  # likewise
    random: bool  # whether those are random
    backend: str
    attributions: tuple[str, ...] = QUICK  # the methods whose maps lie over the picture


def render(subjects: Sequence[Subject]) -> str:
    """The page of one subject, or of two side by side.

    Raises MissingPackageError without Jinja2, DtypeError for a network that is not float32, and what the network does.
    """
    template = load_template()
    measured = [measure(subject) for subject in subjects]  # before the packing, which keeps the machine busy
    tensors = Tensors()
    nets = [describe(subject, *found, tensors) for subject, found in zip(subjects, measured, strict=True)]
    style, script = asset("page.css"), "\n".join(asset(f"{name}.js") for name in SCRIPTS)
    machine = f"{platform.machine()}, {get_num_threads()} threads"
    return template.render(
        nets=nets,
        about={"version": version("alexnet-np"), "machine": machine},
        style=style,
        script=script,
        style_hash=sha256(style),
        script_hash=sha256(script),
        tensors=tensors.encoded(),
    )


def measure(subject: Subject) -> tuple[dict[str, Array], dict[str, float]]:
    """Every layer's values, and the seconds that it takes. Raises DtypeError."""
    model = subject.model
    if model.dtype != np.float32:
        raise DtypeError(f"the explorer shows float32 networks, this one is {model.dtype}; use model.astype('float32')")
    H, W, C = subject.pixels.shape
    x = normalise(subject.pixels, subject.recipe, np.empty((C, H, W), np.float32))
    x = array_module(next(model.parameters()).data).asarray(x)
    start = perf_counter()
    values = activations(model, x)
    runs = RUNS if perf_counter() - start < LONG else 1
    return values, {row.name: row.seconds for row in time_layers(model, x[None], runs=runs)}


def describe(subject: Subject, values: dict[str, Array], seconds: dict[str, float], tensors: Tensors) -> dict[str, Any]:
    """All that the page says of one network and its picture; arrays go to `tensors`."""
    model, recipe = subject.model, subject.recipe
    layers = describe_layers(model, values, seconds, tensors)
    number = int(values["softmax"].argmax())
    with blas_alone():  # what was described is being packed
        why = attributed(model, values["input"], number, subject.attributions, tensors)
    return {
        "preset": model.preset,
        "weights": subject.weights,
        "random": subject.random,
        "picture": subject.picture,
        "backend": subject.backend,
        "labels": subject.labels,
        "recipe": {"scale": recipe.scale, "mean": recipe.mean, "std": recipe.std, "order": ORDER[recipe.mode]},
        "pixels": tensors.add(subject.pixels),
        "parameters": sum(layer["parameters"] for layer in layers),
        "macs": sum(layer["macs"] for layer in layers),
        "layers": layers,
        "attributions": why,
    }


def load_template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise MissingPackageError("the explorer's page needs Jinja2: pip install jinja2") from error
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(asset("page.html"))


@cache
def asset(name: str) -> str:
    return (files("alexnet_np.study.explorer") / "page" / name).read_text(encoding="utf-8")


def sha256(text: str) -> str:
    """As a Content-Security-Policy names a script or a style that it lets in."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
