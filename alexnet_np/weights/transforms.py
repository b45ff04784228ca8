"""A network changed so that it computes the same from other input, or in another form; each exact, or refused.

    turned_channels    BGR for RGB, or the other way: the first convolution's channels reversed
    with_mean_inside   takes raw pixels: the mean goes into the first convolution's bias
    without_groups     grouped convolutions as dense ones, zeros where a group does not look
    from_testing_scale weights that were trained with dropout that scales in testing, as ours does in training
    for_testing_scale  the other way, for such a program

Source: caffe-tensorflow#7, caffe#4014 ("48, not 96": grouped weights); BVLC/caffe, src/caffe/layers/dropout_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.weights.layouts import dense
from alexnet_np.weights.steps import Network, Step, square


def turned_channels(network: Network) -> Network:
    """The same network for input whose channels stand in the other order."""
    name = f"{_first(network).name}.weight"
    return _with(network, {name: network.arrays[name][:, ::-1]})


def with_mean_inside(network: Network, mean: Sequence[float], std: Sequence[float] = (1.0, 1.0, 1.0)) -> Network:
    """The same network for input from which no mean has been subtracted: conv((x - mean) / std) without either.

    W' = W / std, b' = b - sum of W'·mean. Raises WeightsError where the first convolution pads: there the zeros outside
    of the image stand for the mean, and would have to be the mean then.
    """
    first = _first(network)
    if first.settings["padding"] != square(0):
        raise WeightsError(
            f"the mean cannot go into {first.name}: it pads its input by {first.settings['padding']}, and the zeros "
            "outside of the image stand for the mean; subtract it from the pixels"
        )
    weight = network.arrays[f"{first.name}.weight"]
    bias = network.arrays.get(f"{first.name}.bias", np.zeros(len(weight), weight.dtype))
    if len(mean) != weight.shape[1] or len(std) != weight.shape[1]:
        raise WeightsError(f"a mean of {len(mean)} channels does not fit a network of {weight.shape[1]}")
    scaled = weight.astype(np.float64) / np.reshape(std, (1, -1, 1, 1))
    shifted = bias - np.einsum("fchw,c->f", scaled, np.asarray(mean, np.float64))
    changed = {f"{first.name}.weight": scaled.astype(weight.dtype), f"{first.name}.bias": shifted.astype(weight.dtype)}
    return _with(network, changed)


def without_groups(network: Network) -> Network:
    """Every grouped convolution as one that looks at all channels, with zeros for those of other groups."""
    changed: dict[str, Any] = {}
    for each in network.steps:
        groups = each.settings["groups"] if each.kind == "conv" else 1
        if groups > 1:
            changed[f"{each.name}.weight"] = dense(network.arrays[f"{each.name}.weight"], groups)
    steps = [_grouped(each, 1) if each.kind == "conv" else each for each in network.steps]
    return _with(network, changed)._replace(steps=tuple(steps))


def from_testing_scale(network: Network) -> Network:
    """The weights behind a dropout times what it keeps, as they were trained with one that scales in testing."""
    return _with(network, {name: weight * weight.dtype.type(keep) for name, weight, keep in _behind_dropout(network)})


def for_testing_scale(network: Network) -> Network:
    """The weights behind a dropout divided by what it keeps, for a program that multiplies by that in testing."""
    changed = {name: weight / weight.dtype.type(keep) for name, weight, keep in _behind_dropout(network)}
    steps = [_scaled_in_testing(each) if each.kind == "dropout" else each for each in network.steps]
    return _with(network, changed)._replace(steps=tuple(steps))


def _behind_dropout(network: Network) -> Iterator[tuple[str, Any, float]]:
    """(name, weight, what is kept) of every weight that sees what a dropout that scales in training leaves."""
    keep = 1.0
    for each in network.steps:
        if each.kind == "dropout" and each.settings["scaling"] == "training":
            keep *= 1 - each.settings["p"]
        elif each.kind in ("linear", "conv"):
            if keep != 1:
                yield f"{each.name}.weight", network.arrays[f"{each.name}.weight"], keep
            keep = 1.0


def _scaled_in_testing(each: Step) -> Step:
    return each._replace(settings={**each.settings, "scaling": "testing"})


def _first(network: Network) -> Step:
    """The layer that sees the input. Raises WeightsError."""
    first = network.steps[0]
    if first.kind != "conv":
        raise WeightsError(f"the network begins with {first.kind} and not with a convolution")
    return first


def _grouped(each: Step, groups: int) -> Step:
    return each._replace(settings={**each.settings, "groups": groups})


def _with(network: Network, changed: Mapping[str, Any]) -> Network:
    return network._replace(arrays={**network.arrays, **changed})
