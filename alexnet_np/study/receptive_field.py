"""Which pixels of the picture a unit can see, exactly.

A unit sees what the units in its window see:  field[o] = union over the window's places t of field[t], a place in the
padding seeing nothing. So the windows are clipped at every layer. The closed form (start, size, stride), clipped once
at the picture's edge, is wrong there: with a stride or a pooling between, a window may begin in one layer's padding
where the closed form still counts pixels (for 50 of 275 rows of d2l's net).

All windows are rectangles, so rows and columns are walked separately.
Source: Araujo, Norris, Sim, "Computing receptive fields of convolutional neural networks", Distill (2019), for the
closed form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from alexnet_np import ops
from alexnet_np.arguments import pair
from alexnet_np.layers import Shape
from alexnet_np.models import AlexNet, check_model
from alexnet_np.study.units import Index, Place, check_index, check_layer, places, windows

ROOM = 64  # pixels that a layer's input is made larger by, so that it has two windows at least
Span = tuple[int, int]  # from, up to and without: (0, 0) where nothing is seen


class ReceptiveField(NamedTuple):
    """Half-open, in pixels of the network's input: `x[:, top:bottom, left:right]` is all that the unit can see."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left


class Fields(NamedTuple):
    """What every unit of one layer sees. Its rows and columns have a span each; units are `maps` flattened."""

    shape: Shape  # of the layer's output: (C,H,W), or (units,)
    maps: Shape  # the (C,H,W) by which units are numbered; (units, 1, 1) where each sees all
    rows: list[Span]
    columns: list[Span]

    def of(self, index: Index) -> ReceptiveField:
        if len(index) == 1:
            _, H, W = self.maps
            index = (index[0] // (H * W), index[0] // W % H, index[0] % W)
        return ReceptiveField(*self.rows[index[1]], *self.columns[index[2]])


class Sight(NamedTuple):
    """What the units of a layer of maps see, were there no border, in pixels, for (height, width).

    Unit i of a column sees size[0] rows from start[0] + i*stride[0] on; a start below 0 lies in the padding.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    start: tuple[int, int]


def receptive_field(model: AlexNet, layer: str, index: Any, size: Any) -> ReceptiveField:
    """The rectangle of the picture that unit `index` of `layer` can see.

    `layer`: a name as in `model.leaves()` ("features.3"). `index`: (map, row, column), or the number of a unit. `size`:
    the picture's side, or (height, width), in pixels.
    Raises ArgumentError for a layer that is not there or an index outside; ShapeError for a size that a layer refuses.
    """
    height, width = pair("receptive_field", "size", size, 1)
    fields = receptive_fields(check_model("receptive_field", model), (height, width))
    found = fields[check_layer(layer, list(fields))]
    return found.of(check_index(layer, found.shape, index))


def receptive_fields(model: AlexNet, size: tuple[int, int]) -> dict[str, Fields]:
    """The fields of every layer's units, by the layer's name, for a picture of `size` (height, width)."""
    shape = (model.in_channels, *size)
    seen = Fields(shape, shape, *([(i, i + 1) for i in range(side)] for side in size))
    found = {}
    for name, place in places(model, shape).items():
        found[name] = seen = _through(place, seen)
    return found


def sights(model: AlexNet, size: tuple[int, int]) -> dict[str, Sight | None]:
    """The closed form of every layer's fields, by the layer's name, for a picture of `size` (height, width).

    None of layers of units, and where windows are not all alike, as those of adaptive pooling may not be.
    """
    sight: Sight | None = Sight((1, 1), (1, 1), (0, 0))
    found = {}
    for name, place in places(model, (model.in_channels, *size)).items():
        maps = len(place.input_shape) == 3 and len(place.shape) == 3
        found[name] = sight = _beyond(place, sight) if maps and sight is not None else None
    return found


def unit_centres(every: dict[str, Place], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Where in the picture the units of a layer of maps look: the middle of what each sees, row by row and column by
    column, in pixels; were nothing clipped at the picture's edge. `every`: as `places` gives them.
    """
    first = next(iter(every.values()))
    rows, columns = (np.arange(side, dtype=float) for side in first.input_shape[-2:])
    for place in every.values():
        if len(place.input_shape) == 3 and len(place.shape) == 3:
            vertical, horizontal = windows(place.layer, place.input_shape)
            rows, columns = _middles(vertical, rows), _middles(horizontal, columns)
        if place.name == name:
            break
    return rows, columns


def _middles(taps: list[range], centres: np.ndarray) -> np.ndarray:
    """Halfway between the centres of each window's ends; in the padding centres go on as far apart as inside."""
    ends = np.array([(window[0], window[-1]) for window in taps])
    apart = (centres[-1] - centres[0]) / max(1, len(centres) - 1)
    inside = ends.clip(0, len(centres) - 1)
    return (centres[inside] + (ends - inside) * apart).mean(1)


def _beyond(place: Place, before: Sight) -> Sight | None:
    """What a layer's units see, by what those of the layer before see: r + (k-1)*j, j*s, start - p*j."""
    C, H, W = place.input_shape
    more = 0 if place.layer.op is ops.adaptive_avg_pool2d else ROOM
    alike = [_alike(axis) for axis in windows(place.layer, (C, H + more, W + more))]
    axes = [
        (size + (span - 1) * stride, step * stride, start + first * stride)
        for size, stride, start, (first, step, span) in zip(*before, alike, strict=True)
        if step
    ]
    if len(axes) < 2:
        return None
    (tall, down, top), (wide, across, left) = axes
    return Sight((tall, wide), (down, across), (top, left))


def _alike(taps: list[range]) -> tuple[int, int, int]:
    """Where the first window begins, how far they are apart, and how long they are; (0, 0, 0) if not all alike."""
    spans, starts = {window[-1] - window[0] + 1 for window in taps}, [window[0] for window in taps]
    steps = set(np.diff(starts).tolist())
    return (starts[0], steps.pop(), spans.pop()) if len(spans) == len(steps) == 1 else (0, 0, 0)


def _through(place: Place, seen: Fields) -> Fields:
    """What the units of a layer see, `seen` being what those of the layer before see."""
    if place.layer.op is ops.linear:
        everything = [[_union(spans)] for spans in (seen.rows, seen.columns)]
        return Fields(place.shape, (*place.shape, 1, 1), *everything)
    if len(place.input_shape) == 3 and len(place.shape) == 3:
        rows, columns = windows(place.layer, place.input_shape)
        return Fields(place.shape, place.shape, _joined(rows, seen.rows), _joined(columns, seen.columns))
    return seen._replace(shape=place.shape)  # flattened, or a function of each unit


def _joined(taps: list[range], spans: list[Span]) -> list[Span]:
    return [_union([spans[t] for t in window if 0 <= t < len(spans)]) for window in taps]


def _union(spans: list[Span]) -> Span:
    """The smallest span that holds all of them; the empty ones count for nothing."""
    some = [span for span in spans if span[0] < span[1]]
    return (min(s[0] for s in some), max(s[1] for s in some)) if some else (0, 0)
