"""LRN that a graph spells out in plain operators: x / (k + alpha·S)**beta, S from the squares over a window.

ONNX has an operator for odd windows over all maps alone. Even windows, towers and windows within a map are written out,
by onnx_write.py, and torch's exporters write out every one. It is known by what it computes, whatever its nodes are
called:

    Div(x, Pow(Add(Mul(S, alpha), k), beta))        S from Mul(x, x) by

    Conv            by ones where a channel sees another: their sum
    AveragePool     n x n within each map, or n x 1 x 1 across the maps as a third axis (torch): their mean

with Pad, Reshape, Squeeze and Unsqueeze around it. The order of factors and summands does not matter. What a window
sees beyond its tower's last map nobody can tell: one that sees all of it reads as one that ends there.
torch's old exporter computes the padding in the graph (onnx_fold.py), and asks in an If whether there is an axis to
squeeze away: both ways lead to the same numbers.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np

from alexnet_np.weights.formats import onnx_fold
from alexnet_np.weights.formats.onnx_fold import folded

SHAPING = ("Reshape", "Squeeze", "Unsqueeze", "Identity")
LONGEST = 12  # nodes from the squares to their sum; torch's exporters take six
MAX_MAPS = 4096  # that a Conv may sum over: what it sees is looked up, number by number
MAX_NORMS = 100


class Node(Protocol):
    @property
    def kind(self) -> str: ...

    @property
    def inputs(self) -> list[str]: ...

    @property
    def outputs(self) -> list[str]: ...

    @property
    def attributes(self) -> dict[str, Any]: ...


class Graph(onnx_fold.Graph, Protocol):
    @property
    def nodes(self) -> list[Any]: ...


class Window(NamedTuple):
    """What S sees, and by what it has been divided."""

    region: str
    low: int
    high: int
    groups: int
    mean: bool


class Norms(NamedTuple):
    settings: dict[str, dict[str, Any]]  # of a step of kind lrn, by the output of the Div that ends it
    inside: set[str]  # outputs of the nodes that it is made of beside that

    @property
    def parts(self) -> set[str]:
        """Of all its nodes."""
        return self.inside | self.settings.keys()


def found(graph: Graph) -> Norms:
    """Every normalisation that the graph spells out."""
    result = Norms({}, set())
    bands: dict[str, Window | None] = {}
    for node in graph.nodes:
        if node.kind == "Div" and len(node.inputs) == 2 and node.outputs and len(result.settings) < MAX_NORMS:
            inside: set[str] = set()
            settings = _norm(graph, node, inside, bands)
            if settings is not None:
                result.settings[node.outputs[0]] = settings
                result.inside.update(inside)
    return result


def _norm(graph: Graph, node: Node, inside: set[str], bands: dict[str, Window | None]) -> dict[str, Any] | None:
    x, reached = node.inputs
    numbers = []
    for kind in ("Pow", "Add", "Mul"):
        step = _with_number(graph, reached, kind)
        if step is None:
            return None
        inside.add(reached)
        reached, number = step
        numbers.append(number)
    window = _window(graph, reached, x, inside, bands)
    if window is None or window.low - window.high not in (-1, 0, 1):
        return None
    beta, k, alpha = numbers
    size = window.low + window.high + 1
    count = size if window.region == "across" else size * size
    constants = {"alpha": alpha if window.mean else alpha * count, "beta": beta, "k": k}
    convention = "torch" if window.low > window.high else "onnx"
    rounded = {name: float(f"{value:.6g}") for name, value in constants.items()}  # float32's, as they were written
    return {"size": size, **rounded, "convention": convention, "region": window.region, "groups": window.groups}


def _with_number(graph: Graph, name: str, kind: str) -> tuple[str, float] | None:
    """What a node of this kind takes beside one constant number, and that number."""
    node = graph.makers.get(name)
    if node is None or node.kind != kind or len(node.inputs) != 2:
        return None
    for other, constant in ((0, 1), (1, 0)) if kind != "Pow" else ((0, 1),):
        leaf = graph.constant(node.inputs[constant])
        if leaf is not None and prod(leaf.shape) == 1:
            return node.inputs[other], float(leaf.read().reshape(-1)[0])
    return None


def _window(graph: Graph, name: str, x: str, inside: set[str], bands: dict[str, Window | None]) -> Window | None:
    """What is summed under this name, if it is the squares of x."""
    pads: list[int] = []
    window: Window | None = None
    pool: Node | None = None
    for _ in range(LONGEST):
        node = graph.makers.get(name)
        if node is None or not node.inputs:
            return None
        inside.add(name)
        if node.kind == "Mul":
            window = window or (_pooled(pool, pads) if pool is not None else None)
            return window if node.inputs == [x, x] else None
        if node.kind == "Conv" and len(node.inputs) == 2 and pool is window is None:
            window = _summed(graph, node, bands)
        elif node.kind == "AveragePool" and pool is window is None:
            pool = node
        elif node.kind == "Pad" and not pads:
            pads = _padding(graph, node, inside)
        elif node.kind not in (*SHAPING, "If"):
            return None
        name = node.inputs[0] if node.kind != "If" else _either_way(node)
    return None


def _padding(graph: Graph, node: Node, inside: set[str]) -> list[int]:
    """Zeros before every axis, then behind every axis."""
    given, seen = node.attributes.get("pads"), set[str]()
    if given is None and len(node.inputs) > 1:
        found = folded(graph, node.inputs[1], seen)
        given = None if found is None else found.reshape(-1).tolist()
        inside.update(seen)
    return [int(side) for side in given] if isinstance(given, list) else []


def _either_way(node: Node) -> str:
    """What both branches of an If hand on, at most in another shape; "" where that is not the same."""
    found = set()
    for branch in ("then_branch", "else_branch"):
        graph: Any = node.attributes.get(branch)
        nodes = list(graph.node)[:LONGEST] if hasattr(graph, "node") else []
        makers = {output: each for each in nodes for output in each.output}
        name = graph.output[0].name if nodes and graph.output else ""
        for _ in range(LONGEST):
            if name not in makers:
                break
            each = makers[name]
            name = each.input[0] if each.op_type in SHAPING and each.input else ""
        found.add(name)
    return found.pop() if len(found) == 1 else ""


def _pooled(pool: Node, pads: list[int]) -> Window | None:
    """A mean within each map, (N,C,H,W), or across the maps as the third axis, (N,1,C,...)."""
    kernel, own = pool.attributes.get("kernel_shape"), pool.attributes.get("pads")
    if (
        not isinstance(kernel, list)
        or len(kernel) not in (2, 3)
        or any(n != 1 for n in pool.attributes.get("strides", []))
    ):
        return None
    before, behind = [0] * len(kernel), [0] * len(kernel)
    if len(pads) == 2 * (len(kernel) + 2):
        before, behind = pads[2 : 2 + len(kernel)], pads[-len(kernel) :]
    if isinstance(own, list) and any(own):
        if pool.attributes.get("count_include_pad") != 1 or len(own) != 2 * len(kernel):
            return None  # a mean over fewer at the edge
        before = [a + b for a, b in zip(before, own[: len(kernel)], strict=True)]
        behind = [a + b for a, b in zip(behind, own[len(kernel) :], strict=True)]
    n, low, high = kernel[0], before[0], behind[0]
    if low + high + 1 != n:
        return None
    if len(kernel) == 2 and kernel[1] == n and (before[1], behind[1]) == (low, high):
        return Window("within", low, high, 1, mean=True)
    if all(side == 1 for side in kernel[1:]) and not any(before[1:] + behind[1:]):
        return Window("across", low, high, 1, mean=True)
    return None


def _summed(graph: Graph, node: Node, bands: dict[str, Window | None]) -> Window | None:
    """A 1x1 convolution by ones where a channel sees another."""
    name = node.inputs[1]
    if name not in bands:
        leaf = graph.constant(name)
        is_band = leaf is not None and len(leaf.shape) == 4 and leaf.shape[1:] == (leaf.shape[0], 1, 1)
        bands[name] = (
            _band(leaf.read()[:, :, 0, 0]) if leaf is not None and is_band and leaf.shape[0] <= MAX_MAPS else None
        )
    plain = node.attributes.get("group", 1) == 1 and not any(node.attributes.get("pads", []))
    return bands[name] if plain else None


def _band(ones: np.ndarray) -> Window | None:
    """The window of a matrix of ones and zeros whose row c has ones for the maps that map c sees."""
    C = len(ones)
    i, j = np.nonzero(ones)
    if not len(i):
        return None
    low, high = max(0, int((i - j).max())), max(0, int((j - i).max()))
    neighbours = ones.diagonal(1) if high else ones.diagonal(-1)
    groups = 1 + int((neighbours == 0).sum()) if low or high else 1
    if C % groups or not np.array_equal(ones, neighbours_of(C, low, high, groups)):
        return None
    return Window("across", low, high, groups, mean=False)


def neighbours_of(C: int, low: int, high: int, groups: int) -> np.ndarray:
    """(C, C): one where the first channel's window holds the second, and both are in one tower."""
    i, j = np.ogrid[:C, :C]
    each = C // groups
    return ((j >= i - low) & (j <= i + high) & (i // each == j // each)).astype(np.float32)
