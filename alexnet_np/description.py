"""What a network is, beside its numbers: the record that travels with every file of weights that is written here.

    said = Description("d2l", num_classes=10, in_channels=1, width=1 / 8, activation="tanh")
    identity.build(said)              the network
    model.described()                 the record of a network
    described_in(metadata)            as a file's metadata holds it (weights/seal.py)

Whoever opens such a file builds that very network, with its classes' names and its preprocessing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from alexnet_np.data import mean_image
from alexnet_np.data.mean_image import PLACES, MeanImage
from alexnet_np.data.recipe import RESIZING, Preprocessing
from alexnet_np.errors import ArgumentError, WeightsError
from alexnet_np.layers import Dropout, Identity, Layer, LocalResponseNorm, MaxPool2d, ReLU, Sigmoid, Tanh
from alexnet_np.text import counted, quoted
from alexnet_np.weights import seal

ACTIVATIONS: dict[str, Callable[[], Layer]] = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid}
POOLINGS = ("overlapping", "plain")


@dataclass(frozen=True)
class Description:
    """A preset, its sizes, what was changed in it, what its classes are called, and what is done to its pictures."""

    preset: str
    num_classes: int
    in_channels: int
    width: float = 1.0
    activation: str = "relu"  # after every hidden layer, whatever the preset has there
    pooling: str = "overlapping"  # as the preset has it; "plain": 2x2, stride 2
    lrn: bool = True  # where the preset has it
    dropout: float | None = None  # None: as the preset has it
    classes: tuple[str, ...] | None = None  # their names, in the order of the outputs; None: nobody has named them
    preprocessing: Preprocessing | None = None  # None: nobody knows

    @property
    def is_changed(self) -> bool:
        """Whether layers are other than the preset's."""
        return self.activation != "relu" or self.pooling != "overlapping" or not self.lrn

    def __str__(self) -> str:
        """In a few words, for messages."""
        named = [self.preset, f"width {self.width:g}", counted(self.num_classes, "class")]
        named.append(counted(self.in_channels, "channel"))
        named += [self.activation] if self.activation != "relu" else []
        named += ["plain pooling"] if self.pooling != "overlapping" else []
        return ", ".join(named + ([] if self.lrn else ["without LRN"]))

    def changed(self, layer: Layer) -> Layer:
        """What stands in the place of a preset's layer."""
        if type(layer) in ACTIVATIONS.values() and type(layer) is not ACTIVATIONS[self.activation]:
            return ACTIVATIONS[self.activation]()
        if isinstance(layer, MaxPool2d) and self.pooling == "plain":
            return MaxPool2d(kernel_size=2, stride=2)
        if isinstance(layer, LocalResponseNorm) and not self.lrn:
            return Identity()
        if isinstance(layer, Dropout) and self.dropout is not None:
            layer.p = self.dropout
        return layer

    def fitted(self, num_classes: int, in_channels: int) -> Description:
        """The same of a network whose first or last layer was replaced: names and recipe go where they fit no more."""
        names = self.classes if num_classes == self.num_classes else None
        recipe = self.preprocessing if in_channels == self.in_channels else None
        return replace(self, num_classes=num_classes, in_channels=in_channels, classes=names, preprocessing=recipe)

    def check_same(self, asked: Mapping[str, Any], name: str, remedy: str) -> None:
        """Raises WeightsError where what is asked for is not what this is; None asks for nothing."""
        wrong = [
            f"{field} {_short(getattr(self, field))}, not {_short(value)}"
            for field, value in asked.items()
            if value is not None and not _same(getattr(self, field), value)
        ]
        if wrong:
            raise WeightsError(f"{name}: a network of {', '.join(wrong)}; {remedy}")

    def to_json(self) -> dict[str, Any]:
        """Of a mean image only what is done with it: its pixels are an array beside the weights, see `arrays`."""
        recipe = self.preprocessing and self.preprocessing._asdict()
        if recipe and recipe["mean_image"] is not None:
            recipe["mean_image"] = recipe["mean_image"].at
        bare = replace(self, preprocessing=None)  # a mean image is not copied
        return {**asdict(bare), "preprocessing": recipe}

    def arrays(self) -> dict[str, np.ndarray]:
        """What else belongs into a file of its weights: the mean image, if there is one."""
        image = self.preprocessing and self.preprocessing.mean_image
        return {} if image is None else {mean_image.NAME: image.pixels}

    def without_arrays(self) -> Description:
        """The same for a file that has no room for a mean image: what remains is its mean a channel."""
        recipe = self.preprocessing and self.preprocessing._replace(mean_image=None)
        return replace(self, preprocessing=recipe)

    def with_arrays(self, read: Callable[[str], np.ndarray]) -> Description:
        """The same with the mean image that it says it has, read by its name. Raises WeightsError."""
        recipe = self.preprocessing
        if recipe is None or recipe.mean_image is None:
            return self
        pixels = read(mean_image.NAME)
        H, W, C = pixels.shape if pixels.ndim == 3 else (0, 0, 0)
        if min(H, W) < recipe.crop or recipe.channels != C or pixels.dtype != np.float32:
            raise WeightsError(f"damaged: a mean image of {pixels.dtype} {pixels.shape} for an input of {recipe.shape}")
        return replace(self, preprocessing=recipe._replace(mean_image=MeanImage(pixels, str(recipe.mean_image))))


def described_in(metadata: Mapping[str, str]) -> Description | None:
    """The description in a file's metadata; None where there is none. Raises WeightsError."""
    network = seal.unpack(metadata).get("network")
    if network is None:
        return None
    try:
        return _checked(network)
    except (TypeError, KeyError, ValueError, ArithmeticError) as error:
        raise WeightsError(f"damaged: what it says of its network is none: {quoted(str(error))}") from None


def _checked(network: dict[str, Any]) -> Description:
    recipe, names = network["preprocessing"], network["classes"]
    if recipe is not None:
        lists = {key: tuple(map(float, recipe[key])) for key in ("mean", "std")}
        recipe = Preprocessing(**{**recipe, **lists})
        sides = (recipe.resize, recipe.crop)
        if recipe.mode not in ("RGB", "BGR", "L") or any(type(side) is not int or side < 1 for side in sides):
            raise ValueError("preprocessing")
        if {len(recipe.mean), len(recipe.std)} != {recipe.channels} or 0 in recipe.std or not recipe.scale:
            raise ValueError("preprocessing")
        if recipe.resizing not in RESIZING or recipe.mean_image not in (None, *PLACES) or recipe.jpeg not in range(101):
            raise ValueError("preprocessing")
    if names is not None and (len(names) != network["num_classes"] or any(type(name) is not str for name in names)):
        raise ValueError("classes")
    said = Description(**{**network, "preprocessing": recipe, "classes": names and tuple(names)})
    check_changes(said.activation, said.pooling, said.dropout)
    counts = all(type(n) is int and n > 0 for n in (said.num_classes, said.in_channels))
    if not counts or not math.isfinite(said.width) or said.width <= 0 or not isinstance(said.preset, str):
        raise ValueError("sizes")
    return said


def check_changes(activation: str, pooling: str, dropout: float | None) -> None:
    """Raises ArgumentError."""
    if activation not in ACTIVATIONS or pooling not in POOLINGS:
        raise ArgumentError(f"no such activation or pooling: {activation!r}, {pooling!r}")
    if dropout is not None and not 0 <= dropout < 1:
        raise ArgumentError(f"dropout must be at least 0 and below 1, got {dropout}")


def _same(have: Any, want: Any) -> bool:
    return math.isclose(have, want, rel_tol=1e-6) if isinstance(want, float) and have is not None else have == want


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
