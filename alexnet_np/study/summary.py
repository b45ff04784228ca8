"""A network layer by layer: output shapes, parameters and multiply-accumulates, without running it."""

from __future__ import annotations

from dataclasses import dataclass

from alexnet_np import arguments
from alexnet_np.errors import ShapeError
from alexnet_np.layers import Shape
from alexnet_np.models import AlexNet, check_model
from alexnet_np.text import html_table


@dataclass(frozen=True)
class Row:
    name: str  # as in state_dict: "features.0"
    type: str
    output_shape: Shape
    parameters: int
    macs: int  # multiply-accumulates of the whole batch


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

    def table(self) -> list[tuple[str, ...]]:
        """Head, input, every layer, total."""
        head = ("layer", "type", "output shape", "parameters", "MACs")
        body = [(r.name, r.type, str(r.output_shape), f"{r.parameters:,}", f"{r.macs:,}") for r in self.layers]
        foot = ("total", "", "", f"{self.parameters:,}", f"{self.macs:,}")
        return [head, ("input", "", str(self.input_shape), "", ""), *body, foot]

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


def summary(model: AlexNet, input_shape: Shape | None = None) -> Summary:
    """Every layer of `model` for an input (N,C,H,W), by default one image of its own size. Prints as a table.

    MACs are those of convolutions and dense layers; one MAC is two FLOPs. Raises ShapeError for an input too small.
    """
    check_model("summary", model)
    side = model.input_size or 224
    shape = (1, model.in_channels, side, side) if input_shape is None else _shape(input_shape)
    if shape[1] == model.in_channels:
        model.check_size(shape)
    rows, given = [], shape
    for name, layer in model.leaves():
        macs, shape = layer.macs(shape), layer.output_shape(shape)
        parameters = sum(p.data.size for p in layer.parameters())
        rows.append(Row(name, type(layer).__name__, shape, parameters, macs))
    return Summary(rows, given)


def _shape(given: object) -> Shape:
    sides = arguments.items("summary", "input_shape", given, "a shape (N,C,H,W)")
    shape = tuple(arguments.integer("summary", "input_shape", side, 0) for side in sides)
    if len(shape) != 4:
        raise ShapeError(f"summary: input_shape must be (N,C,H,W), got {shape}")
    return shape
