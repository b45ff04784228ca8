"""`alexnet attribute`: which pixels a class, or any unit, comes from, drawn over the picture."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from alexnet_np.cli import show
from alexnet_np.cli.explain import parse_index, place
from alexnet_np.cli.options import Backend, Json, MaxPixels, Network, Preset, Seed, Weights, Width
from alexnet_np.cli.pictures import Garment, Image, chosen, network_for
from alexnet_np.data.preprocess import normalise, read_pixels
from alexnet_np.device import to_cpu
from alexnet_np.errors import ArgumentError
from alexnet_np.files import PAINTED, picture, picture_format
from alexnet_np.identity import recipe_of
from alexnet_np.layers import no_grad
from alexnet_np.ops import softmax
from alexnet_np.study.attribution import METHODS, attribution, make_method, method_name
from alexnet_np.study.attribution.overlay import Shown, sheet, shown

ENDINGS = {**PAINTED, ".npz": "npz"}  # as a picture, or the numbers themselves
ALL = "all"


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="See inside")(attribute)


class Map(NamedTuple):
    method: str
    values: np.ndarray  # (C,H,W), or (1,H,W)
    shown: Shown

    @property
    def largest(self) -> tuple[int, ...]:
        """The row and the column of the pixel that counts most."""
        row, column = np.unravel_index(np.abs(self.values).max(0).argmax(), self.values.shape[1:])
        return int(row), int(column)

    def to_json(self) -> dict[str, Any]:
        least, most = float(self.values.min()), float(self.values.max())
        numbers = {"min": least, "max": most, "sum": float(self.values.sum(dtype=np.float64))}
        where = {"zeros": float((self.values == 0).mean()), "zero_everywhere": not self.values.any()}
        return {"shape": self.values.shape, **numbers, **where, "largest_at": self.largest}


def attribute(
    image: Image = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help=f"{', '.join(METHODS)}; or all.", show_default="grad_cam"),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="A class, by its number or name.", show_default="the likeliest")
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="Instead of a class, a unit of this layer.", show_default=False)
    ] = None,
    at: Annotated[str | None, typer.Option("--at", help="MAP,ROW,COLUMN, counted from 0.", show_default=False)] = None,
    unit: Annotated[
        int | None, typer.Option("--unit", help="Of a dense layer: its number.", show_default=False)
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help=f"The file to write: {', '.join(ENDINGS)} (the numbers).")
    ] = Path("attribution.png"),
    window: Annotated[int, typer.Option("--window", help="Of occlusion: pixels.", min=1)] = 15,
    stride: Annotated[int, typer.Option("--stride", help="Of occlusion: pixels.", min=1)] = 8,
    samples: Annotated[int, typer.Option("--samples", help="Of smooth_grad: noisy copies.", min=1)] = 50,
    steps: Annotated[int, typer.Option("--steps", help="Of integrated_gradients.", min=1)] = 50,
    cam_layer: Annotated[
        str | None,
        typer.Option("--cam-layer", help="Of grad_cam: the maps.", show_default="the ReLU before the last pooling"),
    ] = None,
    placed: Annotated[
        str, typer.Option("--placed", help="Of grad_cam: where units lie: their centres, or cv2's.")
    ] = "centres",
    garment: Garment = None,
    preset: Preset = None,
    weights: Weights = None,
    width: Width = 1.0,
    backend: Backend = None,
    seed: Seed = 0,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
) -> None:
    """Which pixels of a picture a class or any unit comes from, by seven methods, drawn over the picture.

    The classes' logits are meant, before the softmax, and gradients with respect to the normalised input; a pixel shows
    the largest of its channels. occlusion has signs: blue speaks against the class.

    Examples:
      alexnet attribute cat.jpg --method grad_cam --out cam.png
      alexnet attribute cat.jpg --method all --target tabby --out all.png
      alexnet attribute --garment 0 -m saliency -m occlusion --out boot.png
      alexnet attribute cat.jpg -m guided_backprop --layer features.8 --at 7,5,9 --out unit.png
    """
    asked = wanted(method or ["grad_cam"])
    form = picture_format(out, ENDINGS)
    if placed not in ("centres", "cv2"):
        raise ArgumentError(f"--placed {placed}: choose one of centres, cv2")
    settings: dict[str, dict[str, Any]] = {
        "occlusion": {"window": window, "stride": stride},
        "smooth_grad": {"samples": samples, "seed": seed},
        "integrated_gradients": {"steps": steps},
        "grad_cam": {"layer": cam_layer, "placed": placed},
    }
    network = network_for(garment, preset, weights, backend, seed, width)
    with chosen(image, garment) as picture_of:
        pixels = read_pixels(picture_of.source, recipe_of(network.model))
    recipe = recipe_of(network.model)
    x = network.place(normalise(pixels, recipe, np.empty(recipe.shape, np.float32)))
    goal, said, value = find_target(network, x, target, layer, at, unit)
    total = sum(make_method(name, settings.get(name, {})).passes(x.shape) for name in asked)
    maps = []
    with show.progress("passes", total) as advance:
        for name in asked:
            given = settings.get(name, {})
            values = to_cpu(attribution(network.model, x, goal, name, tick=advance, **given))
            maps.append(Map(name, values, shown(name, values, make_method(name, given))))
    title = f"{said}  ·  {network.model.preset}, {network.weights}"
    with picture(out, ENDINGS) as (temporary, _):
        if form == "npz":
            with temporary.open("wb") as file:
                np.savez(file, **{one.method: one.values for one in maps}, allow_pickle=False)
        else:
            sheet(pixels, [one.shown for one in maps], title, "the picture").save(temporary, form)
    if as_json:
        found = {one.method: one.to_json() for one in maps}
        about = {"image": image, "target": said, "value": value, "out": str(out), "maps": found}
        show.print_json({"model": network.described(), **about})
        return
    facts = {"AlexNet": str(network), "weights": network.weights, "image": picture_of.name, "of": said}
    console = show.console()
    console.print(show.facts(facts), "", maps_table(maps), "")
    print(f"{out}: {', '.join(asked)}")


def wanted(methods: list[str]) -> list[str]:
    """The methods, each once. Raises ArgumentError naming those that are written almost alike."""
    return list(METHODS) if ALL in methods else list(dict.fromkeys(method_name(name) for name in methods))


def find_target(
    network: Network, x: Any, target: str | None, layer: str | None, at: str | None, unit: int | None
) -> tuple[Any, str, float | None]:
    """What `attribution` takes, the same in words, and a class's probability. Raises ArgumentError."""
    if layer is not None:
        if target is not None:
            raise ArgumentError("give --target, or --layer with --at or --unit, not both")
        index = parse_index(at, unit)
        return (layer, index), place(layer, index), None
    if (at, unit) != (None, None):
        raise ArgumentError("--at and --unit are of a layer: name it with --layer")
    with no_grad():
        probabilities = to_cpu(softmax.forward(network.model(x[None]))[0][0])
    labels = network.labels()
    number = int(probabilities.argmax()) if target is None else class_number(target, labels)
    return number, f"class {number}, {labels[number]}, {probabilities[number]:.1%}", float(probabilities[number])


