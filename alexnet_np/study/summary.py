"""A network layer by layer: shapes, parameters, multiply-accumulates, what a unit sees; and measured, what it takes."""

from __future__ import annotations

from dataclasses import dataclass

from alexnet_np import arguments
from alexnet_np.errors import ShapeError
from alexnet_np.layers import Shape
from alexnet_np.models import AlexNet, check_model
from alexnet_np.study.memory import Memory, measured
from alexnet_np.study.receptive_field import Sight, sights
from alexnet_np.text import html_table


@dataclass(frozen=True)
class Row:
    name: str  # as in state_dict: "features.0"
    type: str
    output_shape: Shape
    parameters: int
    macs: int  # multiply-accumulates of the whole batch
    sees: Sight | None  # the receptive field of a map's units; None where they do not see alike
    memory: Memory | None  # of the whole batch, where it was measured

    @property
    def sight(self) -> tuple[str, str, str]:
        """Size, stride and start in words: "51", "8", "-18"."""
        if self.sees is None:
            return "all" if self.type == "Linear" else "", "", ""
        size, stride, start = ("x".join(map(str, dict.fromkeys(two))) for two in self.sees)
        return size, stride, start


@dataclass(frozen=True)
class Summary:
    layers: list[Row]
    input_shape: Shape

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.layers)

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.layers)

    @property
    def memory(self) -> Memory | None:
        """Activations and gradients of all layers, and the largest workspace; None where it was not measured."""
        found = [row.memory for row in self.layers if row.memory is not None]
        if not found:
            return None
        activation, gradient, workspace = zip(*found, strict=True)
        return Memory(sum(activation), sum(gradient), max(workspace))

    def table(self) -> list[tuple[str, ...]]:
        """Head, input, every layer, total."""
        head = ("layer", "type", "output shape", "parameters", "MACs", "sees", "stride", "start")
        body = [
            (r.name, r.type, str(r.output_shape), f"{r.parameters:,}", f"{r.macs:,}", *r.sight) for r in self.layers
        ]
        foot = ("total", "", "", f"{self.parameters:,}", f"{self.macs:,}", "", "", "")
        rows = [head, ("input", "", str(self.input_shape), *[""] * 5), *body, foot]
        if self.memory is None:
            return rows
        bytes_of = [Memory._fields, ("", "", ""), *(row.memory or () for row in self.layers), self.memory]
        return [
            (*row, *(f"{cell:,}" if isinstance(cell, int) else cell for cell in more))
            for row, more in zip(rows, bytes_of, strict=True)
        ]

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        head, *rows = self.table()
        return html_table(head, rows, words=3)

    def __str__(self) -> str:
        head, table = self.table()[0], self.table()
        widths = [max(len(row[i]) for row in table) for i in range(len(head))]
        aligned = [
            [cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
            for row in table
        ]
        return "\n".join("  ".join(row) for row in aligned)

    __repr__ = __str__


def summary(model: AlexNet, input_shape: Shape | None = None, memory: bool = False) -> Summary:
    """Every layer of `model` for an input (N,C,H,W), by default one image of its own size. Prints as a table.

    MACs are those of convolutions and dense layers; one MAC is two FLOPs. `sees` is a unit's receptive field were there
    no border: its size, how far those of neighbours are apart, where the first begins, in pixels.
    `memory`: run a training step too, layer by layer on the array operations, and note the bytes of activations,
    gradients and workspace as they are (memory.py). Raises ShapeError for an input too small, ArgumentError.
    """
    check_model("summary", model)
    memory = arguments.flag("summary", "memory", memory)
    side = model.input_size or 224
    shape = (1, model.in_channels, side, side) if input_shape is None else _shape(input_shape)
    if shape[1] == model.in_channels:
        model.check_size(shape)
    rows, given = [], shape
    seen, taken = sights(model, (shape[2], shape[3])), measured(model, shape) if memory else {}
    for name, layer in model.leaves():
        macs, shape = layer.macs(shape), layer.output_shape(shape)
        parameters = sum(p.data.size for p in layer.parameters())
        rows.append(Row(name, type(layer).__name__, shape, parameters, macs, seen[name], taken.get(name)))
    return Summary(rows, given)


def _shape(given: object) -> Shape:
    sides = arguments.items("summary", "input_shape", given, "a shape (N,C,H,W)")
    shape = tuple(arguments.integer("summary", "input_shape", side, 0) for side in sides)
    if len(shape) != 4:
        raise ShapeError(f"summary: input_shape must be (N,C,H,W), got {shape}")
    return shape
