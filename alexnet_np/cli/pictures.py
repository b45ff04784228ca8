"""The picture that a command looks at: a file, the carried photograph, or a carried garment and its trained network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from typing import Annotated, NamedTuple

import typer

from alexnet_np.cli.options import Network, load_network
from alexnet_np.data.garments import garments
from alexnet_np.data.preprocess import ImageSource, source_name
from alexnet_np.errors import ArgumentError

GARMENT_WEIGHTS = "FASHION_MNIST_V1"

Image = Annotated[str | None, typer.Argument(help="An image file, or -.", show_default="a cat's photograph")]
Garment = Annotated[
    int | None,
    typer.Option(
        "--garment",
        help=f"Instead: one of the twenty carried garments, by its number among the test images (`alexnet demo` lists "
        f"them), with the carried network {GARMENT_WEIGHTS}.",
        show_default=False,
    ),
]


class Picture(NamedTuple):
    source: ImageSource
    name: str  # in words


@contextmanager
def chosen(image: str | None, garment: int | None) -> Iterator[Picture]:
    """Raises ArgumentError for a number that is none of the garments', and for an image and a garment together."""
    if garment is not None:
        if image is not None:
            raise ArgumentError("give an image or --garment, not both")
        carried = {g.number: g for g in garments()}
        if garment not in carried:
            listed = ", ".join(f"{number} ({carried[number].label})" for number in sorted(carried))
            raise ArgumentError(f"--garment {garment}: the carried ones are {listed}")
        label = carried[garment].label
        yield Picture(carried[garment].picture, f"{label}, Fashion-MNIST's test image {garment}")
    elif image is not None:
        yield Picture(image, source_name(image))
    else:
        with as_file(files("alexnet_np") / "assets" / "cat.jpg") as path:
            yield Picture(str(path), "a photograph of a cat, which the package carries")


def network_for(
    garment: int | None, preset: str | None, weights: str | None, backend: str | None, seed: int, width: float = 1.0
) -> Network:
    """The network that the options describe; for a garment the carried one, if they leave it open."""
    if garment is not None and preset is None and weights is None:
        weights = GARMENT_WEIGHTS
    return load_network(preset, weights, backend, seed, width=width)
