"""One number of a network: which layer, which place in it, and what it looks at in the layer before."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import ops
from alexnet_np.arguments import shown
from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError, ShapeError
from alexnet_np.layers import Layer, Shape, no_grad
from alexnet_np.models import AlexNet

Index = tuple[int, ...]  # (c, i, j) in a layer of maps, (u,) in one of units


class Softmax(Layer):
    """What turns the logits into probabilities: no layer of the networks, but the last number that one asks about."""

    op = ops.softmax


class Place(NamedTuple):
    """A layer in its network. Shapes are of one image: (C,H,W), or (units,)."""

    name: str
    layer: Layer
    source: str  # the layer whose output it takes: "input" for the first
    input_shape: Shape
    shape: Shape


def places(model: AlexNet, shape: Shape) -> dict[str, Place]:
    """Every layer by its name, in the order they run, for one image of `shape` (C,H,W); "softmax" is the last."""
    found: dict[str, Place] = {}
    source, given = "input", (1, *shape)
    for name, layer in [*model.leaves(), ("softmax", Softmax())]:
        made = layer.output_shape(given)
        found[name] = Place(name, layer, source, given[1:], made[1:])
        source, given = name, made
    return found


def check_layer(name: str, names: Sequence[str]) -> str:
    """`name` if it is among `names`. Raises ArgumentError offering those that are written almost alike."""
    if isinstance(name, str) and name in names:
        return name
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5) or list(names)
    raise ArgumentError(f"no layer is called {shown(name)}: did you mean {', '.join(near)}?")


def check_index(layer: str, shape: Shape, index: Any) -> Index:
    """`index` as a tuple of ints that lies inside `shape`. Raises ArgumentError."""
    given = tuple(index) if isinstance(index, tuple | list) else (index,)
    what = "map,row,column" if len(shape) == 3 else "unit"
    size = "x".join(map(str, shape))
    try:
        numbers = tuple(operator.index(i) for i in given)
    except TypeError:
        raise ArgumentError(f"{layer}: an index is {what} in whole numbers, got {shown(index)}") from None
    if len(numbers) != len(shape):
        raise ArgumentError(f"{layer} has the shape {size}: an index is {what}, got {len(numbers)} numbers")
    if any(not 0 <= i < n for i, n in zip(numbers, shape, strict=True)):
        raise ArgumentError(f"{layer}: {what} {','.join(map(str, numbers))} is outside its shape {size}")
    return numbers


def windows(layer: Layer, shape: Shape) -> tuple[list[range], list[range]]:
    """For every row, and every column, of the output: the rows, or columns, of the input that it looks at.

    `shape` is the input's (C,H,W). What a range holds below 0 or beyond the input is padding.
    """
    H, W = shape[-2:]
    match layer.op:
        case ops.conv2d:
            x, arguments = np.broadcast_to(np.float32(0), (1, *shape)), layer.arguments()
            conv = ops.conv2d.find_geometry(x, layer.weight.data, None, **arguments)  # type: ignore[attr-defined]
            starts = conv.padding[0], conv.padding[2]
            return _slid(conv.output, conv.kernel, conv.stride, starts, conv.dilation)
        case ops.max_pool2d:
            x = np.broadcast_to(np.float32(0), (1, *shape))
            pool = ops.max_pool2d.find_geometry(x, **layer.arguments())
            return _slid(pool.output, pool.kernel, pool.stride, pool.padding, pool.dilation)
        case ops.avg_pool2d:
            x = np.broadcast_to(np.float32(0), (1, *shape))
            mean = ops.avg_pool2d.find_geometry(x, **layer.arguments())
            return _slid(mean.output, mean.kernel, mean.stride, mean.padding, (1, 1))
        case ops.local_response_norm:
            norm = ops.local_response_norm.find_geometry(**layer.arguments())
            if norm.region == "within":
                size, before = (norm.low + 1 + norm.high,) * 2, (norm.low,) * 2
                return _slid((H, W), size, (1, 1), before, (1, 1))
        case ops.adaptive_avg_pool2d:
            OH, OW = layer.output_shape((1, *shape))[-2:]
            return _shared(H, OH), _shared(W, OW)
    return [range(i, i + 1) for i in range(H)], [range(j, j + 1) for j in range(W)]


Pair = tuple[int, int]


def _slid(output: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> tuple[list[range], list[range]]:
    """The windows of one kernel, a stride apart."""
    rows, columns = (
        [range(o * s - p, o * s - p + k * d, d) for o in range(n)]
        for n, k, s, p, d in zip(output, kernel, stride, padding, dilation, strict=True)
    )
    return rows, columns


def _shared(size: int, output: int) -> list[range]:
    """The windows of adaptive pooling: from floor(o*size/output) up to ceil((o+1)*size/output), exclusive."""
    return [range(o * size // output, -(-(o + 1) * size // output)) for o in range(output)]


def activations(model: AlexNet, x: Array) -> dict[str, Array]:
    """{"input": x, layer: its output, ..., "softmax": the probabilities}, of one image (C,H,W) or (1,C,H,W).

    In evaluation, so dropout does nothing, and every layer by itself; the model's mode stays what it was. The arrays
    lie where the model does, without a batch axis. Raises ShapeError for more than one image, and what the model does.
    """
    one = x[None] if x.ndim == 3 else x
    if one.ndim != 4 or len(one) != 1:
        raise ShapeError(f"one image at a time: (C,H,W) or (1,C,H,W), got shape {x.shape}")
    found: dict[str, Array] = {"input": one[0]}
    handles, training = [], model.training
    for name, layer in model.leaves():

        def keep(layer: Layer, x: Array, y: Array, name: str = name) -> None:
            found[name] = y[0]

        handles.append(layer.register_forward_hook(keep))
    try:
        with no_grad():
            logits = model.eval()(one)
            found["softmax"] = ops.softmax.forward(logits)[0][0]
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return found
