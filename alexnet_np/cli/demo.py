"""`alexnet demo`: the main job on what the package carries."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from alexnet_np.cli import demo_garments as garments
from alexnet_np.cli import show
from alexnet_np.cli.images import best, show_guesses
from alexnet_np.cli.options import Backend, Json, Network, Preset, Seed, Weights, load_network
from alexnet_np.cli.study import BLOCK_STARTS, image_or_cat, percent
from alexnet_np.device import to_cpu
from alexnet_np.errors import MissingPackageError
from alexnet_np.files import PAINTED, picture_format
from alexnet_np.ops import softmax
from alexnet_np.presets import published
from alexnet_np.study.timing import LayerTime, time_layers
from alexnet_np.study.torch_net import TorchNet
from alexnet_np.study.verify import relative_error
from alexnet_np.study.walk import Walk, walk


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Start here")(demo)


def demo(
    image: Annotated[
        str | None, typer.Option("--image", help="An image file.", show_default="a cat's photograph")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The picture to write, of the garments: .png, .jpg, .pdf.")
    ] = Path("garments.png"),
    preset: Preset = None,
    weights: Weights = None,
    backend: Backend = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """AlexNet on one photograph: shapes, times, top-5, agreement with torchvision. Then on twenty garments, trained.

    Nothing is downloaded. On the photograph, ImageNet's weights are used if they are on this machine, and random ones
    if not. The garments are told apart by a small copy of d2l's network, trained on Fashion-MNIST, that the package
    carries; a picture shows them with what they were taken for.

    Examples:
      alexnet demo
      alexnet demo --image cat.jpg --backend numba --out shown.png
    """
    picture_format(out, PAINTED)
    network = load_network(preset, weights, backend, seed)
    with image_or_cat(image) as source:
        x = network.place(network.prepare(source)[None])
    walked = walk(network.model, x)
    times = time_layers(network.model, x)
    guesses = best(to_cpu(softmax.forward(walked.logits)[0])[0], network.labels(), 5)
    agreement = compare_with_torch(network, to_cpu(x), to_cpu(walked.logits))
    classified = garments.classify(backend)
    unwritten = garments.draw(classified, out)
    if as_json:
        layers = [asdict(step) | asdict(time) for step, time in zip(walked.steps, times, strict=True)]
        found = {"top": [asdict(guess) for guess in guesses], "layers": layers, "torch": agreement}
        shown = classified.to_json(None if unwritten else out)
        show.print_json({"model": network.described(), "image": image, **found, "garments": shown})
    else:
        console = show.console()
        console.print(show.facts(headline(network, image)), "", layers_table(walked, times), speed(times), "")
        show_guesses("Top 5", guesses)
        console.print("", agreement_in_words(agreement), "", sep="\n")
        console.print(garments.table(classified), "", f"{garments.headline(classified)}.", sep="\n")
        if not unwritten:
            console.print(f"{out} shows them.", soft_wrap=True)
    if unwritten:
        raise unwritten


def headline(network: Network, image: str | None) -> dict[str, str]:
    """What was run on what, and plainly whether the weights are trained."""
    weights = {"weights": network.weights}
    name = published(network.model.preset)
    if network.random:
        weights = {"weights": f"{network.weights}: the labels below mean nothing"}
        if name:
            weights[""] = f"the trained ones: alexnet weights download {name}"
    return {"AlexNet": str(network), **weights, "image": image or "a photograph of a cat, which the package carries"}


def compare_with_torch(network: Network, x: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """How far our logits are from torch's, for the same weights and input; or why that cannot be said."""
    try:
        peer = TorchNet(network.model, str(network.model.dtype))
    except MissingPackageError as error:
        return {"peer": None, "reason": str(error)}
    theirs = peer(x)
    ours_top, their_top = (np.argsort(-array[0], kind="stable")[:5].tolist() for array in (logits, theirs))
    return {"peer": peer.peer, "relative_error": relative_error(logits, theirs), "same_top5": ours_top == their_top}


def agreement_in_words(agreement: dict[str, Any]) -> str:
    if agreement["peer"] is None:
        return f"Not compared with torchvision: {agreement['reason']}"
    top = "the same top 5" if agreement["same_top5"] else "ANOTHER top 5"
    return f"Beside {agreement['peer']}: logits within {show.short(agreement['relative_error'])} (relative), {top}."


def speed(times: list[LayerTime]) -> str:
    total = sum(time.seconds for time in times)
    return f"one image in {1e3 * total:.2f} ms: {1 / total:.1f} images/s"


def layers_table(walked: Walk, times: list[LayerTime]) -> show.Table:
    """What every layer gives, and how long it takes."""
    total = sum(time.seconds for time in times)
    longest = max(time.seconds for time in times)
    heads = "layer", "type", "output", ">zeros", ">ms", "time", ">GFLOP/s"
    table = show.table(*heads, spare=["time", "type", "GFLOP/s", "zeros"])
    table.add_row("input", "", show.shape(walked.input.shape))
    for step, time in zip(walked.steps, times, strict=True):
        if step.type in BLOCK_STARTS:
            table.add_section()
        bar = show.bar(time.seconds / longest, 12)
        rate = f"{time.gflops:.0f}" if time.macs else ""
        shape = show.shape(step.shape)
        table.add_row(step.name, step.type, shape, percent(step.zeros), f"{1e3 * time.seconds:.2f}", bar, rate)
    table.add_section()
    table.add_row("total", "", "", "", f"{1e3 * total:.2f}", style="bold")
    return table
