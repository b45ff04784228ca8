"""The network: features -> avgpool -> flatten -> classifier, whatever layers a preset puts into them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from alexnet_np import arguments
from alexnet_np.backend import BACKENDS, check_backend
from alexnet_np.description import Description
from alexnet_np.device import Array, as_array, beside, float_dtype, on_gpu, to_cpu, to_gpu
from alexnet_np.errors import ArgumentError, DtypeError, ShapeError, WeightsError
from alexnet_np.layer import Layer, Shape, check_layer
from alexnet_np.layers import Conv2d, Dropout, Flatten, Linear, WeightedLayer
from alexnet_np.outline import steps_of
from alexnet_np.sequential import Sequential
from alexnet_np.towers import Towers
from alexnet_np.weights import seal
from alexnet_np.weights.fitting import match
from alexnet_np.weights.steps import Network

LARGEST = 1024  # the sides of an image that are tried, to find the smallest that will do

PARTS = ("features", "avgpool", "classifier")  # as torchvision's; flatten, which it does in between, stays as it is


class AlexNet(Layer):
    """features -> avgpool -> flatten -> classifier, with torchvision's attribute and parameter names.

    Each part may be replaced by any other layer, `Sequential` or not; Identity() stands for one that is taken out.
    """

    features: Any
    avgpool: Any
    classifier: Any

    def __init__(self, preset: str, features: list[Layer], avgpool: Layer, classifier: list[Layer], seed: int) -> None:
        super().__init__()
        self.preset, self.seed = preset, seed
        self.input_size: int | None = None  # the side of the pictures that it was made for
        self._towers = 1
        self._running: Towers | None = None  # the last forward's, where there are two
        self.said: Description | None = None  # what it was built as; `described` is what it is
        self.features, self.avgpool = Sequential(features), avgpool
        self.flatten, self.classifier = Flatten(), Sequential(classifier)
        for i, layer in enumerate(leaf for _, leaf in self.leaves()):
            if isinstance(layer, Dropout):
                layer.seed = (seed * 1_000_003 + i) & 0xFFFFFFFF

    def __setattr__(self, name: str, value: Any) -> None:
        if name in PARTS:
            for layer in check_layer(f"model.{name}", value).modules():
                layer.backend = layer.backend or self.backend
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in PARTS:
            raise ArgumentError(f"model.{name} cannot be deleted; put layers.Identity() in its place")
        super().__delattr__(name)

    def described(self) -> Description:
        """What it is, beside its numbers: what is written into a file of its weights."""
        said = self.said or Description(self.preset, self.num_classes, self.in_channels)
        return said.fitted(self.num_classes, self.in_channels)

    @property
    def in_channels(self) -> int:
        return self._first().weight.shape[1] * self._first().groups

    @property
    def num_classes(self) -> int:
        """Of the output: the units of the last dense layer. Raises ArgumentError where there is none."""
        return self._last("num_classes").out_features

    @property
    def dtype(self) -> Any:
        return self._first().weight.dtype

    def _weighted(self) -> list[WeightedLayer]:
        return [layer for _, layer in self.leaves() if isinstance(layer, WeightedLayer)]

    def _first(self) -> Conv2d:
        first = next(iter(self._weighted()), None)
        if not isinstance(first, Conv2d):
            raise ArgumentError(
                f"model: its first layer must be a Conv2d, this one's is {arguments.shown(first)}; put one there"
            )
        return first

    def _last(self, what: str) -> Linear:
        last = next(reversed(self._weighted()), None)
        if not isinstance(last, Linear):
            raise ArgumentError(f"model: {what} is of the last dense layer, and this network has none; append a Linear")
        return last

    def forward(self, x: Any) -> Array:
        """x (N,C,H,W) -> logits (N, num_classes). Raises ShapeError; where x is too small it names the least size."""
        x = self.check_input(x)
        if self._towers == 1:
            return Sequential(self._parts()).forward(x)
        self._running = Towers(self._parts())
        return self._running.forward(x)

    def backward(self, dy: Any, input_grad: bool = True, retain_graph: bool = False) -> Array | None:
        """Add every parameter's gradient to its `.grad`; return dx, the gradient of the input, for `dy` of the logits.

        With input_grad=False dx is not computed (training does not need it), and None is returned. What forward kept
        is dropped on the way, as in torch; with retain_graph=True it stays, and backward may be called again.
        """
        dy = as_array(dy, "model: dy")
        running = self._running or Sequential(self._parts())
        return self.hooked_gradient(running.backward(dy, input_grad, retain_graph), dy)

    @property
    def towers(self) -> int:
        """1; or 2, to run a grouped network as two halves that exchange what figure 2 of the paper says (towers.py).

        The weights, their names and what comes out stay the same, to rounding. Plans run the grouped network.
        Setting it raises ArgumentError for a network without two towers.
        """
        return self._towers

    @towers.setter
    def towers(self, towers: int) -> None:
        number = arguments.integer("model", "towers", towers, 1, 2)
        self._running = Towers(self._parts()) if number == 2 else None
        self._towers = number

    @property
    def exchanged_bytes(self) -> int:
        """What crossed between the towers in the last forward, and in the backward after it; 0 without towers."""
        return 0 if self._running is None else self._running.crossed

    def as_network(self, size: int | None = None) -> Network:
        """The network as plain data, in testing, for input of `size` x `size`: what other programs' files are made of.

        By default `size` is what the preset was made for. Raises WeightsError where that is not known, ArgumentError
        for a layer that other programs do not have, ShapeError.
        """
        side = self.input_size if size is None else size
        if side is None:
            raise WeightsError("how large the input is nobody has said: give size=, such as size=224")
        self.output_shape((1, self.in_channels, side, side))
        arrays = {name: to_cpu(parameter.data) for name, parameter in self.named_parameters()}
        metadata = seal.pack({"network": self.described().without_arrays().to_json()})
        title = f"AlexNet, {self.preset}"
        return Network(title, steps_of(self.leaves()), arrays, (self.in_channels, side, side), metadata)

    def _parts(self) -> list[Layer]:
        return [self.features, self.avgpool, self.flatten, self.classifier]

    def check_input(self, x: Any) -> Array:
        """`x` as an array. Raises DtypeError, ShapeError: not (N,C,H,W), or of other channels, or too small."""
        if isinstance(x, list | tuple | str | bytes | os.PathLike) or hasattr(x, "convert"):
            self._refuse_pictures(x)
        x = as_array(x, "model: x")
        C, shape = self.in_channels, x.shape
        if x.dtype == np.uint8:
            raise DtypeError(f"model: x holds bytes, as pictures do; {self._prepared(x.ndim == 3)}")
        if x.ndim in (3, 4) and shape[-1] == C != shape[-3]:
            raise ShapeError(
                f"model: x must be (N,{C},H,W), got shape {shape}, channels last; give it numpy.moveaxis(x, -1, -3)"
                f"{'[None]' if x.ndim == 3 else ''}"
            )
        if x.ndim != 4 or shape[1] != C:
            hint = "; add the batch axis with x[None]" if x.ndim == 3 else ""
            raise ShapeError(f"model: x must be (N,{C},H,W), got shape {shape}{hint}")
        self.check_size(shape)
        return x

    def _refuse_pictures(self, x: Any) -> None:
        """Raises DtypeError for pictures and paths, and for lists of anything, with the call that makes an input."""
        several = isinstance(x, list | tuple)
        first = next(iter(x), None) if several else x
        kind = f"a {type(x).__name__} of {type(first).__name__}" if several else f"of type {type(x).__name__}"
        if isinstance(first, str | bytes | os.PathLike) or hasattr(first, "convert") or _holds_bytes(first):
            raise DtypeError(f"model: x is {kind}, pictures that are not prepared; {self._prepared(not several)}")
        if hasattr(first, "shape"):
            raise DtypeError(f"model: x is {kind}; make one array of them: numpy.stack(x)")

    def _prepared(self, one: bool) -> str:
        """What to call on pictures."""
        model = "" if self.preset == "torchvision" else ", model=model"
        return f"give it anp.preprocess(x{model}){'[None]' if one else ''}"

    def check_size(self, shape: Shape) -> None:
        """Raises ShapeError where an input of `shape` (N,C,H,W) is too small, naming the least size."""
        try:
            Sequential([self.features, self.avgpool]).output_shape(shape)
        except ShapeError:
            least = self.smallest_input()
            if least is None or len(shape) != 4 or min(shape[2:]) >= least:
                raise
            size = f"{shape[2]}x{shape[3]}"
            raise ShapeError(
                f"model: {size} is too small for {self.preset!r}: the smallest input is {least}x{least}"
            ) from None

    def smallest_input(self) -> int | None:
        """The smallest side of a square image that leaves every layer something to work on (63 for torchvision's).

        None where no size will do: the layers do not fit together.
        """
        for size in range(1, LARGEST):
            with suppress(ShapeError):
                self.features.output_shape((1, self.in_channels, size, size))
                return size
        return None

    def output_shape(self, shape: Shape) -> Shape:
        """(N, num_classes) for an input of `shape`. Raises ShapeError; for one too small it names the least."""
        shape = arguments.shape("output_shape", "shape", shape)
        self.check_size(shape)
        return Sequential(self._parts()).output_shape(shape)

    def macs(self, shape: Shape) -> int:
        return Sequential(self._parts()).macs(shape)

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        dot = f"{prefix}." if prefix else ""
        yield from self.features.leaves(f"{dot}features")
        yield f"{dot}avgpool", self.avgpool
        yield f"{dot}flatten", self.flatten
        yield from self.classifier.leaves(f"{dot}classifier")

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        return ((name, getattr(self, name)) for name in PARTS)

    def freeze(self, prefix: str) -> AlexNet:
        """requires_grad = False for every parameter whose name starts with `prefix`, e.g. "features"."""
        prefix = arguments.text("freeze", "prefix", prefix)
        frozen = [p for name, p in self.named_parameters() if name.startswith(prefix)]
        if not frozen:
            raise ArgumentError(
                f"freeze: no parameter is named {arguments.shown(prefix)}...; names are like 'features.0.weight'"
            )
        for parameter in frozen:
            parameter.requires_grad = False
        return self

    def replace_head(self, num_classes: int, seed: int | None = None) -> AlexNet:
        """A fresh last layer of `num_classes` outputs, for fine-tuning; everything else stays."""
        classes = arguments.integer("replace_head", "num_classes", num_classes, 1)
        old = self._last("the head")
        *_, (name, last) = self.leaves()
        if last is not old:
            raise ArgumentError(
                f"replace_head: the last layer, {name}, is {arguments.shown(last)} and no Linear; "
                f"append one: model.classifier.append(layers.Linear({old.out_features}, {classes}))"
            )
        head = Linear(old.in_features, classes, seed=(self.seed + 1) % 2**64 if seed is None else seed)
        for parameter in head.parameters():
            parameter.data = beside(parameter.data.astype(self.dtype, copy=False), old.weight.data)
        head.training, head.backend = self.training, old.backend
        holder = next(layer for layer in self.modules() if any(child is old for child in layer.children()))
        if isinstance(holder, Sequential):
            holder[holder.index(old)] = head
        else:
            self.classifier = head
        return self

    def state_dict(self) -> dict[str, Array]:
        """name -> array, in torchvision's order. The arrays are the network's own, not copies."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def load_state_dict(
        self, mapping: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> tuple[list[str], list[str]]:
        """Copy arrays into the parameters of the same names, in place; returns (missing, unexpected) names.

        With strict, both must be empty. With assign, arrays that are as the parameters' own (dtype, C order, writable)
        take their place and are not copied: the model's from then on, which whoever gave them must leave alone.
        Raises WeightsError listing what is missing, unexpected or of a wrong shape.
        """
        mapping = arguments.mapping("load_state_dict", "the state", mapping, "a mapping name -> array")
        strict = arguments.flag("load_state_dict", "strict", strict)
        assign = arguments.flag("load_state_dict", "assign", assign)
        parameters = dict(self.named_parameters())
        missing, unexpected = match(mapping, {name: p.shape for name, p in parameters.items()}, strict)
        taken: list[Array] = []
        for name, parameter in parameters.items():
            if name not in missing:
                array, data = to_cpu(as_array(mapping[name], name)), parameter.data
                if assign and _may_take(array, data, taken):
                    taken.append(array)
                    parameter.data = array
                elif on_gpu(data):
                    parameter.data = to_gpu(np.array(array, dtype=data.dtype, order="C"))
                else:
                    np.copyto(data, array, casting="unsafe")
        return missing, unexpected

    def astype(self, dtype: Any) -> AlexNet:
        """Convert the parameters to "float32" or "float64", in place; gradients are dropped."""
        wanted = float_dtype("model", dtype)
        for parameter in self.parameters():
            parameter.data = parameter.data.astype(wanted, copy=False)
            parameter.grad = None
        return self

    def to(self, backend: str) -> AlexNet:
        """Run on `backend` from now on, parameters moved to its device (CuPy's current GPU); gradients are dropped.

        Raises BackendError: a backend that cannot be used here, no memory left on the GPU.
        """
        move = to_gpu if BACKENDS[check_backend(backend)] == "gpu" else to_cpu
        placed = [move(parameter.data) for parameter in self.parameters()]  # all of them, or an error before any
        for parameter, data in zip(self.parameters(), placed, strict=True):
            parameter.data, parameter.grad = data, None
        for layer in (*self.modules(), self.flatten):
            layer.backend = backend
        return self

    def __repr__(self) -> str:
        lines = [f"  ({name}): " + repr(part).replace("\n", "\n  ") for name, part in self.named_children()]
        return "\n".join([f"AlexNet({self.preset!r},", *lines, ")"])


def _may_take(array: Array, data: Array, taken: list[Array]) -> bool:
    """Whether an array can be a parameter's own: like `data`, and sharing no memory with another's."""
    alike = array.dtype == data.dtype and array.flags.c_contiguous and array.flags.writeable and not on_gpu(data)
    return alike and not any(np.may_share_memory(array, other) for other in taken)


def _holds_bytes(x: Any) -> bool:
    return str(getattr(x, "dtype", "")).removeprefix("torch.") == "uint8"


def check_model(where: str, model: Any) -> AlexNet:
    """`model` if it is a network. Raises ArgumentError."""
    return arguments.instance(where, "model", model, AlexNet, "a network, as anp.alexnet(...) makes it")
