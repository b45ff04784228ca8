"""The nine differences between the networks that are called AlexNet, each made alone, on the same weights.

    effects(model, x)        what each would change in the logits: max |logits' - logits| / max |logits|

What a network has already is not made again; what other shapes would need is named without a number. Which networks do
a thing so is read from the presets' layers (`traits`), as what this one does is.

Source: computerhistory/AlexNet-Source-Code, layers/layers-145.cfg; BVLC/caffe, models/bvlc_alexnet and
bvlc_reference_caffenet; onnx/onnx, light_bvlc_alexnet.onnx; torchvision, models/alexnet.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from alexnet_np.backend import use_backend
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.device import Array, beside
from alexnet_np.errors import ArgumentError
from alexnet_np.layers import Conv2d, Dropout, Identity, LocalResponseNorm, MaxPool2d
from alexnet_np.models import AlexNet, check_model
from alexnet_np.ops.local_response_norm import find_geometry
from alexnet_np.presets import PRESETS, check_preset
from alexnet_np.study.toggles import EDGES, Net, Run, Toggle, across, letter, segments, toggles

TITLES = {
    1: "input",
    2: "conv 1's edge",
    3: "pooling counts",
    4: "filters",
    5: "towers",
    6: "order at the normalisations",
    7: "constants of the normalisation",
    8: "reach of the normalisation",
    9: "dropout",
}


@dataclass(frozen=True)
class Effect:
    """What one difference alone changes in the logits, where the largest logit is 1."""

    number: int
    difference: str
    words: str  # what is done otherwise
    networks: tuple[str, ...]  # the presets that do it so
    change: float | None  # None: it needs other shapes
    same_top1: bool | None


def effects(model: AlexNet, x: Any, like: str | None = None) -> list[Effect]:
    """Each of the nine differences alone, in testing, on x (N,C,H,W) as the model takes it.

    `like`: only what this preset does otherwise. Raises ArgumentError for a network that has not five convolutions, and
    what the model raises for a wrong x.
    """
    check_model("effects", model)
    if like is not None:
        check_preset(like)
    own, found = traits([layer for _, layer in model.leaves()], model.described().preprocessing), []
    if not own:
        count = sum(isinstance(layer, Conv2d) for _, layer in model.leaves())
        raise ArgumentError(f"effects: the nine differences are of networks of five convolutions; this has {count}")
    x = beside(model.check_input(x), next(model.parameters()).data)
    net = Net(tuple(layer for _, layer in model.leaves() if not isinstance(layer, (Dropout, Identity))), x)
    known = {name: traits(preset.layers, preset.preprocessing) for name, preset in PRESETS.items()}
    with nullcontext() if model.backend is None else use_backend(model.backend):
        plain = net.logits()
        for toggle in toggles(model, net, own):
            sets = toggle.sets.items()
            networks = tuple(name for name, have in known.items() if toggle.sets and sets <= have.items())
            if like is None or like in networks:
                found.append(_effect(toggle, networks, plain))
    return found


def _effect(toggle: Toggle, networks: tuple[str, ...], plain: Array) -> Effect:
    said = toggle.number, TITLES[toggle.number], toggle.words, networks
    if toggle.net is None:
        return Effect(*said, None, None)
    before, after = plain if toggle.beside is None else toggle.beside.logits(), toggle.net.logits()
    return Effect(*said, change(before, after), bool((before.argmax(1) == after.argmax(1)).all()))


def change(before: Array, after: Array) -> float:
    """max |after - before| / max |before|; 0 where nothing changed."""
    if not before.size:
        return 0.0
    off, largest = float(abs(after - before).max()), float(abs(before).max())
    return off / largest if largest else (0.0 if off == 0 else math.inf)


def traits(layers: Sequence[Run], recipe: Preprocessing | None) -> dict[str, Any]:
    """In what networks of the 2012 form differ; empty for a network of another form."""
    net = Net(tuple(layer for layer in layers if not isinstance(layer, (Dropout, Identity))), None)
    convs, norms = net.convolutions(), list(across(net).values())
    if len(convs) != 5:
        return {}
    first, *_ = convs.values()
    pools = [pool.ceil_mode for pool in net.layers if isinstance(pool, MaxPool2d)]
    norm = norms[0] if norms else None
    return {
        "size": recipe and recipe.crop,
        "channels": recipe and recipe.mode,
        "edge": next((name for name, padding in EDGES.items() if padding == first.padding), None),
        "ceil": pools[0] if pools else None,
        "filters": tuple(conv.weight.shape[0] for conv in convs.values()),
        "groups": max(conv.groups for conv in convs.values()),
        "order": tuple("".join(map(letter, part)).replace("nn", "n") for part in segments(net)),
        "k": norm and norm.k,
        "scale": norm and round(find_geometry(**norm.arguments()).scale, 9),
        "reach": norm and norm.groups,
        "within": any(norm.region == "within" for norm in net.layers if isinstance(norm, LocalResponseNorm)),
    }
