"""ONNX: the weights of a graph's convolutions and dense layers, under the names that the graph has for them.

They are initializers, or outputs of Constant nodes, and may be handed on (Identity), turned (Transpose) or all one
number (ConstantOfShape, as in the graphs that onnx tests with). A dense layer is a Gemm, or a MatMul and an Add. Its
weight is given as torch has it, (out, in). What the graph says of its layers comes as steps.

Source: onnx/onnx, docs/Operators.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.formats import onnx_lrn
from alexnet_np.weights.formats.onnx_schema import messages
from alexnet_np.weights.formats.onnx_tensor import leaf
from alexnet_np.weights.formats.protobuf import Parsed
from alexnet_np.weights.leaves import Contents, Inert, Leaf
from alexnet_np.weights.source import Source
from alexnet_np.weights.steps import Pads, Step, step

SIMPLE = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Softmax": "softmax", "LogSoftmax": "softmax"}
SIMPLE |= {"Flatten": "flatten", "Reshape": "flatten", "Dropout": "dropout", "GlobalAveragePool": "adaptive"}
SILENT = ("MaxPool", "AveragePool", "LRN", "Identity", "Squeeze", "Unsqueeze")  # which need no weights, beside SIMPLE


class Node(NamedTuple):
    """A node, with its attributes by name."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


def read(source: Source) -> Contents:
    """The layers of an ONNX model. Raises WeightsError, MissingPackageError."""
    parsed = Parsed(source, messages()["ModelProto"])
    model = parsed.message
    graph = _Graph(parsed)
    tree = graph.arrays()
    if not tree:
        raise WeightsError("holds no convolution and no dense layer whose weights are constants")
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    made = f" by {model.producer_name[:40]}" if model.producer_name else ""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    what = f"ONNX, opset {max(versions, default=1)}{made}"
    return Contents(what, tree, graph.understood(), input=_input(model.graph), metadata=metadata)


def _input(graph: Any) -> tuple[int, ...] | None:
    """(C, H, W) of the first input with four axes that is not a weight; the batch may be free."""
    weights = {tensor.name for tensor in graph.initializer}
    shapes = [
        tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in graph.input
        if value.name not in weights
    ]
    return next((shape[1:] for shape in shapes if len(shape) == 4 and min(shape[1:]) > 0), None)


class _Graph:
    def __init__(self, parsed: Parsed) -> None:
        graph = parsed.message.graph
        self.parsed = parsed
        self.nodes = [_node(node) for node in graph.node]
        self.makers = {output: node for node in self.nodes for output in node.outputs}
        self.constants: dict[str, Leaf | Inert | None] = {t.name: leaf(parsed, t, t.name) for t in graph.initializer}
        self.added = {node.inputs[0]: node for node in self.nodes if node.kind == "Add" and len(node.inputs) == 2}
        self.norms = onnx_lrn.found(self)  # written out in plain operators

    def constant(self, name: str) -> Leaf | None:
        """The array that goes by `name` in the graph; None where it is not a constant."""
        if name not in self.constants:
            self.constants[name] = None  # until it is known, lest a circle be followed
            node = self.makers.get(name)
            self.constants[name] = None if node is None else self._made(node)
        found = self.constants[name]
        return found if isinstance(found, Leaf) else None

    def _made(self, node: Node) -> Leaf | Inert | None:
        if node.kind == "Constant" and "value" in node.attributes:
            return leaf(self.parsed, node.attributes["value"], node.outputs[0])
        inner = self.constant(node.inputs[0]) if node.inputs else None
        if inner is None:
            return None
        if node.kind == "Identity":
            return inner
        if node.kind == "Transpose":
            return _transposed(inner, node.attributes.get("perm"))
        if node.kind == "ConstantOfShape":
            return self.filled(inner, node)
        return None

    def filled(self, shape: Leaf, node: Node) -> Leaf:
        """An array of one number, which takes the memory of one."""
        if len(shape.shape) != 1 or shape.shape[0] > 8 or shape.dtype != "int64":
            raise WeightsError(f"damaged: {quoted(node.outputs[0])} has no shape")
        value = leaf(self.parsed, node.attributes["value"], node.name) if "value" in node.attributes else None
        dtype = value.dtype if isinstance(value, Leaf) else "float32"
        axes = tuple(shape.read().tolist())
        if any(n < 0 for n in axes):
            raise WeightsError(f"damaged: {quoted(node.outputs[0])} claims shape {axes}")
        read = partial(_repeated, value if isinstance(value, Leaf) else None, dtype, axes)
        return Leaf(axes, dtype, read, is_owned=False)

    def weights(self, node: Node) -> tuple[str, Leaf, str | None, Leaf | None] | None:
        """(name, weight, name, bias) of a layer that has constant ones."""
        if node.kind not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
            return None
        if self.norms.inside.intersection(node.outputs):
            return None
        weight = self.constant(node.inputs[1])
        if weight is None or len(weight.shape) != (4 if node.kind == "Conv" else 2):
            return None
        transposed = node.kind == "Gemm" and node.attributes.get("transB") == 1
        if node.kind != "Conv" and not transposed:
            weight = _transposed(weight)
        if node.kind == "Gemm" and (_real(node, "alpha", 1.0), _real(node, "beta", 1.0)) != (1.0, 1.0):
            raise WeightsError(f"its dense layer {quoted(node.name)} scales its product, which no layer here does")
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if node.kind == "MatMul" and node.outputs[0] in self.added:
            bias = self.added[node.outputs[0]].inputs[1]
        vector = self.constant(bias) if bias else None
        return node.inputs[1], weight, bias, vector

    def arrays(self) -> dict[str, Leaf]:
        """The weights and biases of the layers, in order."""
        tree: dict[str, Leaf] = {}
        for name, weight, bias, vector in filter(None, map(self.weights, self.nodes)):
            tree[name] = weight
            if bias is not None and vector is not None:
                tree[bias] = vector
        return tree

    def understood(self) -> tuple[Step, ...]:
        """The layers in order; none at all where something is done to the picture that no layer here does."""
        graph = self.parsed.message.graph
        data = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
        for node in self.nodes:
            if node.kind != "Shape" and not data.isdisjoint(node.inputs):
                data.update(node.outputs)
                if not self.is_known(node):
                    return ()
        return tuple(self.steps())

    def is_known(self, node: Node) -> bool:
        if node.kind in (*SIMPLE, *SILENT) or not self.norms.parts.isdisjoint(node.outputs):
            return True
        product = self.makers.get(node.inputs[0]) if node.kind == "Add" else None
        is_bias = product is not None and product.kind == "MatMul" and self.weights(product) is not None
        return is_bias or self.weights(node) is not None

    def steps(self) -> Iterator[Step]:
        """The layers, in the order of the graph's nodes, in which each comes after those that it reads from."""
        for node in self.nodes:
            name = node.inputs[1] if len(node.inputs) > 1 else node.name
            name = name.removesuffix(".weight")
            if self.norms.inside.intersection(node.outputs):
                continue
            spelt = self.norms.settings.get(node.outputs[0]) if node.outputs else None
            if spelt is not None:
                yield step("lrn", node.name, **spelt)
            elif node.kind == "Conv" and self.weights(node):
                yield step("conv", name, **_window(node), groups=_whole(node, "group", 1))
            elif node.kind in ("Gemm", "MatMul") and self.weights(node):
                yield step("linear", name)
            elif node.kind in ("MaxPool", "AveragePool"):
                kernel, ceil = _pair(node, "kernel_shape"), _whole(node, "ceil_mode", 0) == 1
                kind, rule = ("max_pool", {}) if node.kind == "MaxPool" else ("avg_pool", _rule(node))
                yield step(kind, node.name, kernel=kernel, **_window(node), ceil=ceil, **rule)
            elif node.kind == "LRN":
                given = {key: float(f"{_real(node, theirs, usual):.7g}") for key, theirs, usual in LRN}
                size = _whole(node, "size", 1)
                yield step("lrn", node.name, size=size, **given, convention="onnx", region="across", groups=1)
            elif node.kind == "Dropout":
                yield step("dropout", node.name, p=_real(node, "ratio", 0.5), scaling="training")
            elif node.kind in SIMPLE:
                yield step(SIMPLE[node.kind], node.name)


