"""The options that commands share, and the network that they describe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import typer

from alexnet_np.backend import BACKENDS
from alexnet_np.data.preprocess import ImageSource
from alexnet_np.data.preprocess import prepare as prepare_image
from alexnet_np.device import Array, beside
from alexnet_np.errors import WeightsError
from alexnet_np.identity import alexnet, labels_of, recipe_of
from alexnet_np.jobs.choosing import ENGINES
from alexnet_np.models import AlexNet
from alexnet_np.presets import PRESETS, check_preset, published
from alexnet_np.weights import registry

NETWORK = "Network"

Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        "-p",
        help=f"{', '.join(PRESETS)}.",
        show_default="what the weights are of, else torchvision",
        rich_help_panel=NETWORK,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        "-w",
        help="A published name (IMAGENET1K_V1), a file (.pth, .safetensors, .npz), the folder of a run, or "
        "[bold]random[/]. What network it is, they say.",
        show_default="the published ones",
        rich_help_panel=NETWORK,
    ),
]
Backend = Annotated[
    str | None,
    typer.Option("--backend", help=f"{', '.join(BACKENDS)}.", show_default="numpy", rich_help_panel=NETWORK),
]
JobBackend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help=f"{', '.join(ENGINES)}; numba and cuda compile the network.",
        show_default="auto: numba where it pays",
        rich_help_panel=NETWORK,
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Of random weights and inputs.", min=0, rich_help_panel=NETWORK)]
Width = Annotated[
    float,
    typer.Option("--width", help="Scale every hidden width: a small net of random weights.", rich_help_panel=NETWORK),
]
BatchSize = Annotated[int, typer.Option("--batch-size", "--batch", "-b", help="Images at a time.", min=1)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines, and nothing else.")]


def set_max_pixels(pixels: int | None) -> int | None:
    """Pillow refuses pictures of more than twice its number, and warns from once on."""
    if pixels is not None:
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = -(-pixels // 2)
    return pixels


MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        help="The most that a picture may have.",
        show_default="twice Pillow's guard, 178,956,970",
        callback=set_max_pixels,
        min=1,
    ),
]


LikeTorchvision = Annotated[
    bool, typer.Option("--like-torchvision", help="Clip 16-bit pictures at 255, as torchvision does, not scale them.")
]


@dataclass(frozen=True)
class Network:
    """A network as the options describe it, in evaluation mode."""

    model: AlexNet
    weights: str  # in words
    random: bool
    backend: str

    @property
    def parameters(self) -> int:
        return sum(p.data.size for p in self.model.parameters())

    def described(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "preset": self.model.preset,
            "weights": self.weights,
            "random_weights": self.random,
            "backend": self.backend,
            "dtype": str(self.model.dtype),
            "parameters": self.parameters,
        }

    def __str__(self) -> str:
        return f"{self.model.preset} · {self.parameters:,} parameters · {self.model.dtype} · backend {self.backend}"

    def labels(self) -> list[str]:
        """The names of the classes, or their numbers where nobody has named them."""
        return labels_of(self.model)

    def prepare(self, image: ImageSource) -> np.ndarray:
        """A picture as this very network takes it: (C,H,W)."""
        return prepare_image(image, recipe_of(self.model))

    def place(self, x: np.ndarray) -> Array:
        """`x` where the network's parameters are, in their dtype."""
        first = next(self.model.parameters()).data
        return beside(x.astype(first.dtype, copy=False), first)


def load_network(
    preset: str | None,
    weights: str | None,
    backend: str | None,
    seed: int,
    *,
    width: float = 1.0,
    dtype: str = "float32",
    trained: bool = False,
    clip: bool = False,
) -> Network:
    """Without `weights`, those published for the preset if they are on this machine, else seeded random ones.

    With `trained`, random weights have to be asked for: where there are no others it raises a WeightsError that says
    how to get them. What network a file's weights are of, the file says; --preset and --width need not be repeated.
    With `clip` it takes 16-bit pictures as torchvision does.
    """
    network = _network_of(preset, weights, backend, seed, width=width, dtype=dtype, trained=trained)
    said = network.model.described()
    if clip and said.preprocessing is not None:
        network.model.said = replace(said, preprocessing=said.preprocessing._replace(like_torchvision=True))
    return network


def _network_of(
    preset: str | None, weights: str | None, backend: str | None, seed: int, *, width: float, dtype: str, trained: bool
) -> Network:
    if preset is not None:
        check_preset(preset)
    if weights is None:
        name = published(preset or "torchvision")
        if name and width == 1 and registry.find(name):
            weights = name
        elif trained:
            raise WeightsError(how_to_get(preset or "torchvision"))
    options: dict[str, Any] = {"dtype": dtype, "seed": seed, "backend": backend}
    if weights is None or weights == "random":
        model = alexnet(preset or "torchvision", width=width, **options)
        return Network(model.eval(), f"random, seed {seed}", True, backend or "numpy")
    model = alexnet(preset, weights, width=None if width == 1 else width, **options)
    return Network(model.eval(), weights, False, backend or "numpy")


def how_to_get(preset: str) -> str:
    """What to do where there are no trained weights for `preset`."""
    name = published(preset)
    if name is None:
        smaller = [f"{own} (of a narrower one)" for own in PRESETS[preset].weights]
        there = f" at its full width, only {', '.join(smaller)}" if smaller else ""
        return (
            f"there are no published weights for {preset!r}{there}: name weights with --weights NAME or FILE, or do "
            "without by --weights random"
        )
    return (
        f"the trained weights {name} are not on this machine: get them with `alexnet weights download {name}` "
        f"({registry.ENTRIES[name].size / 2**20:.0f} MiB), give --weights FILE, or do without by --weights random"
    )
