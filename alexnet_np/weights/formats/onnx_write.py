"""A network as an ONNX model: input (N, C, H, W) with N free, output the logits, opset 13 to 20.

Where ONNX has an operator it is used; what it has none for is put together from plain ones:

    LRN of an even window or of two towers     Mul, Conv (ones where a channel sees another), Mul, Add, Pow, Div
    LRN within each map                        Pad, Mul, AveragePool, Mul, Add, Pow, Div
    adaptive average pooling                   AveragePool where the windows are equal, else two MatMul
    average pooling with divisors of its own   AveragePool, Mul (a window over the padding's edge, divisor_override)

A pooling that counts by ceil gets what is missing as padding at the end, which is the same for the given size. Dropout
is left out: the graph is for inference.

Source: onnx/onnx, docs/Operators.md, docs/Changelog.md (the same definitions from opset 13 on).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.errors import MissingPackageError, WeightsError
from alexnet_np.ops import avg_pool2d
from alexnet_np.ops.local_response_norm import Geometry
from alexnet_np.weights.formats import protobuf_write
from alexnet_np.weights.formats.onnx_lrn import neighbours_of
from alexnet_np.weights.formats.onnx_schema import SCHEMA
from alexnet_np.weights.formats.protobuf_write import Part, field
from alexnet_np.weights.lrn import geometry
from alexnet_np.weights.steps import Network, Step, Writer, output_size

GRAPH, INITIALIZER = SCHEMA["ModelProto"]["graph"][0], SCHEMA["GraphProto"]["initializer"][0]  # numbers of fields
RAW_DATA = SCHEMA["TensorProto"]["raw_data"][0]
OPSETS = range(13, 21)
NAMES = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}


def write(path: Path, network: Network, opset: int = 17) -> None:
    """Write the network to `path`. Raises WeightsError, MissingPackageError, OSError."""
    try:
        import onnx
    except ImportError:
        raise MissingPackageError("writing .onnx needs the package onnx: pip install onnx") from None
    if opset not in OPSETS:
        raise WeightsError(f"opset {opset} is not written: choose one from {OPSETS[0]} to {OPSETS[-1]}")
    graph = _Graph(onnx, network)
    for each in network.steps:
        graph.add(each)
    made = graph.finished(opset)
    for key, text in network.metadata.items():
        made.metadata_props.add(key=key, value=text)
    layers = made.graph.SerializeToString()
    made.ClearField("graph")
    protobuf_write.write(path, [made.SerializeToString(), *field(GRAPH, [layers, *graph.numbers()])])


class _Graph(Writer):
    """The graph while it is made: its nodes, and the name and the shape of what they have come to."""

    def __init__(self, onnx: Any, network: Network) -> None:
        self.onnx, self.network = onnx, network
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}  # the initializers, which are not put into the message
        self.x, self.shape = "input", network.input

    def node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """A node that takes what has been reached, or `inputs`; what it gives is reached then."""
        output = f"{name}.{kind}{len(self.nodes)}"
        made = self.onnx.helper.make_node(kind, list(inputs or (self.x,)), [output], name=output, **attributes)
        self.nodes.append(made)
        self.x = output
        return output

    def constant(self, name: str, array: Any) -> str:
        """An initializer, float32 if it holds floats."""
        array = np.ascontiguousarray(array, np.float32 if np.asarray(array).dtype.kind == "f" else None)
        self.constants[name] = array.astype(array.dtype.newbyteorder("<"), copy=False)
        return name

    def numbers(self) -> Iterator[Part]:
        """The initializers."""
        for name, array in self.constants.items():
            kind = self.onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            tensor = self.onnx.TensorProto(name=name, data_type=kind, dims=array.shape)
            yield from field(INITIALIZER, [tensor.SerializeToString(), *field(RAW_DATA, [array])])

    def weights(self, name: str) -> list[str]:
        """The names of a layer's weight and, if it has one, its bias."""
        names = [f"{name}.{kind}" for kind in ("weight", "bias")]
        return [self.constant(each, self.network.arrays[each]) for each in names if each in self.network.arrays]

    def convolution(self, each: Step) -> None:
        F, _, *kernel = self.network.arrays[f"{each.name}.weight"].shape
        window = {"kernel_shape": kernel, **_window(each), "group": each.settings["groups"]}
        self.node("Conv", each.name, self.x, *self.weights(each.name), **window)
        self.shape = (F, *output_size(each, self.shape[1:], (kernel[0], kernel[1])))

    def dense(self, each: Step) -> None:
        self.node("Gemm", each.name, self.x, *self.weights(each.name), transB=1)
        self.shape = (self.network.arrays[f"{each.name}.weight"].shape[0], 1, 1)

    def pooling(self, each: Step) -> None:
        kernel, stride, size = each.settings["kernel"], each.settings["stride"], self.shape[1:]
        output = output_size(each, size, kernel)
        ends = [(n - 1) * over + k - side for n, over, k, side in zip(output, stride, kernel, size, strict=True)]
        (top, _), (left, _) = each.settings["padding"]
        pads = [top, left, max(0, ends[0] - top), max(0, ends[1] - left)]
        window = {"kernel_shape": list(kernel), "strides": list(stride), "pads": pads}
        if each.kind == "max_pool":
            self.node("MaxPool", each.name, **window)
        else:
            rule = (each.settings.get("include_pad", True), each.settings.get("divisor", 0))
            self.averages(each.name, window, avg_pool2d.Geometry(kernel, stride, (top, left), output, *rule))
        self.shape = (self.shape[0], *output)

    def averages(self, name: str, window: dict[str, Any], geometry: avg_pool2d.Geometry) -> None:
        """AveragePool divides by what is in the map, or by all places; where neither is right, by all, and mended."""
        divisors = avg_pool2d.divisors(geometry, (1, *self.shape))
        inside = avg_pool2d.divisors(geometry._replace(include_pad=False, divisor=0), (1, *self.shape))
        every = prod(geometry.kernel)
        only_inside = np.array_equal(divisors, inside)
        self.node("AveragePool", name, **window, count_include_pad=int(not only_inside))
        if not only_inside and (divisors != every).any():
            self.node("Mul", name, self.x, self.constant(f"{name}.shares", every / divisors))

    def adaptive(self, each: Step) -> None:
        """torch's windows: output i averages floor(i·H/n) up to, not including, ceil((i+1)·H/n)."""
        wanted, size = each.settings["output_size"], self.shape[1:]
        wanted = (wanted, wanted) if isinstance(wanted, int) else wanted
        output = (size[0] if wanted[0] is None else wanted[0], size[1] if wanted[1] is None else wanted[1])
        if output == size:
            return
        if size[0] % output[0] == 0 and size[1] % output[1] == 0:
            kernel = [side // n for side, n in zip(size, output, strict=True)]
            self.node("AveragePool", each.name, kernel_shape=kernel, strides=kernel)
        else:
            rows, columns = (_means(n, side) for n, side in zip(output, size, strict=True))
            down = self.constant(f"{each.name}.rows", rows)
            self.node("MatMul", each.name, down, self.x)
            self.node("MatMul", each.name, self.x, self.constant(f"{each.name}.columns", columns.T))
        self.shape = (self.shape[0], *output)

    def norm(self, each: Step) -> None:
        sees = geometry(each)
        if sees.region == "across" and sees.low == sees.high and sees.groups == 1:
            n = sees.low + sees.high + 1
            self.node("LRN", each.name, size=n, alpha=sees.scale * n, beta=sees.beta, bias=sees.k)
            return
        x, name = self.x, each.name
        self.node("Mul", name, x, x)
        if sees.region == "within":
            self.window_means(name, sees)
            n = (sees.low + sees.high + 1) ** 2
        else:
            n = 1
            ones = neighbours_of(self.shape[0], sees.low, sees.high, sees.groups)
            self.node("Conv", name, self.x, self.constant(f"{name}.neighbours", ones[:, :, None, None]))
        self.node("Mul", name, self.x, self.constant(f"{name}.alpha", np.float32(sees.scale * n)))
        self.node("Add", name, self.x, self.constant(f"{name}.k", np.float32(sees.k)))
        self.node("Pow", name, self.x, self.constant(f"{name}.beta", np.float32(sees.beta)))
        self.node("Div", name, x, self.x)

    def window_means(self, name: str, sees: Geometry) -> None:
        """The mean over a square around every place, with zeros outside of the map."""
        n = sees.low + sees.high + 1
        pads = [0, 0, sees.low, sees.low, 0, 0, sees.high, sees.high]
        self.node("Pad", name, self.x, self.constant(f"{name}.pads", np.array(pads, np.int64)))
        self.node("AveragePool", name, kernel_shape=[n, n], strides=[1, 1])

    def flatten(self, each: Step) -> None:
        self.node("Flatten", each.name, axis=1)
        self.shape = (prod(self.shape), 1, 1)

    def dropout(self, each: Step) -> None:
        """Nothing: the graph is for inference."""

    def activation(self, each: Step) -> None:
        if each.kind not in NAMES:
            raise WeightsError(f"{each.name}: {each.kind} cannot be written as ONNX")
        self.node(NAMES[each.kind], each.name)

    def finished(self, opset: int) -> Any:
        helper, number = self.onnx.helper, self.onnx.TensorProto.FLOAT
        self.nodes.append(helper.make_node("Identity", [self.x], ["logits"], name="logits"))
        batch = "N"
        inputs = [helper.make_tensor_value_info("input", number, [batch, *self.network.input])]
        outputs = [helper.make_tensor_value_info("logits", number, [batch, self.shape[0]])]
        graph = helper.make_graph(self.nodes, self.network.title, inputs, outputs)
        versions = [helper.make_opsetid("", opset)]
        made = helper.make_model(graph, opset_imports=versions, producer_name="alexnet-np")
        made.ir_version = helper.find_min_ir_version_for(versions)
        return made


def _window(each: Step) -> dict[str, Any]:
    (top, bottom), (left, right) = each.settings["padding"]
    return {"strides": list(each.settings["stride"]), "pads": [top, left, bottom, right]}


def _means(count: int, side: int) -> np.ndarray:
    """(count, side): row i takes the mean of its window."""
    rows = np.zeros((count, side))
    for i in range(count):
        begin, end = i * side // count, -(-(i + 1) * side // count)
        rows[i, begin:end] = 1 / (end - begin)
    return rows
