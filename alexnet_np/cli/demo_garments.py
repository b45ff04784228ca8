"""The second half of `alexnet demo`: real garments, told apart by the trained network that the package carries."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from alexnet_np.cli import show
from alexnet_np.cli.images import Guess, best
from alexnet_np.cli.options import load_network
from alexnet_np.data.garments import Garment, garments
from alexnet_np.device import to_cpu
from alexnet_np.errors import DataError
from alexnet_np.files import PAINTED, picture
from alexnet_np.identity import preprocess
from alexnet_np.layers import no_grad
from alexnet_np.ops import softmax
from alexnet_np.study.contact_sheet import Tile, contact_sheet
from alexnet_np.weights import registry

WEIGHTS = "FASHION_MNIST_V1"


@dataclass(frozen=True)
class Classified:
    """Garments, and what the network took each of them for, best first."""

    garments: list[Garment]
    guesses: list[list[Guess]]

    @property
    def right(self) -> list[bool]:
        return [guesses[0].label == garment.label for garment, guesses in self]

    def __iter__(self) -> Any:
        return zip(self.garments, self.guesses, strict=True)

    def to_json(self, picture: Path | None) -> dict[str, Any]:
        images = [{"test_image": g.number, "label": g.label, "top": list(map(asdict, top))} for g, top in self]
        return {"weights": WEIGHTS, "right": sum(self.right), "images": images, "picture": picture and str(picture)}


def classify(backend: str | None) -> Classified:
    network = load_network(None, WEIGHTS, backend, seed=0)
    carried = garments()
    x = np.stack([preprocess(garment.picture, preset=network.model.preset) for garment in carried])
    with no_grad():
        probabilities = to_cpu(softmax.forward(network.model(network.place(x)))[0])
    return Classified(carried, [best(row, network.labels(), 3) for row in probabilities])


def draw(found: Classified, out: Path) -> DataError | None:
    """Write the contact sheet. Gives the error where it cannot be written: the rest is worth showing all the same."""
    tiles = [Tile(garment.picture, garment.label, top[0].label, top[0].probability) for garment, top in found]
    try:
        with picture(out, PAINTED) as (temporary, form):
            contact_sheet(tiles, headline(found)).save(temporary, format=form.upper())
    except DataError as error:
        return error
    return None


def headline(found: Classified) -> str:
    entry = registry.ENTRIES[WEIGHTS]
    return (
        f"{sum(found.right)} of {len(found.garments)} test images of Fashion-MNIST told right by {WEIGHTS} "
        f"({entry.top1:.2f}% of all 10,000)"
    )


def table(found: Classified) -> show.Table:
    """What each garment is, what it was taken for, and what else it might have been."""
    made = show.table(">test image", "it is", "", "taken for", ">sure", " ", "or", spare=[" ", "or"], folds=["or"])
    for (garment, (first, *others)), right in zip(found, found.right, strict=True):
        rest = ", ".join(f"{guess.label} {guess.probability:.1%}" for guess in others if guess.probability >= 0.001)
        sure = f"{first.probability:.1%}", show.bar(first.probability, 20)
        made.add_row(str(garment.number), garment.label, show.verdict(right), first.label, *sure, Text(rest, "dim"))
    return made
