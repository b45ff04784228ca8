"""Few whole numbers that a graph computes from constants: in torch's old exporter, how far a Pad reaches.

Known are the operators with which that exporter turns torch's order of pads round. Whatever else there is, or too much
of it, has no value here.

Source: onnx/onnx, docs/Operators.md; pytorch/pytorch, torch/onnx/symbolic_helper.py, _prepare_onnx_paddings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from math import prod
from typing import Any, Protocol

import numpy as np

from alexnet_np.weights.leaves import Leaf

MOST_NUMBERS = 64  # in an array
MOST_NODES = 60  # for one value
WHOLE = ("int64", "int32")
WHOLE_CODES = (6, 7)  # the same in ONNX


class Graph(Protocol):
    @property
    def makers(self) -> Mapping[str, Any]: ...

    def constant(self, name: str) -> Leaf | None: ...

    def filled(self, shape: Leaf, node: Any) -> Leaf: ...


def folded(graph: Graph, name: str, seen: set[str]) -> np.ndarray | None:
    """The int64 numbers that go by `name`; None where nobody can say. `seen` takes the outputs that were looked at."""
    leaf = graph.constant(name)
    if leaf is not None:
        return _read(leaf)
    node = graph.makers.get(name)
    if node is None or name in seen or len(seen) >= MOST_NODES or node.kind not in (*OPERATORS, "ConstantOfShape"):
        return None
    seen.add(name)
    given = [folded(graph, each, seen) for each in node.inputs]
    if not given or any(each is None for each in given):
        return None
    with suppress(ValueError, IndexError, TypeError, KeyError, OverflowError):  # not as the operator is defined
        if node.kind == "ConstantOfShape":
            shape = given[0]
            assert shape is not None
            return _read(graph.filled(Leaf(shape.shape, "int64", lambda: shape), node))
        found = np.asarray(OPERATORS[node.kind](node.attributes, *given), np.int64)
        return found if found.size <= MOST_NUMBERS else None
    return None


def _read(leaf: Leaf) -> np.ndarray | None:
    is_small = leaf.dtype in WHOLE and prod(leaf.shape) <= MOST_NUMBERS
    return leaf.read().astype(np.int64) if is_small else None


def _cast(attributes: Mapping[str, Any], x: np.ndarray) -> np.ndarray | None:
    return x if attributes.get("to") in WHOLE_CODES else None


def _slice(
    attributes: Mapping[str, Any], x: np.ndarray, start: Any, end: Any, axes: Any = 0, steps: Any = 1
) -> np.ndarray:
    """Along the first axis; from beyond an end is from that end."""
    begin, stop, axis, step = (int(np.reshape(each, ())) for each in (start, end, axes, steps))
    if axis != 0:
        raise ValueError(axis)
    return x[slice(begin, None if stop < -len(x) else stop, step)]


def _reshape(attributes: Mapping[str, Any], x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return x.reshape(shape.tolist())


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda _, a, b: a + b,
    "Cast": _cast,
    "Concat": lambda attributes, *parts: np.concatenate(parts, attributes["axis"]),
    "Gather": lambda attributes, x, at: x.take(at, attributes.get("axis", 0)),
    "Mul": lambda _, a, b: a * b,
    "Reshape": _reshape,
    "Shape": lambda _, x: np.array(x.shape),
    "Slice": _slice,
    "Squeeze": lambda _, x, axes=None: np.squeeze(x, None if axes is None else tuple(axes.tolist())),
    "Sub": lambda _, a, b: a - b,
    "Transpose": lambda attributes, x: x.transpose(attributes.get("perm")),
    "Unsqueeze": lambda _, x, axes: np.expand_dims(x, tuple(axes.tolist())),
}
