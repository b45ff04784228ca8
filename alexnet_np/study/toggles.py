"""What can be done otherwise in a network of the 2012 form, on the same weights: one thing at a time.

    toggles(model, net, own)     for each of the nine differences the network that differs in it alone

`own` are the traits that it has already (differences.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.data.recipe import Preprocessing
from alexnet_np.device import Array, array_module, beside
from alexnet_np.layers import Conv2d, Dropout, Layer, Linear, LocalResponseNorm, MaxPool2d, ReLU, Sigmoid, Tanh, no_grad
from alexnet_np.models import AlexNet
from alexnet_np.ops import conv2d
from alexnet_np.weights.layouts import dense

MEAN_OFF = 20.0  # of 255
EDGES = {"none": 0, "implicit": ((0, 3), (0, 3)), "padding 2": 2}
TALKING = (1, 3, 4)  # the convolutions that see one tower alone, of five
LETTERS = {ReLU: "r", Tanh: "r", Sigmoid: "r", LocalResponseNorm: "n", MaxPool2d: "p"}
ORDERS = {  # behind conv 1, behind conv 2
    "ReLU, LRN, pool": ("rnp", "rnp"),
    "pool before LRN": ("rpn", "rpn"),
    "layer 1: LRN, pool, ReLU": ("npr", "rnp"),
    "no LRN": ("rp", "rp"),
}
KRIZHEVSKYS_WITHIN: dict[str, Any] = {
    "size": 5,
    "alpha": 1e-3,
    "beta": 0.75,
    "k": 1.0,
    "convention": "krizhevsky",
    "region": "within",
}
CAFFES_ACROSS: dict[str, Any] = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0, "convention": "caffe"}

Run = Callable[[Array], Array]  # a layer, or what stands in its place


class Net(NamedTuple):
    """A network as a row of layers, and the input that it is given."""

    layers: tuple[Run, ...]
    x: Array

    def logits(self) -> Array:
        y = self.x
        with no_grad():
            for layer in self.layers:
                y = layer.forward(y) if isinstance(layer, Layer) else layer(y)
        return y

    def where(self, kind: type[Layer]) -> list[int]:
        """The places of the layers of a kind."""
        return [i for i, layer in enumerate(self.layers) if isinstance(layer, kind)]

    def convolutions(self) -> dict[int, Conv2d]:
        return {i: layer for i, layer in enumerate(self.layers) if isinstance(layer, Conv2d)}

    def put(self, places: Mapping[int, Run]) -> Net:
        """The same with other layers in some places."""
        return self._replace(layers=tuple(places.get(i, layer) for i, layer in enumerate(self.layers)))


class Toggle(NamedTuple):
    """One thing done otherwise: a net of its own, and the one that it stands beside."""

    number: int  # of the difference, as in TITLES
    words: str
    sets: Mapping[str, Any]  # the traits that it has then; empty where no preset is known by them
    net: Net | None  # None: it needs other shapes
    beside: Net | None = None  # None: the network as it is


def toggles(model: AlexNet, net: Net, own: Mapping[str, Any]) -> Iterator[Toggle]:
    """All that can be done otherwise with this network, in the order of the table."""
    recipe = model.described().preprocessing
    yield from inputs(net, recipe, own)
    yield from edges(net, own)
    yield from pooling(net, own)
    counts = ", ".join(map(str, own["filters"]))
    yield Toggle(4, f"others than {counts}", {}, None)
    yield from towers(net, own)
    yield from orders(net, own)
    yield from constants(net, own)
    yield from reaches(net, own)
    yield from dropouts(model, net)


def inputs(net: Net, recipe: Preprocessing | None, own: Mapping[str, Any]) -> Iterator[Toggle]:
    """Fewer pixels; channels in the other order; a mean that is not the right one."""
    if recipe is None:
        return
    if fits(net, own):
        side = net.x.shape[2] - 3
        yield Toggle(1, f"its middle {side}x{side}", {"size": side}, net._replace(x=cropped(net.x)))
    if recipe.mode in ("RGB", "BGR"):
        other = recipe.mode[::-1]
        yield Toggle(1, f"{other} for {recipe.mode}", {"channels": other}, net._replace(x=net.x[:, ::-1]))
    shift = (MEAN_OFF / recipe.scale / np.array(recipe.std)).reshape(1, -1, 1, 1).astype(net.x.dtype)
    yield Toggle(1, f"mean off by {MEAN_OFF:g} of 255", {}, net._replace(x=net.x + beside(shift, net.x)))


def fits(net: Net, own: Mapping[str, Any]) -> bool:
    """Whether the first convolution pads nothing and uses every pixel, as Caffe's does at 227."""
    conv = next(iter(net.convolutions().values()))
    stride = conv.stride if isinstance(conv.stride, int) else conv.stride[0]
    return own["edge"] == "none" and (net.x.shape[2] - conv.weight.shape[2]) % stride == 0


