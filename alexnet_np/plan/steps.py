"""What the steps of a plan are, whichever device runs them: their names, geometry, and what is said of them.

cpu_steps.py and cuda_steps.py each have a class of the same name for every one here, and the same protocol:

    y = step.forward(x, weights, keep)     lays the step out: given where its input will lie, says where its output
                                           will. Nothing is computed yet. `keep`: there is to be a backward.
    step.backward(dy, needs, parameters)   likewise for training: where dx (if `needs`) and the gradients will lie.

What x, y and weights are is the device's: buffers and packed weights on the CPU, ghosts of a tape on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from alexnet_np import layers, ops
from alexnet_np.errors import ArgumentError
from alexnet_np.plan.layout import Place


class Options(NamedTuple):
    """What a step's choices may depend on beside its place."""

    batch: int  # the most images at a time
    exact: bool = False  # no fast algorithms


class Step:
    """One line of a plan."""

    algorithm = ""

    def __init__(self, place: Place, options: Options) -> None:
        self.place, self.options = place, options
        self.name, self.layer = place.name, place.layer
        self.macs = place.layer.macs((1, *place.entering))  # of one image, as the layer defines them

    def forward(self, x: Any, weights: Any, keep: bool = False) -> Any:
        raise NotImplementedError

    def backward(self, dy: Any, needs: bool, parameters: Any) -> tuple[Any, dict[str, Any]]:
        """dx, if the steps before this one need it, and the gradients of this step's parameters by name."""
        raise NotImplementedError

    def _input(self) -> Any:
        """What an op is asked about its geometry with."""
        return layers.stand_in((1, *self.place.entering))


class Input(Step):
    """Where images come in."""


class Weighted(Step):
    """A convolution or dense layer with its bias and perhaps the ReLU after it."""

    layer: layers.WeightedLayer

    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(place, options)
        self.relu = place.relu

    def say(self, what: str) -> None:
        bias, relu = "" if self.layer.bias is None else " + bias", " + relu" if self.relu else ""
        self.algorithm = what + bias + relu


class Convolution(Weighted):
    layer: layers.Conv2d

    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(place, options)
        arguments = self.layer.arguments()
        self.geometry = ops.conv2d.find_geometry(self._input(), self.layer.weight.data, None, **arguments)


class Dense(Weighted):
    layer: layers.Linear


class Activation(Step):
    """ReLU, where nothing before it takes it in; tanh; the logistic function."""

    KINDS: Mapping[type[layers.Layer], str] = {layers.ReLU: "relu", layers.Tanh: "tanh", layers.Sigmoid: "sigmoid"}

    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(place, options)
        self.algorithm = self.KINDS[type(place.layer)]


class MaxPool(Step):
    layer: layers.MaxPool2d

    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(place, options)
        self.geometry = ops.max_pool2d.find_geometry(self._input(), **self.layer.arguments())
        (KH, KW), (SH, SW) = self.geometry.kernel, self.geometry.stride
        self.algorithm = f"max {KH}x{KW}/{SH}" + (f"x{SW}" if SH != SW else "")


class AvgPool(Step):
    layer: layers.AvgPool2d

    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(place, options)
        self.geometry = ops.avg_pool2d.find_geometry(self._input(), **self.layer.arguments())
        (KH, KW), (SH, SW) = self.geometry.kernel, self.geometry.stride
        self.algorithm = f"average {KH}x{KW}/{SH}" + (f"x{SW}" if SH != SW else "")


class Normalise(Step):
    layer: layers.LocalResponseNorm

    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(place, options)
        self.geometry = ops.local_response_norm.find_geometry(**self.layer.arguments())
        across = "window over channels" + (f", {self.geometry.groups} groups" if self.geometry.groups > 1 else "")
        self.algorithm = across if self.geometry.region == "across" else "window within maps"


class Average(Step):
    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(place, options)
        self.output = (place.leaving[1], place.leaving[2])
        self.algorithm = f"average to {self.output[0]}x{self.output[1]}"


class Dropout(Step):
    """In training only."""

    layer: layers.Dropout

    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(place, options)
        self.algorithm = f"Philox, p = {self.layer.p:g}"


class Flatten(Step):
    """Images (C,H,W) to rows."""

    algorithm = "flatten"


Classes = Mapping[type[layers.Layer], Callable[[Place, Options], Step]]


def make(places: Sequence[Place], options: Options, classes: Classes) -> list[Any]:
    """A step for each place, of a device's `classes`. Raises ArgumentError for a layer that none of them is for."""
    made = []
    for place in places:
        if type(place.layer) not in classes:
            raise ArgumentError(f"compile: no plan for {place.name} ({place.layer!r}); call the model itself")
        made.append(classes[type(place.layer)](place, options))
    return made
