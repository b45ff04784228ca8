"""Checkpoints of cuda-convnet, the authors' own program: a pickle of {"model_state", "op"}, with every layer as a dict.

Towers are joined to the layers that they are halves of: `conv2a` and `conv2b` to `conv2`, the grouped convolution. A
convolution's weights are (C·K·K, F), a dense layer's (inputs, outputs) with the inputs in the order C, H, W; each input
has a matrix of its own, and which tower it comes from is looked up, for fc2048bb lists the other tower first. The
optimizer's weightsInc and biasesInc are left out.

`hs` ("hidden sex") is the dropout that multiplies by 0.5 in testing; cuda-convnet2's `dropout` scales in training.

Source: computerhistory/AlexNet-Source-Code, layer.py, convnet.py, layers/layers-145.cfg; akrizhevsky/cuda-convnet2,
python_util/gpumodel.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.leaves import Contents, Holder, Leaf
from alexnet_np.weights.steps import Step, step

TOWER = re.compile(r"(.+)([a-d])((?:_neuron)?(?:\.\d+)?)")  # what a layer of a tower is called: base, tower, rest
NEURONS = {"relu": "relu", "tanh": "tanh", "logistic": "sigmoid"}
MAX_LAYERS = 1000


def is_checkpoint(tree: Any) -> bool:
    return type(tree) is dict and type(tree.get("model_state")) is dict and "layers" in tree["model_state"]


def contents(tree: Any) -> Contents:
    """The joined layers of a checkpoint. Raises WeightsError."""
    net = _Net(tree["model_state"]["layers"])
    arrays: dict[str, Leaf] = {}
    steps: list[Step] = []
    for base in net.order():
        layer = net.layers[net.members[base][0]]
        if "weights" in layer:
            arrays[f"{base}.weight"], arrays[f"{base}.bias"] = net.joined(base)
        steps += net.steps(base, layer)
    return Contents("checkpoint of cuda-convnet", arrays, tuple(steps), channels="RGB", input=_input(net))


def _input(net: _Net) -> tuple[int, ...] | None:
    """(C, H, W), as the first convolution has it."""
    for base in net.order():
        layer = net.layers[net.members[base][0]]
        if layer.get("type") == "conv":
            side, channels = _number(layer, "imgSize", 0), _number(layer, "channels", 0, 3)
            return (channels, side, side) if side > 0 < channels else None
    return None


class _Net:
    """The layers by name, and which of them are one layer's towers."""

    def __init__(self, layers: Any) -> None:
        if type(layers) is list:  # the first cuda-convnet: inputs are places in the list
            names = [layer["name"] for layer in layers]
            layers = {
                layer["name"]: layer | {"inputs": [names[i] for i in layer.get("inputs", [])]} for layer in layers
            }
        if type(layers) is not dict or len(layers) > MAX_LAYERS or any(type(v) is not dict for v in layers.values()):
            raise WeightsError("damaged: a checkpoint of cuda-convnet without its layers")
        self.layers: dict[str, dict[str, Any]] = layers
        self.members: dict[str, list[str]] = {}  # of each joined layer, in the order of the towers
        self.base: dict[str, str] = {}
        for name in sorted(layers):
            base = self._base(name)
            self.base[name] = base
            self.members.setdefault(base, []).append(name)

    def _base(self, name: str) -> str:
        """The name of the layer that `name` is a tower of: its own where there is no other tower."""
        found = TOWER.fullmatch(name)
        if found is None:
            return name
        base, _, rest = found.groups()
        twins = [f"{base}{tower}{rest}" for tower in "ab"]
        is_tower = all(twin in self.layers and self._type(twin) == self._type(name) for twin in twins)
        return f"{base}{rest}" if is_tower else name

    def _type(self, name: str) -> Any:
        return self.layers[name].get("type")

    def inputs(self, name: str) -> list[str]:
        inputs = self.layers[name].get("inputs", [])
        if type(inputs) is not list or any(type(each) is not str or each not in self.layers for each in inputs):
            raise WeightsError(f"damaged: layer {quoted(name)} has inputs that are not there")
        return inputs

    def order(self) -> list[str]:
        """The joined layers, each after those that it takes its inputs from."""
        done: dict[str, None] = {}
        begun: set[str] = set()
        waiting = [(base, False) for base in reversed(self.members)]
        while waiting:
            base, has_inputs = waiting.pop()
            if has_inputs:
                done[base] = None
            elif base not in done:
                if base in begun:
                    raise WeightsError("damaged: layers of cuda-convnet in a circle")
                begun.add(base)
                waiting.append((base, True))
                waiting += [(self.base[name], False) for name in self.inputs(self.members[base][0])]
        return list(done)

    def source(self, name: str) -> str:
        """The layer with weights, or the data, that `name`'s numbers come from."""
        for _ in range(MAX_LAYERS):
            inputs = self.inputs(name)
            if "weights" in self.layers[name] or len(inputs) != 1:
                return name
            (name,) = inputs
        raise WeightsError("damaged: layers of cuda-convnet in a circle")

    def joined(self, base: str) -> tuple[Leaf, Leaf]:
        """The weight and the bias of all towers together, unread, in torch's layout."""
        members = self.members[base]
        blocks = [self._blocks(name) for name in members]
        biases = [_leaf(self.layers[name].get("biases"), f"{name}.biases") for name in members]
        inner = blocks[0][0].shape[2:]
        rows, columns = [row[0].shape[0] for row in blocks], [block.shape[1] for block in blocks[0]]
        if any(
            [block.shape for block in row] != [(n, c, *inner) for c in columns]
            for n, row in zip(rows, blocks, strict=True)
        ):
            raise WeightsError(f"damaged: the towers of layer {quoted(base)} do not fit each other")
        for name, bias, n in zip(members, biases, rows, strict=True):
            if sum(bias.shape) != n + 1:
                raise WeightsError(
                    f"layer {quoted(name)} has {bias.shape} biases for {n} filters, which are not shared"
                )
        shape = (sum(rows), sum(columns), *inner)
        weight = Leaf(shape, blocks[0][0].dtype, partial(_joined, blocks, shape))
        return weight, Leaf(shape[:1], biases[0].dtype, lambda: np.concatenate([b.read().reshape(-1) for b in biases]))

    def _blocks(self, name: str) -> list[Leaf]:
        """A tower's matrices in torch's layout, in the order of the towers that the inputs come from."""
        layer, inputs = self.layers[name], self.inputs(name)
        matrices = layer["weights"] if type(layer["weights"]) is list else [layer["weights"]]
        if len(matrices) != len(inputs) or not inputs:
            raise WeightsError(f"damaged: layer {quoted(name)} has {len(matrices)} matrices for {len(inputs)} inputs")
        sources = [self.source(each) for each in inputs]
        blocks = [self._block(layer, i, _leaf(matrix, name)) for i, matrix in enumerate(matrices)]
        return [blocks[i] for i in sorted(range(len(blocks)), key=lambda i: self._tower(sources[i]))]

    def _tower(self, name: str) -> int:
        return self.members[self.base[name]].index(name)

    def _block(self, layer: dict[str, Any], i: int, matrix: Leaf) -> Leaf:
        if len(matrix.shape) != 2:
            raise WeightsError("damaged: a layer of cuda-convnet whose weights are not a matrix")
        inputs, outputs = matrix.shape
        if layer.get("type") != "conv":
            return Leaf((outputs, inputs), matrix.dtype, lambda: matrix.read().T)
        size = _number(layer, "filterSize", i)
        if not size or inputs % size**2:
            raise WeightsError(f"damaged: filters of {size}x{size} in a matrix of {inputs} rows")
        shape = (inputs // size**2, size, size, outputs)
        return Leaf((outputs, *shape[:3]), matrix.dtype, lambda: matrix.read().reshape(shape).transpose(3, 0, 1, 2))

    def steps(self, base: str, layer: dict[str, Any]) -> Iterator[Step]:
        """What a layer computes, for the layers that compute something in testing."""
        towers = len(self.members[base])
        match layer.get("type"):
            case "conv":
                yield step("conv", base, **_window(layer), groups=self._groups(base, layer))
            case "fc":
                yield step("linear", base)
            case "neuron" if type(layer.get("neuron")) is dict:
                kind = str(layer["neuron"].get("type"))
                yield step(NEURONS.get(kind, kind), base)
            case "pool":
                kernel, stride, start = (_number(layer, key, 0) for key in ("sizeX", "stride", "start"))
                pads = ((-start, 0), (-start, 0))
                kind = "max_pool" if layer.get("pool") == "max" else f"{layer.get('pool')}_pool"
                yield step(kind, base, kernel=(kernel,) * 2, stride=(stride,) * 2, padding=pads, ceil=True)
            case "cmrnorm":
                yield _lrn(base, layer, "across", _number(layer, "size", 0), towers)
            case "rnorm":
                yield _lrn(base, layer, "within", _number(layer, "size", 0) ** 2, towers)
            case "hs" | "dropout" | "dropout2" as kind:
                scaling = "testing" if kind == "hs" else "training"
                yield step("dropout", base, p=1 - _real(layer, "keep", 0.5), scaling=scaling)
            case "cnorm" | "local" as kind:
                yield step(str(kind), base)

    def _groups(self, base: str, layer: dict[str, Any]) -> int:
        """How many groups the joined convolution has: as many as towers, where each reads its own tower only."""
        name = self.members[base][0]
        sources = {self.source(each) for each in self.inputs(name)}
        towers = len(self.members[self.base[next(iter(sources))]])
        return max(1, towers // len(sources)) * _number(layer, "groups", 0, 1)


def _joined(blocks: Sequence[Sequence[Leaf]], shape: tuple[int, ...]) -> np.ndarray:
    whole = np.empty(shape, blocks[0][0].dtype)
    row = 0
    for tower in blocks:
        column, rows = 0, tower[0].shape[0]
        for block in tower:
            whole[row : row + rows, column : column + block.shape[1]] = block.read()
            column += block.shape[1]
        row += rows
    return whole


def _leaf(node: Any, name: str) -> Leaf:
    leaf = node.content if type(node) is Holder else node
    if type(leaf) is not Leaf or leaf.dtype == "bfloat16":
        raise WeightsError(f"damaged: {quoted(name)} is no array")
    return leaf


def _number(layer: dict[str, Any], key: str, i: int, default: int = 0) -> int:
    value = layer.get(key, default)
    value = value[i] if type(value) is list and i < len(value) else value
    if type(value) is not int or abs(value) > 1 << 20:
        raise WeightsError(f"damaged: {key} of a layer is not a whole number")
    return value


def _real(layer: dict[str, Any], key: str, default: float = 0.0) -> float:
    value = layer.get(key, default)
    return float(value) if type(value) in (int, float) else default


def _lrn(base: str, layer: dict[str, Any], region: str, n: int, towers: int) -> Step:
    """`scale` has been divided by the `n` that are summed; its digits are those of the configuration."""
    alpha = float(f"{_real(layer, 'scale') * n:.7g}")
    settings = {"size": _number(layer, "size", 0), "beta": _real(layer, "pow"), "k": _real(layer, "minDiv", 1.0)}
    return step("lrn", base, alpha=alpha, **settings, convention="krizhevsky", region=region, groups=towers)


def _window(layer: dict[str, Any]) -> dict[str, Any]:
    """Stride and padding; where the last window hangs over the right and bottom edge, that is padding there."""
    stride, pad = _number(layer, "stride", 0, 1), abs(_number(layer, "padding", 0))
    outputs, size, image = _number(layer, "modulesX", 0), _number(layer, "filterSize", 0), _number(layer, "imgSize", 0)
    over = max(0, (outputs - 1) * stride + size - image - 2 * pad)
    return {"stride": (stride,) * 2, "padding": ((pad, pad + over),) * 2}