def edges(net: Net, own: Mapping[str, Any]) -> Iterator[Toggle]:
    """What the first convolution finds outside of the picture; where all fits without, at three pixels less."""
    place, conv = next(iter(net.convolutions().items()))
    x, at = (cropped(net.x), f", at {net.x.shape[2] - 3}") if fits(net, own) else (net.x, "")
    for name, padding in EDGES.items():
        if name != own["edge"]:
            changed = net.put({place: convolution(conv, conv.weight.data, padding=padding)})
            yield Toggle(2, f"{name}{at}", {"edge": name}, changed._replace(x=x))


def pooling(net: Net, own: Mapping[str, Any]) -> Iterator[Toggle]:
    """Ceiling for floor; the last pooling stays as it is, for dense 6 takes its size (ONNX pads there)."""
    pools = [(i, pool) for i, pool in enumerate(net.layers) if isinstance(pool, MaxPool2d)][:-1]
    if not pools:
        return
    words, sets = "floor" if own["ceil"] else "ceiling", {"ceil": not own["ceil"]}
    turned = net.put({i: MaxPool2d(**{**pool.arguments(), "ceil_mode": not own["ceil"]}) for i, pool in pools})
    yield Toggle(3, words, sets, turned)
    if fits(net, own):
        x = cropped(net.x)
        yield Toggle(3, f"{words}, both at {x.shape[2]}", sets, turned._replace(x=x), net._replace(x=x))


def towers(net: Net, own: Mapping[str, Any]) -> Iterator[Toggle]:
    """Grouped convolutions as dense ones with zeros; or, where there are no groups, what looks across left out."""
    convs = net.convolutions()
    if own["groups"] > 1:
        whole = {i: convolution(conv, dense(conv.weight.data, conv.groups), groups=1) for i, conv in convs.items()}
        yield Toggle(5, "one, expanded with zeros", {"groups": 1}, net.put(whole))
        return
    chosen = dict(each for number, each in enumerate(convs.items()) if number in TALKING)
    if any(side % 2 for conv in chosen.values() for side in conv.weight.shape[:2]):
        return
    halves = {i: convolution(conv, halved(conv.weight.data), groups=2) for i, conv in chosen.items()}
    yield Toggle(5, "two, what looks across left out", {"groups": 2}, net.put(halves))


def orders(net: Net, own: Mapping[str, Any]) -> Iterator[Toggle]:
    """Of ReLU, normalisation and pooling behind the first two convolutions."""
    if own["order"] not in ORDERS.values():
        return
    norm = None if across(net) else LocalResponseNorm(**CAFFES_ACROSS)
    for words, order in ORDERS.items():
        if order != own["order"]:
            yield Toggle(
                6, words if norm is None else f"{words}, as Caffe's", {"order": order}, rearranged(net, *order, norm)
            )


def constants(net: Net, own: Mapping[str, Any]) -> Iterator[Toggle]:
    """k, and alpha divided by the window or not."""
    norms = across(net)
    if not norms:
        return
    k, scale = (1.0 if own["k"] == 2 else 2.0), (1e-4 if own["scale"] < 5e-5 else 2e-5)
    alpha = f"{scale:.0e} times the squares".replace("e-0", "e-")
    for words, sets in (
        (f"k {k:g}", {"k": k}),
        (alpha, {"scale": scale}),
        (f"k {k:g}, {alpha}", {"k": k, "scale": scale}),
    ):
        changes = {"k": sets.get("k", own["k"]), "alpha": sets.get("scale", own["scale"]), "convention": "paper"}
        yield Toggle(7, words, sets, net.put({place: other_norm(norm, **changes) for place, norm in norms.items()}))


