"""How an image becomes what a network was trained on: the recipe as data. preprocess.py carries it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from alexnet_np import arguments
from alexnet_np.errors import ArgumentError

if TYPE_CHECKING:
    from alexnet_np.data.mean_image import MeanImage


RESIZING = ("bilinear", "area", "linear")  # Pillow's, and OpenCV's of 2012: see resize.py


class Preprocessing(NamedTuple):
    """What one network takes: x[c] = (pixels[order[c]] / scale - mean[c]) / std[c], pixels being bytes in RGB.

    With a mean image that is subtracted from the pixels instead, and `mean` is its mean a channel.
    """

    resize: int  # pixels of the image's shorter side; of both where it is warped
    crop: int  # pixels of the central square, which is the input
    mode: str  # the input's channels in their order: "RGB", "BGR", or "L" for grey
    scale: float  # what the bytes 0..255 are divided by: 255 for an input in 0..1, 1 for one in 0..255
    mean: tuple[float, ...]  # of the input's channels, in their order and after the division
    std: tuple[float, ...]
    warp: bool = False  # resized to a square whatever its shape, as Caffe's images were
    like_torchvision: bool = False  # 16 bits are clipped at 255, as Pillow converts them, instead of scaled
    resizing: str = "bilinear"  # or as OpenCV did it in 2012: "area", "linear" (resize.py)
    jpeg: int = 0  # the quality at which the resized square was stored as JPEG again; 0: it was not
    mean_image: MeanImage | None = None  # of the training set (mean_image.py)

    @property
    def channels(self) -> int:
        return len(self.mode)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C,H,W) of the input."""
        return self.channels, self.crop, self.crop

    @property
    def order(self) -> tuple[int, ...]:
        """Which channel of the pixels each channel of the input is."""
        return (2, 1, 0) if self.mode == "BGR" else tuple(range(self.channels))


def with_channels(recipe: Preprocessing, channels: int) -> Preprocessing | None:
    """`recipe` for a network of so many channels: grey pictures for one, by the mean of the mean and std; colour for 3.

    None for any other number: nobody knows what they are.
    """
    if channels == recipe.channels:
        return recipe
    if channels == 1:
        mean, std = (sum(numbers) / len(numbers) for numbers in (recipe.mean, recipe.std))
        return recipe._replace(mode="L", mean=(mean,), std=(std,), mean_image=None)
    if channels == 3:
        return recipe._replace(mode="RGB", mean=recipe.mean * 3, std=recipe.std * 3, mean_image=None)
    return None


def adjusted(
    recipe: Preprocessing,
    resize_size: int | None = None,
    crop_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocessing:
    """`recipe` with whatever is given here in place of its own. Raises ArgumentError for a number out of range."""
    given: dict[str, Any] = {
        "resize": None if resize_size is None else positive("resize_size", resize_size),
        "crop": None if crop_size is None else positive("crop_size", crop_size),
        "mean": None if mean is None else _numbers("mean", mean),
        "std": None if std is None else _numbers("std", std),
    }
    recipe = recipe._replace(**{name: value for name, value in given.items() if value is not None})
    if mean is not None:  # in the place of whatever else was subtracted
        recipe = recipe._replace(mean_image=None)
    arguments.room("preprocess", "an image of that crop_size", recipe.shape)
    if len(recipe.mean) != recipe.channels or len(recipe.std) != recipe.channels or 0 in recipe.std:
        raise ArgumentError(
            f"mean and std must hold {recipe.channels} numbers, no std 0, got {recipe.mean} and {recipe.std}"
        )
    return recipe


def positive(name: str, value: int) -> int:
    """`value` if it is a positive int."""
    try:
        return arguments.integer("", name, value, 1)
    except ArgumentError:
        raise ArgumentError(f"{name} must be a positive int, got {arguments.shown(value)}") from None


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    found = arguments.items("preprocess", name, values, "a list of numbers, one a channel")
    return tuple(arguments.number("preprocess", name, value) for value in found)
