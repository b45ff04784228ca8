"""One walk over a network's layers for every plan: where each stands, what goes in and out, what becomes part of what.

A layer that changes nothing (dropout in inference, average pooling to the size that is there) has no place of its own.
A ReLU right after a convolution or dense layer is part of it, unless somebody wants what lies between.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from alexnet_np import arguments, layers
from alexnet_np.errors import ArgumentError
from alexnet_np.models import AlexNet

LOGITS = "logits"

Shape = tuple[int, ...]


class Place(NamedTuple):
    """A layer in its network. Shapes are of one image."""

    name: str
    layer: layers.Layer
    relu: bool  # whether the ReLU after it is part of it
    entering: Shape
    leaving: Shape
    wanted: tuple[str, ...] = ()  # outputs, as the caller calls them, that are what leaves here


def walk(
    model: AlexNet, size: tuple[int, int], outputs: Iterable[str] | None = None, training: bool = False
) -> list[Place]:
    """The places for images of `size`, from the input to the last of `outputs` (by default the logits).

    Raises ArgumentError for a layer that no plan can place, ShapeError where a layer's input does not fit it.
    """
    asked = named_outputs(model, outputs)
    shape: Shape = (model.in_channels, *size)
    places = [Place("input", layers.Identity(), False, shape, shape)]
    for name, layer in model.leaves():
        entering, shape = shape, shape_after(name, layer, shape)
        wanted = tuple(output for output, leaf in asked.items() if leaf == name)
        last = places[-1]
        fused = type(layer) is layers.ReLU and isinstance(last.layer, layers.WeightedLayer)
        fused = fused and not last.relu and not last.wanted
        if fused or changes_nothing(layer, entering, shape, training):
            places[-1] = last._replace(relu=last.relu or fused, wanted=last.wanted + wanted)
        else:
            places.append(Place(name, layer, False, entering, shape, wanted))
        for output in wanted:
            del asked[output]
        if not asked:
            break
    return places


def named_outputs(model: AlexNet, outputs: Iterable[str] | None) -> dict[str, str]:
    """What the caller calls an output -> the layer that it leaves. Raises ArgumentError for a name of none.

    "logits" leave the last layer, and a part such as "features" is its last layer.
    """
    leaves = [name for name, _ in model.leaves()]
    asked = [LOGITS] if outputs is None else [outputs] if isinstance(outputs, str) else outputs
    asked = arguments.items("compile", "outputs", asked, "names of layers")
    if not asked:
        raise ArgumentError("compile: outputs is empty; leave it out for the logits, or name layers")
    found = {}
    for output in asked:
        arguments.text("compile", "outputs", output)
        inside = [leaf for leaf in leaves if output == LOGITS or leaf == output or leaf.startswith(f"{output}.")]
        if not inside:
            known = ", ".join(leaves)
            raise ArgumentError(
                f"compile: no layer is called {arguments.shown(output)}; outputs are {LOGITS!r} or layers: {known}"
            )
        found[output] = inside[-1]
    return found


def output_shapes(places: Iterable[Place]) -> dict[str, Shape]:
    """Of each output, by the caller's name, the shape for one image."""
    return {output: place.leaving for place in places for output in place.wanted}


def shape_after(name: str, layer: layers.Layer, entering: Shape) -> Shape:
    leaving = layer.output_shape((1, *entering))[1:]
    if isinstance(layer, layers.Linear) and len(entering) > 1:
        raise ArgumentError(f"compile: no plan for {name} ({layer!r}) on images; put Flatten() before it")
    if isinstance(layer, layers.Flatten) and leaving != (math.prod(entering),):
        raise ArgumentError(f"compile: no plan for {name} ({layer!r}): only whole images are flattened")
    return leaving


def changes_nothing(layer: layers.Layer, entering: Shape, leaving: Shape, training: bool) -> bool:
    if isinstance(layer, layers.Dropout):
        return not training or layer.p == 0
    return isinstance(layer, layers.Identity) or (
        isinstance(layer, layers.AdaptiveAvgPool2d | layers.Flatten) and entering == leaving
    )
