"""Two networks on one picture, layer by layer: what each layer gives in both, and where they part first.

    compare("bvlc", "caffenet", "cat.jpg")       two presets, the second with the first one's weights
    compare(a, b, x)                             two models, weight files or runs; a picture, or an array for both

Layers are paired by the convolution or dense layer that they stand behind; one that has no counterpart stands alone.
A difference is max |b - a| / max |a|.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import arguments
from alexnet_np.device import Array, beside, to_cpu
from alexnet_np.identity import alexnet, preprocess, recipe_of
from alexnet_np.layers import Conv2d, Dropout, Flatten, Identity, Layer, Linear, WeightedLayer, no_grad
from alexnet_np.models import AlexNet
from alexnet_np.outline import comparable
from alexnet_np.presets import PRESETS
from alexnet_np.study.differences import Effect, change, effects, traits
from alexnet_np.study.walk import Step, describe
from alexnet_np.text import html_table
from alexnet_np.weights.comparing import differences

SILENT = (Dropout, Identity, Flatten)  # which change no number in testing
KINDS = (AlexNet, str, os.PathLike, Mapping, Enum)  # what may be compared
TOLERANCE = 1e-4  # of the largest value: two backends, or a plan, differ by less


@dataclass(frozen=True)
class Pair:
    """A layer of both networks, or one that stands alone."""

    a: Step | None
    b: Step | None
    difference: float | None  # of what they give; None where the shapes differ, or one is missing
    weights: float | None = None  # of their weights and biases; None where there are none, or of other shapes

    @property
    def name(self) -> str:
        return (self.a or self.b).name  # type: ignore[union-attr]  # one of them is there

    @property
    def parts(self) -> bool:
        """Whether what they give is not the same."""
        return self.difference is None or not self.difference <= TOLERANCE


@dataclass(frozen=True)
class Compared:
    """What `compare` found."""

    a: str  # what the networks are, in words
    b: str
    pairs: list[Pair]  # the input first, the logits last
    layers: list[str]  # in what the layers differ, whatever the numbers, in words
    effects: list[Effect]  # of the nine differences those that b has and a has not, each alone in a
    logits: tuple[Array, Array]

    @property
    def parting(self) -> Pair | None:
        """The first place where they part; None where they never do."""
        return next((pair for pair in self.pairs if pair.parts), None)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = [(pair.name, *map(_shape, (pair.a, pair.b)), _number(pair.difference)) for pair in self.pairs]
        where = "nowhere" if self.parting is None else f"at {self.parting.name}"
        caption = f"{self.a} beside {self.b}: they part {where}"
        return html_table(("layer", "a", "b", "difference"), rows, words=3, caption=caption)


class Side(NamedTuple):
    """A network, and what it is in words."""

    model: AlexNet
    title: str


def compare(a: Any, b: Any, x: Any, seed: int = 0) -> Compared:
    """Run both networks in testing on x, and set what their layers give side by side.

    `a`, `b`: a model; a preset's name; or weights of any kind that `alexnet` takes. A preset's name alone stands for
    that network with the other one's weights where they have its shapes, else with random ones, by `seed`.
    `x`: a picture (path, PIL image, bytes), prepared for each network as it takes it; or an array (N,C,H,W) of floats,
    which both are given as it is.
    Raises what `alexnet`, `preprocess` and the models raise.
    """
    seed = arguments.seed("compare", seed)
    for name, what in (("a", a), ("b", b)):
        arguments.instance("compare", name, what, KINDS, "a model, a preset's name or weights")
    return beside_each_other(*sides(a, b, partial(load, seed=seed)), x)


def beside_each_other(a: Side, b: Side, x: Any) -> Compared:
    """The same of two networks."""
    models = a.model, b.model
    inputs = [input_of(model, x) for model in models]
    modes = [model.training for model in models]
    try:
        seen = [outputs(model.eval(), given) for model, given in zip(models, inputs, strict=True)]
    finally:
        for model, training in zip(models, modes, strict=True):
            model.train(training)
    known = traits([layer for _, layer in a.model.leaves()], None)
    return Compared(
        a.title,
        b.title,
        [_input_pair(*inputs), *(paired(*models, seen, *leaves) for leaves in aligned(*models))],
        layer_differences(*models),
        effects(a.model, inputs[0], like=b.model.preset) if known else [],
        (seen[0][""], seen[1][""]),
    )


def sides(a: Any, b: Any, load: Callable[[Any], Side]) -> tuple[Side, Side]:
    """The two networks; a preset's name alone takes the other one's weights where it can."""
    if _is_preset(a) and not _is_preset(b):
        second = load(b)
        return like(a, second, load), second
    first = load(a)
    return first, like(b, first, load) if _is_preset(b) else load(b)


def load(what: Any, seed: int = 0) -> Side:
    """A model, a preset with random weights, or whatever the weights are of."""
    if isinstance(what, AlexNet):
        return Side(what, what.preset)
    if _is_preset(what):
        return Side(alexnet(what, seed=seed), f"{what}, random weights, seed {seed}")
    model = alexnet(None, weights=what)
    return Side(model, f"{model.preset}, {'weights in memory' if isinstance(what, Mapping) else what}")


def _is_preset(what: Any) -> bool:
    return isinstance(what, str) and what in PRESETS


def like(preset: str, side: Side, load: Callable[[Any], Side]) -> Side:
    """A preset with the other one's weights, the first convolution's channels in the preset's own order.

    Where these have other shapes than its own, with those that `load` gives it.
    """
    model, said = side.model, side.model.described()
    made = alexnet(preset, None, said.num_classes, said.in_channels, said.width, dtype=model.dtype, seed=0)
    numbers = [to_cpu(parameter.data) for parameter in model.parameters()]
    if [array.shape for array in numbers] != [parameter.shape for parameter in made.parameters()]:
        return load(preset)
    if is_turned(made, model):
        numbers[0] = numbers[0][:, ::-1]
    for parameter, array in zip(made.parameters(), numbers, strict=True):
        parameter.data[...] = array
    return Side(made if model.backend is None else made.to(model.backend), f"{preset}, the other one's weights")


def is_turned(one: AlexNet, other: AlexNet) -> bool:
    """Whether one takes RGB and the other BGR."""
    recipes = [model.described().preprocessing for model in (one, other)]
    return {recipe.mode for recipe in recipes if recipe is not None} == {"RGB", "BGR"}


def input_of(model: AlexNet, x: Any) -> Array:
    """x as the model takes it: (N,C,H,W), in its dtype and where it is."""
    first = next(model.parameters()).data
    if getattr(x, "ndim", 0) != 4 or np.dtype(x.dtype).kind != "f":
        recipe_of(model)
        prepared = preprocess(x, model=model, dtype=model.dtype)
        x = prepared if prepared.ndim == 4 else prepared[None]
    return model.check_input(beside(x, first))


def outputs(model: AlexNet, x: Array) -> dict[str, Array]:
    """What every layer gives, by its name; under "" the logits."""
    found: dict[str, Array] = {}
    handles = []
    for name, layer in model.leaves():

        def note(layer: Layer, x: Array, y: Array, name: str = name) -> None:
            found[name] = y

        handles.append(layer.register_forward_hook(note))
    try:
        with no_grad():
            found[""] = model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


Named = tuple[str, Layer]


def aligned(a: AlexNet, b: AlexNet) -> Iterator[tuple[Named | None, Named | None]]:
    """The layers in pairs, in the order they run: of one kind, behind the same convolution or dense layer."""
    ours, theirs = ([leaf for leaf in model.leaves() if not isinstance(leaf[1], SILENT)] for model in (a, b))
    matcher = SequenceMatcher(None, _keys(ours), _keys(theirs), autojunk=False)
    for what, i, end, j, stop in matcher.get_opcodes():
        if what == "equal":
            yield from zip(ours[i:end], theirs[j:stop], strict=True)
        else:
            yield from ((leaf, None) for leaf in ours[i:end])
            yield from ((None, leaf) for leaf in theirs[j:stop])


def _keys(leaves: list[Named]) -> list[tuple[int, int, str]]:
    """Of each layer: how many convolutions and dense layers have come, and its kind."""
    convolutions, dense, keys = 0, 0, []
    for _, layer in leaves:
        convolutions += isinstance(layer, Conv2d)
        dense += isinstance(layer, Linear)
        keys.append((convolutions, dense, type(layer).__name__))
    return keys


def paired(a: AlexNet, b: AlexNet, seen: list[dict[str, Array]], one: Named | None, other: Named | None) -> Pair:
    """A row: what the layers give, how far that is apart, and their weights."""
    mine, theirs = (
        None if leaf is None else describe(leaf[0], type(leaf[1]).__name__, found[leaf[0]])
        for leaf, found in zip((one, other), seen, strict=True)
    )
    if one is None or other is None:
        return Pair(mine, theirs, None)
    first = next(layer for _, layer in a.leaves() if isinstance(layer, WeightedLayer))
    weights = _weights(one[1], other[1], one[1] is first and is_turned(a, b))
    return Pair(mine, theirs, apart(to_cpu(seen[0][one[0]]), to_cpu(seen[1][other[0]])), weights)


def _weights(one: Layer, other: Layer, is_turned: bool) -> float | None:
    """How far weights and biases are apart; those of a first convolution for the other order of channels turned."""
    mine, theirs = (
        {name: to_cpu(parameter.data) for name, parameter in layer.named_parameters()} for layer in (one, other)
    )
    if is_turned:
        mine["weight"] = mine["weight"][:, ::-1]
    if not mine or {n: w.shape for n, w in mine.items()} != {n: w.shape for n, w in theirs.items()}:
        return None
    return max(change(mine[name], theirs[name]) for name in mine)


def apart(a: Array, b: Array) -> float | None:
    """How far two arrays are apart; None where they have other shapes."""
    return change(a.astype(np.float64), b.astype(np.float64)) if a.shape == b.shape else None


def _input_pair(a: Array, b: Array) -> Pair:
    return Pair(describe("input", "", a), describe("input", "", b), apart(to_cpu(a), to_cpu(b)))


def layer_differences(a: AlexNet, b: AlexNet) -> list[str]:
    """In what the layers differ, in words, whatever the numbers."""
    kernels = [(KH, KW) for _, layer in a.leaves() if isinstance(layer, Conv2d) for *_, KH, KW in [layer.weight.shape]]
    return fed(a, b) + differences(comparable(a.leaves()), comparable(b.leaves()), kernels, a.input_size)


def fed(a: AlexNet, b: AlexNet) -> list[str]:
    """In what they are fed otherwise."""
    one, other = (model.described().preprocessing for model in (a, b))
    if one is None or other is None or one == other:
        return []
    takes = [f"{recipe.crop}x{recipe.crop} {recipe.mode}" for recipe in (one, other)]
    said = [f"it takes {takes[0]}, not {takes[1]}"] if takes[0] != takes[1] else []
    scales = [f"bytes / {recipe.scale:g} / std ({_row(recipe.std)})" for recipe in (one, other)]
    said += [f"of {scales[0]}, not of {scales[1]}"] if scales[0] != scales[1] else []
    ours = one.mean[::-1] if {one.mode, other.mode} == {"RGB", "BGR"} else one.mean
    if ours != other.mean:
        said.append(f"minus the mean ({_row(one.mean)}), not ({_row(other.mean)})")
    return said


def _row(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _shape(step: Step | None) -> str:
    return "" if step is None else "x".join(map(str, step.shape))


def _number(difference: float | None) -> str:
    return "" if difference is None else f"{difference:.1e}"
