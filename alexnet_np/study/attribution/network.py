"""The part of a network that attribution goes back through, beside the model and not in it.

Its layers are copies that share the model's weights and hooks, in evaluation and frozen: the model keeps its mode, its
gradients and whatever its own forward left for a backward, and no gradient of a weight is computed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

from alexnet_np import ops
from alexnet_np.device import Array, array_module
from alexnet_np.layers import Layer, Parameter, ReLU, Sequential, no_grad
from alexnet_np.models import AlexNet
from alexnet_np.study.units import Index, Place, Softmax

BATCH = 16  # images at a time, by which memory is bounded: of torchvision's net some 150 MB


class GuidedReLU(ReLU):
    """dx = max(dy * (y > 0), 0): what is passed back is neither of a unit that was off nor negative."""

    def gradients(self, dy: Array, input_grad: bool) -> Array | None:
        return positive(super().gradients(dy, input_grad))


class DeconvReLU(ReLU):
    """dx = max(dy, 0): forward's mask is dropped."""

    def gradients(self, dy: Array, input_grad: bool) -> Array | None:
        return positive(dy)


def positive(x: Array | None) -> Array | None:
    return None if x is None else array_module(x).maximum(x, x.dtype.type(0))


class Unit(NamedTuple):
    """What is attributed: of each image one number of a layer, the last of `net`."""

    net: Sequential
    names: list[str]  # of its layers
    places: dict[str, Place]  # of all of the model's
    indices: list[Index]  # one an image

    def up_to(self, name: str) -> tuple[Sequential, Sequential]:
        """The layers up to and with `name`, and those after it."""
        cut = self.names.index(name) + 1
        return Sequential(self.net.layers[:cut]), Sequential(self.net.layers[cut:])


def frozen(model: AlexNet, last: str, relu: type[ReLU] | None) -> tuple[list[str], Sequential]:
    """The layers up to and with `last`, or all of them and the softmax; `relu` takes the place of every ReLU."""
    leaves = [*model.leaves(), ("softmax", Softmax())]
    names = [name for name, _ in leaves]
    kept = leaves[: names.index(last) + 1]
    return [name for name, _ in kept], Sequential([_copied(layer, relu) for _, layer in kept])


def _copied(layer: Layer, relu: type[ReLU] | None) -> Layer:
    if relu is not None and layer.op is ops.relu:
        made: Layer = relu()
        vars(made).update(vars(layer))
    else:
        made = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, Parameter):
            setattr(made, name, Parameter(value.data, value.fan_in).requires_grad_(False))
    made.training = False
    made.spend()
    return made


def scores(net: Sequential, x: Array, indices: Sequence[Index]) -> Array:
    """The unit's value for each image of x, (N,)."""
    with no_grad():
        y = net(x)
    return array_module(y).stack([y[n, *index] for n, index in enumerate(indices)])


def gradients(net: Sequential, x: Array, indices: Sequence[Index]) -> Array:
    """Of each image's unit by that image, of x's shape: backward of 1 at the unit and 0 elsewhere."""
    y = net(x)
    dy = array_module(y).zeros_like(y)
    for n, index in enumerate(indices):
        dy[n, *index] = 1
    dx = net.backward(dy)
    assert dx is not None
    return dx