def reaches(net: Net, own: Mapping[str, Any]) -> Iterator[Toggle]:
    """Whether the window stops at the tower; a further normalisation within each map, behind the second layer's."""
    norms = across(net)
    if not norms:
        return
    groups = 1 if own["reach"] > 1 else 2
    if all(conv.weight.shape[0] % groups == 0 for conv in list(net.convolutions().values())[:2]):
        changed = net.put({place: other_norm(norm, groups=groups) for place, norm in norms.items()})
        yield Toggle(8, "all maps" if groups == 1 else "the tower", {"reach": groups}, changed)
    within = [i for i in net.where(LocalResponseNorm) if i not in norms]
    kept = tuple(layer for i, layer in enumerate(net.layers) if i not in within)
    if within:
        yield Toggle(8, "none within maps", {"within": False}, net._replace(layers=kept))
    else:
        at = max(norms) + 1
        kept = (*kept[:at], LocalResponseNorm(**KRIZHEVSKYS_WITHIN), *kept[at:])
        yield Toggle(8, "within each map too, in layer 2", {"within": True}, net._replace(layers=kept))


def dropouts(model: AlexNet, net: Net) -> Iterator[Toggle]:
    """Weights trained with dropout that scales in testing, run by a program that scales in training."""
    keep, kept = 1.0, dict[int, float]()
    for _, layer in model.leaves():
        if isinstance(layer, Dropout):
            keep *= 1 - layer.p
        elif isinstance(layer, (Conv2d, Linear)):
            kept[id(layer)], keep = keep, 1.0
    changed = {i: scaled(layer, kept[id(layer)]) for i, layer in enumerate(net.layers) if kept.get(id(layer), 1) != 1}
    if changed:
        yield Toggle(9, "weights of the other rule", {}, net.put(changed))


# What they are made of.


def cropped(x: Array) -> Array:
    """The middle of x without three rows and columns: Caffe's 227 as 224, with the same centre as a crop of 256."""
    side = x.shape[2] - 3
    return x[:, :, 2 : 2 + side, 2 : 2 + side]


def convolution(conv: Conv2d, weight: Array, **changes: Any) -> Run:
    """The same convolution with another weight or geometry."""
    settings, bias = {**conv.arguments(), **changes}, None if conv.bias is None else conv.bias.data
    return lambda x: conv2d.forward(x, weight, bias, **settings)[0]


def halved(weight: Array) -> Array:
    """In two groups; what looked from one half to the other is lost."""
    F, C = weight.shape[0] // 2, weight.shape[1] // 2
    return array_module(weight).concatenate([weight[:F, :C], weight[F:, C:]])


def across(net: Net) -> dict[int, LocalResponseNorm]:
    """The normalisations over maps, by their places."""
    norms = {i: norm for i, norm in enumerate(net.layers) if isinstance(norm, LocalResponseNorm)}
    return {i: norm for i, norm in norms.items() if norm.region == "across"}


def other_norm(norm: LocalResponseNorm, **changes: Any) -> LocalResponseNorm:
    return LocalResponseNorm(**{**norm.arguments(), **changes})


def segments(net: Net) -> tuple[Sequence[Run], Sequence[Run]]:
    """What stands behind the first convolution, and behind the second."""
    first, second, third, *_ = net.convolutions()
    return net.layers[first + 1 : second], net.layers[second + 1 : third]


def letter(layer: Run) -> str:
    return LETTERS.get(type(layer), "?")  # type: ignore[call-overload]


def rearranged(net: Net, first: str, second: str, norm: LocalResponseNorm | None = None) -> Net:
    """The layers of both segments in other orders; `norm`: the one to take where there is none."""
    one, two, three, *_ = net.convolutions()
    parts = [ordered(part, order, norm) for part, order in zip(segments(net), (first, second), strict=True)]
    return net._replace(layers=(*net.layers[: one + 1], *parts[0], net.layers[two], *parts[1], *net.layers[three:]))


def ordered(part: Sequence[Run], order: str, norm: LocalResponseNorm | None) -> list[Run]:
    by_letter: dict[str, list[Run]] = {each: [layer for layer in part if letter(layer) == each] for each in "rnp"}
    by_letter["n"] = by_letter["n"] or ([] if norm is None else [norm])
    return [layer for each in order for layer in by_letter[each]]


def scaled(layer: Run, factor: float) -> Run:
    return lambda x: layer(x * x.dtype.type(factor))  # the weight times it, and not the bias
