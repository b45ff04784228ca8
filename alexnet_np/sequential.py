"""Layers one after another, those taken together that a backend computes together (fusion.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import overload

from alexnet_np import fusion
from alexnet_np.device import Array
from alexnet_np.layers import Layer, Shape


class Sequential(Layer):
    """Layers one after another. An index gives a layer, a slice a Sequential of the same layers."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__()
        self.layers = list(layers)

    def __call__(self, x: Array) -> Array:
        y = x
        for unit in fusion.units(self.layers):
            y = unit(y)
        return self.hooked_output(x, y)

    def backward(self, dy: Array, input_grad: bool = True, retain_graph: bool = True) -> Array | None:
        """Backward through every layer; stops where nothing earlier needs a gradient."""
        units = fusion.units(self.layers)
        trainable = [any(p.requires_grad for p in unit.parameters()) for unit in units]
        gradient: Array | None = dy
        for i in reversed(range(len(units))):
            needed = input_grad or any(trainable[:i])
            if not (needed or trainable[i]):
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

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Layer:
        return Sequential(self.layers[index]) if isinstance(index, slice) else self.layers[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        lines = [f"  ({i}): {layer!r}" for i, layer in enumerate(self.layers)]
        return "\n".join(["Sequential(", *lines, ")"])
