"""`alexnet lpips`: how far apart pictures look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

from alexnet_np.cli import show
from alexnet_np.cli.images import listed, report, warn_if_random
from alexnet_np.cli.options import Backend, Json, MaxPixels, Seed, Weights, load_network
from alexnet_np.data.loading import images_below
from alexnet_np.data.preprocess import read_image
from alexnet_np.errors import AlexNetError, ArgumentError, ImageError
from alexnet_np.files import picture_format
from alexnet_np.jobs import Failure
from alexnet_np.study.lpips import lpips as distance_of
from alexnet_np.study.lpips_picture import draw_map


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="See inside")(lpips)


def lpips(
    a: Annotated[Path, typer.Argument(metavar="A", help="A picture, or a folder of them.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another of the same size, or a folder with the same names.")],
    spatial: Annotated[
        Path | None,
        typer.Option("--spatial", help="Draw where two differ: .png, .svg, .pdf or .jpg."),
    ] = None,
    weights: Weights = None,
    backend: Backend = None,
    seed: Seed = 0,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
) -> None:
    """How far apart two pictures look: LPIPS, by torchvision's network and the published heads. 0 is the same.

    Pictures are taken as they are, neither resized nor cropped. Of two folders, those of the same name are compared;
    what cannot be is listed at the end, and the exit code is 1.

    Examples:
      alexnet lpips original.png restored.png
      alexnet lpips original.png restored.png --spatial where.png
      alexnet lpips originals/ restored/ --json
    """
    for path in (a, b):
        if not path.exists():
            raise ImageError(f"{path}: no such file or folder")
    if a.is_dir() != b.is_dir():
        raise ArgumentError(f"{a} and {b}: give two pictures or two folders")
    if spatial is not None:
        picture_format(spatial)
        if a.is_dir():
            raise ArgumentError("--spatial draws one pair: give two pictures")
    pairs, failures = pairs_of(a, b) if a.is_dir() else ([(a, b)], [])
    if not a.is_dir():
        check_sizes(a, b)  # said before weights are fetched
    network = load_network("torchvision", weights, backend, seed, trained=True)
    warn_if_random(network)
    found: list[dict[str, Any]] = []
    stopped = show.stoppable(lambda: f"{len(found)} of {len(pairs)} pairs were compared; nothing is kept")
    with stopped, show.progress("pairs", len(pairs)) as advance:
        for first, second in pairs:
            try:
                found.append(compared(first, second, network.model, spatial))
            except AlexNetError as error:
                if not a.is_dir():
                    raise
                failures.append(Failure(str(second), str(error).removeprefix(f"{second}: ")))
            advance(1)
    mean = float(np.mean([pair["distance"] for pair in found])) if found else None
    if as_json:
        written = {"pairs": found, "mean": mean, "failures": listed(failures)}
        show.print_json({"model": network.described(), **written})
    else:
        for pair in found:
            show.say(Text.assemble((f"{pair['distance']:.4f}  ", "cyan"), f"{pair['a']}  {pair['b']}"))
        if a.is_dir() and mean is not None:
            show.say(Text(f"{mean:.4f}  mean of {len(found)} pair{'s' if len(found) > 1 else ''}"))
        if spatial is not None:
            print(spatial)
    report(failures)


def compared(a: Path, b: Path, model: Any, spatial: Path | None) -> dict[str, Any]:
    check_sizes(a, b)
    first, second = pixels(a), pixels(b)
    total, parts = distance_of(first, second, model, per_layer=True)
    if spatial is not None:
        where = distance_of(first, second, model, spatial=True)[0, 0]
        draw_map([read_image(str(path)) for path in (a, b)], where, float(total.item()), spatial)
    return {"a": str(a), "b": str(b), "distance": float(total.item()), "per_layer": [float(p.item()) for p in parts]}


def check_sizes(a: Path, b: Path) -> None:
    """Raises ImageError where they are not of one size."""
    first, second = (read_image(str(path)).size for path in (a, b))
    if first != second:
        (w, h), (width, height) = first, second
        raise ImageError(f"{b}: is {width}x{height}, {a} is {w}x{h}; resize one, both must have the same size")


def pixels(path: Path) -> np.ndarray:
    """(3,H,W) float32 in -1..1."""
    return np.asarray(read_image(str(path)), np.float32).transpose(2, 0, 1) / np.float32(127.5) - 1


def pairs_of(a: Path, b: Path) -> tuple[list[tuple[Path, Path]], list[Failure]]:
    """Pictures with the same path below both folders, and those that only one has."""
    inside = [{str(Path(file).relative_to(folder)) for file in images_below(folder)} for folder in (a, b)]
    both = sorted(inside[0] & inside[1])
    if not both:
        raise ImageError(f"{a} and {b}: no pictures of the same name in both; give two folders that have some")
    alone = [(folder, name) for folder, names in ((a, inside[0]), (b, inside[1])) for name in sorted(names - set(both))]
    return [(a / name, b / name) for name in both], [Failure(str(f / n), f"only in {f}") for f, n in alone]
