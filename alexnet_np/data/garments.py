"""Twenty garments of Fashion-MNIST's test set, which the package carries: the first two of each class, not chosen."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

from PIL import Image

from alexnet_np.data.labels import FASHION_MNIST


class Garment(NamedTuple):
    number: int  # its place among the 10,000 test images
    label: str
    picture: Image.Image  # grey, 28x28


def garments() -> list[Garment]:
    """All twenty, class by class, read from assets/garments/NUMBER_LABEL.png."""
    found = []
    for file in (files("alexnet_np") / "assets" / "garments").iterdir():
        number, _, label = file.name.removesuffix(".png").partition("_")
        with file.open("rb") as opened, Image.open(opened) as picture:
            found.append(Garment(int(number), label.replace("_", " "), picture.convert("L")))
    return sorted(found, key=lambda garment: (FASHION_MNIST.index(garment.label), garment.number))
