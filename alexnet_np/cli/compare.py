"""`alexnet compare`: two networks on one picture, or one network with each of the nine differences."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from alexnet_np.cli import show
from alexnet_np.cli.options import Backend, Json, Network, Seed, Width, load_network
from alexnet_np.cli.pictures import chosen
from alexnet_np.errors import ArgumentError
from alexnet_np.figures import new_figure
from alexnet_np.files import picture_format
from alexnet_np.presets import PRESETS
from alexnet_np.study.compare import Compared, Pair, Side, beside_each_other, input_of, sides
from alexnet_np.study.compare_picture import draw_compared, draw_effects
from alexnet_np.study.differences import Effect, effects

WHAT = "A preset, a weight file, a run's folder, published weights; or PRESET=FILE"


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="The network, layer by layer")(compare)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=f"{WHAT}, where a file does not say which it is.")],
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="Another; a preset takes A's weights.", show_default=False)
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", "-i", help="The picture.", show_default="a cat's photograph")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Draw it too: .png, .svg, .pdf or .jpg.", show_default=False)
    ] = None,
    width: Width = 1.0,
    backend: Backend = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Two networks on one picture: layer by layer, the first place they part, and what each difference alone does.

    A preset's name alone stands for that network with the other one's weights, where they have its shapes. Without B,
    each of the nine differences between the networks called AlexNet is made alone in A, on the same weights.

    Examples:
      alexnet compare bvlc caffenet
      alexnet compare bvlc_alexnet.caffemodel onnx --image dog.jpg --out parting.png
      alexnet compare runs/one runs/two
      alexnet compare bvlc
    """
    if out is not None:
        picture_format(out)
        new_figure(1, 1)  # if Matplotlib is missing, say so now

    def load(what: str) -> Side:
        network = _network(what, width, backend, seed)
        return Side(network.model, f"{network.model.preset}, weights {network.weights}")

    with chosen(image, None) as seen:
        if b is None:
            side = load(a)
            found = effects(side.model, input_of(side.model, seen.source))
            _show_effects(side, seen.name, found, as_json)
            if out is not None:
                draw_effects(found, side.title, out)
        else:
            compared = beside_each_other(*sides(a, b, load), seen.source)
            _show_compared(compared, seen.name, as_json)
            if out is not None:
                draw_compared(compared, out)
    if out is not None and not as_json:
        print(out)


def _network(what: str, width: float, backend: str | None, seed: int) -> Network:
    """What a name, a file or PRESET=FILE means."""
    preset, is_both, weights = what.partition("=")
    if is_both and preset in PRESETS:
        if not weights:
            raise ArgumentError(f"{what}: name the file, as in {preset}=weights.npz")
        return load_network(preset, weights, backend, seed, width=width)
    if what in PRESETS:
        return load_network(what, None, backend, seed, width=width)
    return load_network(None, what, backend, seed, width=width)


def _show_effects(side: Side, picture: str, found: list[Effect], as_json: bool) -> None:
    if as_json:
        show.print_json({"network": side.title, "effects": [asdict(effect) for effect in found]})
        return
    console = show.console()
    console.print(show.facts({"network": side.title, "picture": picture}), "", effects_table(found), "")
    console.print(LEGEND, style="dim")


LEGEND = "change: of the logits, where the largest is 1; top-1: whether the likeliest class stays."


def effects_table(found: list[Effect]) -> show.Table:
    folds = ["difference", "done otherwise", "as in"]
    table = show.table("", "difference", "done otherwise", "as in", ">change", "top-1", spare=["top-1"], folds=folds)
    number = 0
    for effect in found:
        if effect.number != number:
            table.add_section()
        title = "" if effect.number == number else effect.difference
        change = "other shapes" if effect.change is None else _number(effect.change)
        stays = "" if effect.same_top1 is None else show.verdict(effect.same_top1)
        first = "" if effect.number == number else str(effect.number)
        table.add_row(first, title, effect.words, ", ".join(effect.networks), change, stays)
        number = effect.number
    return table


def _show_compared(compared: Compared, picture: str, as_json: bool) -> None:
    parting = compared.parting
    if as_json:
        layers = [asdict(pair) | {"name": pair.name, "parts": pair.parts} for pair in compared.pairs]
        said: dict[str, Any] = {"a": compared.a, "b": compared.b, "parting": parting and parting.name}
        found = [asdict(effect) for effect in compared.effects]
        show.print_json({**said, "layers": layers, "differences": compared.layers, "effects": found})
        return
    console = show.console()
    facts = {"A": compared.a, "B": compared.b, "picture": picture}
    console.print(show.facts(facts), "", pairs_table(compared), "")
    console.print(_parting(parting))
    for words in compared.layers:
        console.print(f"A beside B: {words}.")
    if compared.effects:
        console.print("", effects_table(compared.effects), "")
        console.print(f"What B does otherwise, each alone in A. {LEGEND}", style="dim")


def _parting(pair: Pair | None) -> str:
    if pair is None:
        return "They never part."
    if pair.a is None or pair.b is None:
        return f"They part at {pair.name}: {'B' if pair.a is None else 'A'} alone has it."
    if pair.difference is None:
        return f"They part at {pair.name}: {show.shape(pair.a.shape)} and {show.shape(pair.b.shape)}."
    return f"They part at {pair.name}: {_number(pair.difference)} of the largest value."


KINDS = {"Conv2d": "conv", "LocalResponseNorm": "norm", "MaxPool2d": "pool", "Linear": "dense"}
KINDS |= {"AdaptiveAvgPool2d": "mean", "AvgPool2d": "mean", "Sigmoid": "sigm."}


def pairs_table(compared: Compared) -> show.Table:
    """Layer by layer; the first place where they part is bold."""
    heads = "layer", "", "A", "B", ">mean, A and B", ">std, A and B", ">weights", ">differ"
    table = show.table(*heads, spare=["mean, A and B", "weights", "std, A and B"], folds=["layer"])
    for pair in compared.pairs:
        steps = [step for step in (pair.a, pair.b) if step is not None]
        if steps[0].type in ("Conv2d", "Linear", "AdaptiveAvgPool2d"):
            table.add_section()
        shapes = ["-" if step is None else show.shape(step.shape) for step in (pair.a, pair.b)]
        means, spreads = ([getattr(step, name) for step in steps] for name in ("mean", "std"))
        weights = "" if pair.weights is None else _number(pair.weights)
        style = "bold" if pair is compared.parting else ""
        cells = _beside(pair, means), _beside(pair, spreads), weights, _apart(pair)
        table.add_row(pair.name, KINDS.get(steps[0].type, steps[0].type), *shapes, *cells, style=style)
    return table


def _beside(pair: Pair, numbers: list[float]) -> str:
    """A's and B's in columns of their own."""
    cells = [f"{number:.4g}" for number in numbers]
    cells = ["-", *cells] if pair.a is None else [*cells, "-"] if pair.b is None else cells
    return f"{cells[0]:>9} {cells[1]:>9}"


def _apart(pair: Pair) -> str:
    if pair.difference is not None:
        return _number(pair.difference)
    return "shapes" if pair.a is not None and pair.b is not None else "alone"


def _number(difference: float) -> str:
    """Small ones by their order, others by their digits."""
    if difference == 0:
        return "0"
    return f"{difference:.3f}" if difference >= 1e-3 else show.short(difference)
