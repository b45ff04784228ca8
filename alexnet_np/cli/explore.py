"""`alexnet explore`: a network on a picture as one page, in which every number can be followed down to the pixels."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from alexnet_np.cli import show
from alexnet_np.cli.options import Backend, Json, MaxPixels, Network, Preset, Seed, Weights, Width, load_network
from alexnet_np.cli.pictures import Garment, Image, Picture, chosen, network_for
from alexnet_np.data.loading import SUFFIXES
from alexnet_np.data.preprocess import read_pixels, source_name
from alexnet_np.errors import ArgumentError, DataError, one_line
from alexnet_np.files import replacing
from alexnet_np.identity import recipe_of
from alexnet_np.presets import PRESETS
from alexnet_np.study.attribution import METHODS
from alexnet_np.study.explorer import Subject, render
from alexnet_np.study.explorer.attributions import QUICK, check_methods
from alexnet_np.weights import registry


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="See inside")(explore)


def explore(
    image: Image = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("page.html"),
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    garment: Garment = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            help="A second picture, garment number, preset or weight file, shown beside: maps and differences.",
            show_default=False,
        ),
    ] = None,
    attribution: Annotated[
        list[str] | None,
        typer.Option(
            "--attribution",
            help=f"What may be laid over the picture: {', '.join(METHODS)}; all, or none.",
            show_default=", ".join(QUICK),
        ),
    ] = None,
    preset: Preset = None,
    weights: Weights = None,
    width: Width = 1.0,
    backend: Backend = None,
    seed: Seed = 0,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
) -> None:
    """The network on one picture, as a page: maps, filters, and behind any number its terms, down to the pixels.

    One file, which needs nothing else and asks for nothing: it opens in any browser, offline.

    Examples:
      alexnet explore cat.jpg --out cat.html --open
      alexnet explore --garment 0 --out boot.html
      alexnet explore cat.jpg --compare dog.jpg --out both.html
      alexnet explore cat.jpg --preset torchvision --compare paper --out both.html
    """
    if not out.parent.is_dir():
        raise ArgumentError(f"{out}: there is no folder {out.parent}; create it first")
    methods = check_methods(attribution or QUICK)
    network = network_for(garment, preset, weights, backend, seed, width)
    with chosen(image, garment) as picture:
        subjects = [subject(network, picture, methods)]
        if compare is not None and (beside := another_picture(compare, garment)):
            subjects.append(subject(network, beside, methods))
        elif compare is not None:
            subjects.append(subject(another_network(compare, backend, seed, width), picture, methods))
    written = write(render(subjects), out)
    if as_json:
        shown = [{"model": network.described(), "picture": s.picture, "weights": s.weights} for s in subjects]
        show.print_json({"out": str(out), "bytes": written, "subjects": shown})
    else:
        show.tell(f"{out}: {written / 1e6:.1f} MB; {' beside '.join(s.picture for s in subjects)}")
    if open_it:
        webbrowser.open(out.resolve().as_uri())


def subject(network: Network, picture: Picture, methods: tuple[str, ...] = QUICK) -> Subject:
    recipe = recipe_of(network.model)
    return Subject(
        model=network.model,
        pixels=read_pixels(picture.source, recipe),
        recipe=recipe,
        labels=network.labels(),
        picture=picture.name,
        weights=network.weights,
        random=network.random,
        backend=network.backend,
        attributions=methods,
    )


def another_picture(compare: str, garment: int | None) -> Picture | None:
    """The picture that `compare` names, or None where it names no picture."""
    if garment is not None and compare.isdigit():
        with chosen(None, int(compare)) as beside:
            return beside
    if compare == "-" or Path(compare).suffix.lower() in SUFFIXES:
        return Picture(compare, source_name(compare))
    return None


def another_network(compare: str, backend: str | None, seed: int, width: float) -> Network:
    """The network that `compare` names: a preset, as wide as the first, or weights."""
    if compare in PRESETS:
        return load_network(compare, None, backend, seed, width=width)
    if compare in registry.names() or Path(compare).exists():
        return load_network(None, compare, backend, seed)
    raise ArgumentError(
        f"--compare {compare}: neither a picture ({', '.join(sorted(SUFFIXES))}), nor a preset ({', '.join(PRESETS)}), "
        f"nor a weight file or a published name ({', '.join(registry.names())})"
    )


def write(page: str, out: Path) -> int:
    """The bytes written. Raises DataError."""
    try:
        with replacing(out) as temporary:
            return temporary.write_bytes(page.encode())
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or one_line(error)}") from error
