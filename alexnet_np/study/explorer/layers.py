"""What the page knows of every layer: its numbers, what each output looks at, and which arrays it keeps.

Outputs of layers that the page can do again exactly (ReLU, max pooling, what only passes values on) are not kept. Of a
dense layer's weights it keeps, for every unit, those of the LARGEST products, the sum of all others, and the complete
rows of the units that a reader asks about first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet_np import ops
from alexnet_np.device import Array, to_cpu
from alexnet_np.errors import AlexNetError
from alexnet_np.models import AlexNet
from alexnet_np.ops import sigmoid, tanh
from alexnet_np.study.explain import divisors_of
from alexnet_np.study.explorer.tensors import Tensors
from alexnet_np.study.receptive_field import Fields, receptive_fields
from alexnet_np.study.units import Place, places, windows

LARGEST = 20
ROWS = 64  # of a dense layer at a time: their float64 products stay in the cache
BLOCK = 32
TOP, STRONGEST = 5, 8  # complete rows: of the most probable classes, of the strongest units of a hidden layer

# op: (what the page calls it, the short name before its number, whether its output is kept)
KINDS: dict[Any, tuple[str, str, bool]] = {
    ops.conv2d: ("conv", "conv", True),
    ops.linear: ("dense", "fc", True),
    ops.max_pool2d: ("max", "pool", False),
    ops.avg_pool2d: ("avg", "pool", True),
    ops.adaptive_avg_pool2d: ("avg", "avgpool", True),
    ops.local_response_norm: ("lrn", "norm", True),
    ops.relu: ("relu", "relu", False),
    tanh: ("tanh", "tanh", True),
    sigmoid: ("sigmoid", "sigm", True),
    ops.dropout: ("dropout", "drop", False),
    ops.flatten: ("flatten", "flatten", False),
    ops.softmax: ("softmax", "softmax", True),
    None: ("same", "same", False),
}


def describe_layers(
    model: AlexNet, values: dict[str, Array], seconds: dict[str, float], tensors: Tensors
) -> list[dict[str, Any]]:
    """One record for the input, each layer and the softmax, in the order they run. `values`: see units.activations."""
    x = to_cpu(values["input"])
    every = places(model, x.shape)
    fields = receptive_fields(model, x.shape[1:])
    layers = [picture(x)]
    logits = every["softmax"].source
    labels = short_names([place.layer.op for place in every.values()])
    for place, label in zip(every.values(), labels, strict=True):
        if place.layer.op not in KINDS:
            raise AlexNetError(f"explore: {place.name} is a {type(place.layer).__name__}, which the page cannot show")
        kind, _, kept = KINDS[place.layer.op]
        x, y = to_cpu(values[place.source]), to_cpu(values[place.name])
        whole = TOP if place.name == logits else STRONGEST
        record = {
            "name": place.name,
            "type": type(place.layer).__name__,
            "kind": kind,
            "label": label,
            "shape": place.shape,
            "parameters": sum(p.data.size for p in place.layer.parameters()),
            "macs": place.layer.macs((1, *place.input_shape)),
            "seconds": seconds.get(place.name),
            "field": spans(fields[place.name]),
            "values": tensors.add(y) if kept and not same(place) else None,
            "same": same(place),
        }
        layers.append(record | statistics(y) | particulars(place, x, y, whole, tensors))
    return layers


def picture(x: np.ndarray) -> dict[str, Any]:
    """The record of the input, whose every pixel sees itself."""
    rows, columns = ([(i, i + 1) for i in range(side)] for side in x.shape[1:])
    names = {"name": "input", "type": "Input", "kind": "input", "label": "input", "seconds": None, "values": None}
    counts = {"shape": x.shape, "parameters": 0, "macs": 0, "same": False}
    return names | counts | statistics(x) | {"field": spans(Fields(x.shape, x.shape, rows, columns))}


def same(place: Place) -> bool:
    """Whether the layer only hands on what it is given: dropout in evaluation, flattening, pooling of single pixels."""
    if place.layer.op is ops.adaptive_avg_pool2d:
        return place.shape == place.input_shape
    return place.layer.op in (ops.dropout, ops.flatten, None)


def short_names(kinds: Sequence[Any]) -> list[str]:
    """conv1, relu1, pool1 ... fc6, numbered by the convolution or dense layer that they are or follow."""
    found: list[str] = []
    number = 0
    for op in kinds:
        number += op in (ops.conv2d, ops.linear)
        name = KINDS[op][1] if op in KINDS else "layer"
        if op not in (ops.flatten, ops.softmax, ops.adaptive_avg_pool2d) or name in found:
            name += str(number)
        while name in found:
            name += "b"
        found.append(name)
    return found


def spans(fields: Fields) -> dict[str, Any]:
    return {"maps": fields.maps, "rows": fields.rows, "columns": fields.columns}


def statistics(y: np.ndarray) -> dict[str, Any]:
    """Of the finite values. A dead map is 0 everywhere: nothing in the picture excites it."""
    dead = int((y == 0).all((1, 2)).sum()) if y.ndim == 3 else 0
    return moments(y) | {"zeros": float((y == 0).mean()), "dead": dead}


def moments(y: np.ndarray) -> dict[str, float]:
    finite = y[np.isfinite(y)] if y.size else y
    finite = finite if finite.size else np.zeros(1, y.dtype)
    found = {"mean": finite.mean(dtype=np.float64), "std": finite.std(dtype=np.float64)}
    return {name: float(value) for name, value in (found | {"min": finite.min(), "max": finite.max()}).items()}


def particulars(place: Place, x: np.ndarray, y: np.ndarray, whole: int, tensors: Tensors) -> dict[str, Any]:
    """What the page must know of this kind of layer to do its arithmetic."""
    layer: Any = place.layer
    match layer.op:
        case ops.conv2d:
            filters = to_cpu(layer.weight.data)
            kept = {"weight": tensors.add(filters), "bias": tensors.add(bias_of(layer, len(y)))}
            return (
                windowed(place) | kept | {"kernel": filters.shape, "groups": layer.groups, "filters": moments(filters)}
            )
        case ops.max_pool2d | ops.adaptive_avg_pool2d:
            return windowed(place)
        case ops.avg_pool2d:
            return windowed(place) | {"divisors": divisors_of(place).tolist()}
        case ops.local_response_norm:
            return {"window": ops.local_response_norm.find_geometry(**layer.arguments())._asdict()}
        case ops.linear:
            return dense(layer, x, y, whole, tensors)
        case ops.dropout:
            return {"p": layer.p}
    return {}


def windowed(place: Place) -> dict[str, Any]:
    """For every output row and column the inputs it looks at: [first, how many, how far apart]."""
    rows, columns = ([[r.start, len(r), r.step] for r in side] for side in windows(place.layer, place.input_shape))
    return {"rows": rows, "columns": columns}


def bias_of(layer: Any, outputs: int) -> np.ndarray:
    return np.zeros(outputs, np.float32) if layer.bias is None else to_cpu(layer.bias.data)


def dense(layer: Any, x: np.ndarray, y: np.ndarray, whole: int, tensors: Tensors) -> dict[str, Any]:
    """Of every unit the LARGEST products: where they are, their weights, the sum of the others, and of all sizes.

    And the complete rows of the `whole` units that are strongest.
    """
    weight = to_cpu(layer.weight.data)
    most = min(LARGEST, weight.shape[1])
    at = np.empty((len(weight), most), np.uint16 if len(x) <= 1 << 16 else np.uint32)
    rest, sizes = np.empty(len(weight)), np.empty(len(weight), np.float32)
    for start in range(0, len(weight), ROWS):
        part = slice(start, start + ROWS)
        products = np.multiply(weight[part], x, dtype=np.float64)
        absolute = np.abs(products)
        at[part], sizes[part] = largest_of_each(absolute, most), absolute.sum(1)
        np.put_along_axis(products, at[part].astype(np.intp), 0.0, 1)
        rest[part] = products.sum(1)
    strongest = np.argsort(-y, kind="stable")[:whole]
    return {
        "inputs": len(x),
        "active": int(np.count_nonzero(x)),
        "bias": tensors.add(bias_of(layer, len(y))),
        "largest": {"count": most, "at": tensors.add(at), "weight": tensors.add(np.take_along_axis(weight, at, 1))},
        "rest": tensors.add(rest),
        "sizes": tensors.add(sizes),
        "whole": {"units": strongest.tolist(), "weight": tensors.add(weight[strongest])},
    }


def largest_of_each(sizes: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` largest numbers of every row, none of them negative, the largest first.

    They lie in the `count` blocks whose largest numbers are largest: finding those and sorting what is in them takes a
    tenth of the time of looking for them among all.
    """
    rows, n = sizes.shape
    blocks = -(-n // BLOCK)
    padded = np.full((rows, blocks * BLOCK), -1.0)
    padded[:, :n] = sizes
    best = _top(padded.reshape(rows, blocks, BLOCK).max(2), min(count, blocks))
    places = (best[:, :, None] * BLOCK + np.arange(BLOCK)).reshape(rows, -1)
    among = np.take_along_axis(padded, places, 1)
    found = _top(among, count)
    order = np.argsort(-np.take_along_axis(among, found, 1), axis=1, kind="stable")
    return np.take_along_axis(places, np.take_along_axis(found, order, 1), 1)


def _top(numbers: np.ndarray, count: int) -> np.ndarray:
    return np.argpartition(numbers, -count, axis=1)[:, -count:]
