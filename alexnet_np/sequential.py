"""Layers one after another, those taken together that a backend computes together (fusion.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence
from contextlib import contextmanager
from typing import Any, overload

from alexnet_np import arguments, fusion
from alexnet_np.device import Array
from alexnet_np.errors import AlexNetError, ArgumentError, OutsideError
from alexnet_np.layer import Layer, Shape, check_layer


class Sequential(Layer, MutableSequence[Layer]):
    """Layers one after another: `Sequential([a, b])`, or `Sequential(a, b)` as torch has it.

    A list of them: an index gives a layer, a slice a Sequential of the same layers; they are replaced, appended,
    inserted and deleted as in a list. A layer that comes in runs on the container's backend, unless it has its own.
    """

    def __init__(self, *layers: Layer | Iterable[Layer]) -> None:
        super().__init__()
        given: Any = layers
        if len(layers) == 1 and not isinstance(layers[0], Layer):
            given = layers[0]
        elif len(layers) == 1 and isinstance(layers[0], Sequential):
            given = list(layers)  # one layer, which happens to hold others
        inside = arguments.items("Sequential", "layers", given, "layers, or a list of them")
        self.layers = [check_layer("Sequential", layer) for layer in inside]

    def forward(self, x: Any) -> Array:
        for unit in fusion.units(self.layers):
            x = unit(x)
        return x

    def backward(self, dy: Array, input_grad: bool = True, retain_graph: bool = False) -> Array | None:
        """Backward through every layer; stops where nothing earlier needs a gradient. See Layer.backward."""
        retain_graph = arguments.flag("backward", "retain_graph", retain_graph)
        input_grad = arguments.flag("backward", "input_grad", input_grad)
        units = fusion.units(self.layers)
        trainable = [any(p.requires_grad for p in unit.parameters()) for unit in units]
        gradient: Array | None = dy
        for i in reversed(range(len(units))):
            needed = input_grad or any(trainable[:i])
            if not (needed or trainable[i]):
                if not retain_graph:
                    for _, leaf in self.leaves():
                        leaf.spend()
                return None
            gradient = units[i].backward(gradient, needed, retain_graph)
        return self.hooked_gradient(gradient, dy)

    def output_shape(self, shape: Shape) -> Shape:
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def macs(self, shape: Shape) -> int:
        total = 0
        for layer in self.layers:
            total, shape = total + layer.macs(shape), layer.output_shape(shape)
        return total

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        for i, layer in enumerate(self.layers):
            yield from layer.leaves(f"{prefix}.{i}" if prefix else str(i))

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        return ((str(i), layer) for i, layer in enumerate(self.layers))

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: Any) -> Layer:
        with self._within(index):
            found = self.layers[index]
        return Sequential(found) if isinstance(found, list) else found

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            taken: Any = [self._taken(layer) for layer in arguments.items("Sequential", "layers", value, "layers")]
        else:
            taken = self._taken(value)
        with self._within(index):
            self.layers[index] = taken

    def __delitem__(self, index: Any) -> None:
        with self._within(index):
            del self.layers[index]

    def insert(self, index: int, value: Layer) -> None:
        with self._within(index):
            self.layers.insert(index, self._taken(value))

    @contextmanager
    def _within(self, index: Any) -> Iterator[None]:
        """Raises ArgumentError for an index that no list takes; outside, one that is an IndexError too."""
        try:
            yield
        except IndexError:
            shown = arguments.shown(index)
            raise OutsideError(f"Sequential: there is no layer {shown}; it holds {len(self.layers)}") from None
        except (TypeError, ValueError) as error:
            if isinstance(error, AlexNetError):
                raise
            raise ArgumentError(
                f"Sequential: an index must be an int or a slice, got {arguments.shown(index)}"
            ) from error

    def _taken(self, layer: Any) -> Layer:
        """A layer that comes in."""
        for inside in check_layer("Sequential", layer).modules():
            inside.backend = inside.backend or self.backend
        return layer

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        lines = [f"  ({i}): " + repr(layer).replace("\n", "\n  ") for i, layer in enumerate(self.layers)]
        return "\n".join(["Sequential(", *lines, ")"])