LRN = (("alpha", "alpha", 1e-4), ("beta", "beta", 0.75), ("k", "bias", 1.0))


def _node(message: Any) -> Node:
    attributes: dict[str, Any] = {}
    for attribute in message.attribute:
        for field in ("f", "i", "s", "t", "g"):
            if attribute.HasField(field):
                attributes[attribute.name] = getattr(attribute, field)
        if len(attribute.ints):
            attributes[attribute.name] = list(attribute.ints)
    return Node(message.op_type, message.name, list(message.input), list(message.output), attributes)


def _rule(node: Node) -> dict[str, Any]:
    """What an average's sum is divided by."""
    return {"include_pad": _whole(node, "count_include_pad", 0) == 1, "divisor": 0}


def _transposed(inner: Leaf, order: list[int] | None = None) -> Leaf:
    axes = tuple(order) if order is not None else tuple(reversed(range(len(inner.shape))))
    if sorted(axes) != list(range(len(inner.shape))):
        raise WeightsError(f"damaged: an array of {len(inner.shape)} axes cannot be turned to {axes[:8]}")
    shape = tuple(inner.shape[axis] for axis in axes)
    return Leaf(shape, inner.dtype, lambda: inner.read().transpose(axes), is_owned=inner.is_owned)


def _repeated(value: Leaf | None, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    number = np.zeros(1, dtype) if value is None else value.read().reshape(-1)[:1]
    return np.broadcast_to(number.reshape((1,) * len(shape)), shape)


def _whole(node: Node, key: str, default: int) -> int:
    value = node.attributes.get(key, default)
    if not isinstance(value, int):
        raise WeightsError(f"damaged: {key} of {quoted(node.name)} is not a whole number")
    return value


def _real(node: Node, key: str, default: float) -> float:
    value = node.attributes.get(key, default)
    return float(value) if isinstance(value, (int, float)) else default


def _pair(node: Node, key: str, default: int = 1) -> tuple[int, int]:
    value = node.attributes.get(key, [default, default])
    if not isinstance(value, list) or len(value) != 2:
        raise WeightsError(f"damaged: {key} of {quoted(node.name)} are not two numbers")
    return value[0], value[1]


def _window(node: Node) -> dict[str, Any]:
    pads = node.attributes.get("pads", [0, 0, 0, 0])
    if not isinstance(pads, list) or len(pads) != 4:
        raise WeightsError(f"damaged: pads of {quoted(node.name)} are not four numbers")
    top, left, bottom, right = pads
    padding: Pads = ((top, bottom), (left, right))
    return {"stride": _pair(node, "strides"), "padding": padding}