def class_number(target: str, labels: list[str]) -> int:
    """A class by its number or its name. Raises ArgumentError."""
    if target.lstrip("-").isdigit():
        if not 0 <= int(target) < len(labels):
            raise ArgumentError(f"--target {target}: there are {len(labels)} classes, 0 to {len(labels) - 1}")
        return int(target)
    lower = [label.lower() for label in labels]
    if target.lower() in lower:
        return lower.index(target.lower())
    holding = [label for label in labels if target.lower() in label.lower()]
    near = holding or [labels[lower.index(one)] for one in difflib.get_close_matches(target.lower(), lower, n=3)]
    hint = f": did you mean {', '.join(near[:5])}?" if near else f": give a number, 0 to {len(labels) - 1}"
    raise ArgumentError(f"no class is called {target!r}{hint}")


def maps_table(maps: list[Map]) -> show.Table:
    table = show.table("method", ">least", ">largest", "at row, column", ">zeros", spare=["least", "zeros"])
    for one in maps:
        if not one.values.any():
            table.add_row(one.method, "0", "0", "0 everywhere", "100%")
            continue
        least, most = float(one.values.min()), float(one.values.max())
        where = ", ".join(map(str, one.largest))
        table.add_row(one.method, f"{least:.3g}", f"{most:.3g}", where, f"{(one.values == 0).mean():.0%}")
    return table
