"""`alexnet explain`: where one number of a network comes from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from alexnet_np.cli import show
from alexnet_np.cli.options import Backend, Json, MaxPixels, Preset, Seed, Weights, Width
from alexnet_np.cli.pictures import Garment, Image, chosen, network_for
from alexnet_np.errors import ArgumentError
from alexnet_np.study.explain import Explanation
from alexnet_np.study.explain import explain as explain_number
from alexnet_np.study.units import Index


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="See inside")(explain)


def explain(
    image: Image = None,
    layer: Annotated[
        str, typer.Option("--layer", "-l", help="As `alexnet summary` names them, or softmax.", show_default=False)
    ] = "softmax",
    at: Annotated[str | None, typer.Option("--at", help="MAP,ROW,COLUMN, counted from 0.", show_default=False)] = None,
    unit: Annotated[
        int | None, typer.Option("--unit", help="Of a dense layer: its number.", show_default=False)
    ] = None,
    terms: Annotated[int, typer.Option("--terms", help="How many terms to list; 0 for all.", min=0)] = 20,
    garment: Garment = None,
    preset: Preset = None,
    weights: Weights = None,
    width: Width = 1.0,
    backend: Backend = None,
    seed: Seed = 0,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
) -> None:
    """Where one number comes from: every term, what it sees, and the sum done again in float64 beside the stored value.

    Examples:
      alexnet explain --layer features.3 --at 7,5,9
      alexnet explain cat.jpg --layer classifier.6 --unit 281
      alexnet explain --garment 0 --layer softmax --unit 9 --json
    """
    index = parse_index(at, unit)
    network = network_for(garment, preset, weights, backend, seed, width)
    with chosen(image, garment) as picture:
        x = network.place(network.prepare(picture.source))
    found = explain_number(network.model, x, layer, index)
    if as_json:
        show.print_json({"model": network.described(), "image": image, **to_json(found, terms or len(found.terms))})
        return
    console = show.console()
    said = {"AlexNet": str(network), "weights": network.weights, "image": picture.name}
    size = show.shape(x.shape[1:])
    console.print(show.facts(said | headline(found, network.labels(), size)), "")
    console.print(terms_table(found, terms or len(found.terms)), "", show.facts(verdict(found)))


def parse_index(at: str | None, unit: int | None) -> Index:
    """Raises ArgumentError unless exactly one of the two is given, and `at` is numbers."""
    if (at is None) == (unit is None):
        raise ArgumentError("say which number: --at MAP,ROW,COLUMN of a layer of maps, or --unit N of a dense layer")
    if at is None:
        assert unit is not None
        return (unit,)
    try:
        return tuple(int(number) for number in at.split(","))
    except ValueError:
        raise ArgumentError(f"--at takes MAP,ROW,COLUMN, as in 7,5,9; got {at!r}") from None


def to_json(found: Explanation, most: int) -> dict[str, Any]:
    listed = {"terms": [term._asdict() for term in found.terms[:most]], "other_terms": len(found.terms[most:])}
    others = {"sum_of_other_terms": sum(term.value for term in found.terms[most:])}
    computed = {"difference": found.difference, "rounding": found.rounding}
    return asdict(found) | listed | others | computed | {"receptive_field": found.receptive_field._asdict()}


def place(layer: str, index: Index) -> str:
    return f"{layer}[{','.join(map(str, index))}]"


def headline(found: Explanation, labels: list[str], size: str) -> dict[str, str]:
    """Which number it is, how it is made, and which part of the input of that `size` it can see."""
    label = f" · {labels[found.index[0]]}" if found.layer == "softmax" else ""
    top, bottom, left, right = found.receptive_field
    height, width = found.receptive_field.size
    sees = f"rows {top}–{bottom - 1}, columns {left}–{right - 1} of the {size} input: {height}×{width} pixels"
    return {
        "number": f"{place(found.layer, found.index)} · {found.type}{label}",
        "formula": found.formula,
        "sees": sees,
    }


def terms_table(found: Explanation, most: int) -> show.Table:
    """The largest terms, the sum of the others, the bias."""
    weighted = bool(found.terms) and found.terms[0].weight is not None
    value = VALUES.get(found.type, "product" if weighted else "")
    heads = [f"of {found.source}", ">x", *([">weight"] if weighted else []), *([f">{value}", ""] if value else [""])]
    table = show.table(*heads, spare=[""] if found.winner is None else [])
    largest = max([abs(term.value) for term in found.terms] + [abs(found.bias or 0.0)], default=0.0) or 1.0

    def row(name: str, *numbers: float | None, size: float | None = None, note: str = "") -> None:
        cells = ["" if number is None else f"{number:.7g}" for number in numbers]
        cells += [""] * (len(heads) - 2 - len(cells))
        bar = show.bar(abs(size) / largest, 20) if size is not None else Text(note)
        table.add_row(name, *cells, bar)

    for term in found.terms[:most]:
        numbers = [term.x, *([term.weight] if weighted else []), *([term.value] if value else [])]
        if found.winner is None:
            row(place("", term.at), *numbers, size=term.value)
        else:
            row(place("", term.at), *numbers, note="the largest" if term.at == found.winner else "")
    blank = [None] * (1 + weighted)
    if others := found.terms[most:]:
        row(f"{len(others):,} others", *blank, *([sum(term.value for term in others)] if value else []))
    if found.bias is not None:
        row("bias", *blank, found.bias, size=found.bias)
    return table


VALUES = {"LocalResponseNorm": "x²", "Softmax": "exp(x − largest)"}  # what comes of x, where it is no product


def verdict(found: Explanation) -> dict[str, str]:
    """The numbers on the way, and the result beside what the network has."""
    rows = {name: f"{value:.9g}" for name, value in found.steps.items()}
    if found.padding:
        rows["padding"] = f"{found.padding:,} places of the window, which add nothing"
    share = f", {found.difference / found.rounding:.2g} of what float32's rounding may do" if found.rounding else ""
    rows["in float64"] = f"{found.value:.9g}"
    rows["the network has"] = f"{found.stored:.9g}"
    rows["apart"] = "0" if found.difference == 0 else f"{show.short(found.difference)}{share}"
    return rows
