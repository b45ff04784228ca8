"""The network: features -> avgpool -> flatten -> classifier, whatever layers a preset puts into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from alexnet_np.backend import BACKENDS, check_backend
from alexnet_np.description import Description
from alexnet_np.device import Array, as_array, on_gpu, to_cpu, to_gpu
from alexnet_np.errors import ArgumentError, DtypeError, ShapeError, WeightsError
from alexnet_np.initialisation import initialise
from alexnet_np.layers import Conv2d, Dropout, Flatten, Layer, Linear, Shape
from alexnet_np.outline import steps_of
from alexnet_np.sequential import Sequential
from alexnet_np.weights import seal
from alexnet_np.weights.fitting import match
from alexnet_np.weights.steps import Network


class AlexNet(Layer):
    """features -> avgpool -> flatten -> classifier, with torchvision's attribute and parameter names."""

    def __init__(self, preset: str, features: list[Layer], avgpool: Layer, classifier: list[Layer], seed: int) -> None:
        super().__init__()
        self.preset, self.seed = preset, seed
        self.input_size: int | None = None  # the side of the pictures that it was made for
        self.said: Description | None = None  # what it was built as; `described` is what it is
        self.features, self.avgpool = Sequential(features), avgpool
        self.flatten, self.classifier = Flatten(), Sequential(classifier)
        for i, layer in enumerate(leaf for _, leaf in self.leaves()):
            if isinstance(layer, Dropout):
                layer.seed = (seed * 1_000_003 + i) & 0xFFFFFFFF

    def described(self) -> Description:
        """What it is, beside its numbers: what is written into a file of its weights."""
        said = self.said or Description(self.preset, self.num_classes, self.in_channels)
        return said.fitted(self.num_classes, self.in_channels)

    @property
    def in_channels(self) -> int:
        return self._first().weight.shape[1] * self._first().groups

    @property
    def num_classes(self) -> int:
        return self._last().out_features

    @property
    def dtype(self) -> Any:
        return self._first().weight.data.dtype

    def _first(self) -> Conv2d:
        first = self.features[0]
        assert isinstance(first, Conv2d)  # every preset begins with one
        return first

    def _last(self) -> Linear:
        last = self.classifier[-1]
        assert isinstance(last, Linear)  # every preset ends in one
        return last

    def __call__(self, x: Any) -> Array:
        """x (N,C,H,W) -> logits (N, num_classes). Raises ShapeError; where x is too small it names the least size."""
        x = as_array(x, "model: x")
        self.check_input(x)
        return self.hooked_output(x, Sequential(self._parts())(x))

    def backward(self, dlogits: Any, input_grad: bool = True, retain_graph: bool = True) -> Array | None:
        """Add every parameter's gradient to its `.grad`; return dx, the gradient of the input.

        With input_grad=False dx is not computed (training does not need it), and None is returned. With
        retain_graph=False what forward kept is dropped on the way, and another backward needs another forward.
        """
        dlogits = as_array(dlogits, "model: dlogits")
        dx = Sequential(self._parts()).backward(dlogits, input_grad, retain_graph)
        return self.hooked_gradient(dx, dlogits)

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
        metadata = seal.pack({"network": self.described().to_json()})
        title = f"AlexNet, {self.preset}"
        return Network(title, steps_of(self.leaves()), arrays, (self.in_channels, side, side), metadata)

    def _parts(self) -> list[Layer]:
        return [self.features, self.avgpool, self.flatten, self.classifier]

    def check_input(self, x: Array) -> None:
        """Raises ShapeError unless x is (N,C,H,W), with the network's channels, and large enough."""
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            hint = "; add the batch axis with x[None]" if x.ndim == 3 else ""
            raise ShapeError(f"model: x must be (N,{self.in_channels},H,W), got shape {x.shape}{hint}")
        self.check_size(x.shape)

    def check_size(self, shape: Shape) -> None:
        """Raises ShapeError where images of `shape` (N,C,H,W) are too small, naming the smallest input."""
        try:
            self.features.output_shape(shape)
        except ShapeError:
            least = self.smallest_input()
            size = f"{shape[2]}x{shape[3]}"
            raise ShapeError(
                f"model: {size} is too small for {self.preset!r}: the smallest input is {least}x{least}"
            ) from None

    def smallest_input(self) -> int:
        """The smallest side of a square image that leaves every layer something to work on (63 for torchvision's)."""
        size = 1
        while True:
            try:
                self.features.output_shape((1, self.in_channels, size, size))
                return size
            except ShapeError:
                size += 1

    def output_shape(self, shape: Shape) -> Shape:
        return Sequential(self._parts()).output_shape(shape)

    def macs(self, shape: Shape) -> int:
        return Sequential(self._parts()).macs(shape)

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        dot = f"{prefix}." if prefix else ""
        yield from self.features.leaves(f"{dot}features")
        yield f"{dot}avgpool", self.avgpool
        yield f"{dot}flatten", self.flatten
        yield from self.classifier.leaves(f"{dot}classifier")

    def _layers(self) -> Iterable[Layer]:
        return [self, self.features, self.classifier, *(layer for _, layer in self.leaves())]

    def train(self, mode: bool = True) -> AlexNet:
        """Switch dropout on (and nothing else: there is nothing else)."""
        for layer in self._layers():
            layer.training = mode
        return self

    def eval(self) -> AlexNet:
        return self.train(False)

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    def freeze(self, prefix: str) -> AlexNet:
        """requires_grad = False for every parameter whose name starts with `prefix`, e.g. "features"."""
        frozen = [p for name, p in self.named_parameters() if name.startswith(prefix)]
        if not frozen:
            raise ArgumentError(f"freeze: no parameter is named {prefix!r}...; names are like 'features.0.weight'")
        for parameter in frozen:
            parameter.requires_grad = False
        return self

    def replace_head(self, num_classes: int, seed: int | None = None) -> AlexNet:
        """A fresh last layer of `num_classes` outputs, for fine-tuning; everything else stays."""
        if num_classes < 1:
            raise ArgumentError(f"replace_head: num_classes must be positive, got {num_classes}")
        head = Linear(self._last().in_features, num_classes)
        initialise(head.named_parameters(), self.seed + 1 if seed is None else seed)
        dtype, backend = self.dtype, self.backend
        self.classifier.layers[-1] = head
        head.training = self.training
        self.astype(dtype)
        return self if backend is None else self.to(backend)

    def state_dict(self) -> dict[str, Array]:
        """name -> array, in torchvision's order. The arrays are the network's own, not copies."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def load_state_dict(self, mapping: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copy arrays into the parameters of the same names, in place; returns (missing, unexpected) names.

        With strict, both must be empty. Raises WeightsError listing what is missing, unexpected or of a wrong shape.
        """
        parameters = dict(self.named_parameters())
        missing, unexpected = match(mapping, {name: p.shape for name, p in parameters.items()}, strict)
        for name, parameter in parameters.items():
            if name not in missing:
                array, data = to_cpu(as_array(mapping[name], name)), parameter.data
                if on_gpu(data):
                    parameter.data = to_gpu(np.array(array, dtype=data.dtype, order="C"))
                else:
                    np.copyto(data, array, casting="unsafe")
        return missing, unexpected

    def astype(self, dtype: Any) -> AlexNet:
        """Convert the parameters to "float32" or "float64", in place; gradients are dropped."""
        try:
            wanted = np.dtype(dtype)
        except TypeError:
            wanted = None
        if wanted not in (np.float32, np.float64):
            raise DtypeError(f"model: dtype must be 'float32' or 'float64', got {dtype!r}")
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
        for layer in self._layers():
            layer.backend = backend
        return self

    def __repr__(self) -> str:
        parts = [("features", self.features), ("avgpool", self.avgpool), ("classifier", self.classifier)]
        lines = [f"  ({name}): " + repr(part).replace("\n", "\n  ") for name, part in parts]
        return "\n".join([f"AlexNet({self.preset!r},", *lines, ")"])
