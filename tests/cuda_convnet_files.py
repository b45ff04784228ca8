"""Checkpoints as cuda-convnet wrote them: the layers of layers-145.cfg, each half of each layer on its tower."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
from typing import Any

import numpy as np
from weight_formats import KERNELS, State, layers


def cuda_convnet_layers(state: State) -> dict[str, dict[str, Any]]:
    """The layers of layers-145.cfg, as cuda-convnet keeps them, each half of each layer on its tower."""
    pairs, result = layers(state), {}

    def add(name: str, kind: str, inputs: list[str], **more: Any) -> None:
        result[name] = {"name": name, "type": kind, "inputs": inputs, "outputs": 1, **more}

    def halves(array: np.ndarray, axis: int = 0) -> dict[str, np.ndarray]:
        return dict(zip("ab", np.split(array, 2, axis), strict=True))

    def conv(layer: str, tower: str, inputs: list[str], parts: list[np.ndarray], image: int, **more: Any) -> None:
        kernel, stride, pad = KERNELS[layer]
        matrices = [np.ascontiguousarray(part.transpose(1, 2, 3, 0).reshape(-1, len(part))) for part in parts]
        bias = halves(pairs[layer][1])[tower].reshape(-1, 1).copy()
        modules = 1 + -(-(2 * pad + image - kernel) // stride)
        geometry = {"filterSize": kernel, "stride": stride, "padding": -pad, "groups": 1, "imgSize": image}
        more |= {key: [value] * len(parts) for key, value in geometry.items()}
        more |= {"weights": matrices, "weightsInc": [0 * m for m in matrices], "biases": bias, "biasesInc": 0 * bias}
        add(f"{layer}{tower}", "conv", inputs, modulesX=modules, sharedBiases=True, **more)

    def dense(name: str, layer: str, inputs: list[str], parts: list[np.ndarray], bias: np.ndarray) -> None:
        matrices = [np.asfortranarray(part.T) for part in parts]
        add(
            name,
            "fc",
            inputs,
            weights=matrices,
            weightsInc=[0 * m for m in matrices],
            biases=np.asfortranarray(bias.reshape(1, -1)),
            biasesInc=0 * bias,
        )

    def relu(name: str) -> None:
        add(f"{name}_neuron", "neuron", [name], neuron={"type": "relu", "params": {}})

    def pool(name: str, before: str) -> None:
        add(name, "pool", [before], pool="max", sizeX=3, stride=2, start=0)

    result["data"] = {"name": "data", "type": "data", "dataIdx": 0, "outputs": 150528}
    for t in "ab":
        conv("conv1", t, ["data"], [halves(pairs["conv1"][0])[t]], 224)
        add(f"rnorm1{t}", "cmrnorm", [f"conv1{t}"], size=5, scale=1e-4 / 5, pow=0.75, minDiv=2.0)
        pool(f"pool1{t}", f"rnorm1{t}")
        relu(f"pool1{t}")
        conv("conv2", t, [f"pool1{t}_neuron"], [halves(pairs["conv2"][0])[t]], 27)
        relu(f"conv2{t}")
        add(f"rnorm2{t}", "cmrnorm", [f"conv2{t}_neuron"], size=5, scale=1e-4 / 5, pow=0.75, minDiv=2.0)
        add(f"cnorm2{t}", "rnorm", [f"rnorm2{t}"], size=5, scale=1e-3 / 25, pow=0.75)
        pool(f"pool2{t}", f"cnorm2{t}")
    for t in "ab":
        conv("conv3", t, ["pool2a", "pool2b"], list(halves(halves(pairs["conv3"][0])[t], 1).values()), 13)
        relu(f"conv3{t}")
        conv("conv4", t, [f"conv3{t}_neuron"], [halves(pairs["conv4"][0])[t]], 13)
        relu(f"conv4{t}")
        conv("conv5", t, [f"conv4{t}_neuron"], [halves(pairs["conv5"][0])[t]], 13)
        pool(f"pool3{t}", f"conv5{t}")
        relu(f"pool3{t}")
    for t in "ab":
        inputs = halves(halves(pairs["fc6"][0])[t], 1)
        dense(
            f"fc2048{t}",
            "fc6",
            ["pool3a_neuron", "pool3b_neuron"],
            [inputs["a"], inputs["b"]],
            halves(pairs["fc6"][1])[t],
        )
        relu(f"fc2048{t}")
        add(f"hs1{t}", "hs", [f"fc2048{t}_neuron"], keep=0.5, enable=True)
    for t, order in (("a", "ab"), ("b", "ba")):  # fc2048bb lists the other tower first
        inputs = halves(halves(pairs["fc7"][0])[t], 1)
        dense(
            f"fc2048b{t}",
            "fc7",
            [f"hs1{other}" for other in order],
            [inputs[other] for other in order],
            halves(pairs["fc7"][1])[t],
        )
        relu(f"fc2048b{t}")
        add(f"hs2{t}", "hs", [f"fc2048b{t}_neuron"], keep=0.5, enable=True)
    dense("fc1000", "fc8", ["hs2a", "hs2b"], list(halves(pairs["fc8"][0], 1).values()), pairs["fc8"][1])
    add("probs", "softmax", ["fc1000"])
    for layer in result.values():
        layer["inputLayers"] = [result[name] for name in layer.get("inputs", [])]
    return result


class _Python2(pickle._Pickler):  # type: ignore[name-defined, misc]
    """cPickle of Python 2, in protocol 2: text and bytes are the same, and NumPy's core has its old name."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, value: str | bytes) -> None:
        raw = value if isinstance(value, bytes) else value.encode("latin-1")
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string

    def save_global(self, value: Any, name: str | None = None) -> None:
        module, title = value.__module__.replace("_core", "core"), name or value.__qualname__
        self.write(b"c" + f"{module}\n{title}\n".encode())
        self.memoize(value)

    dispatch[types.FunctionType] = save_global

    def save_type(self, value: type) -> None:
        self.save_global(value)

    dispatch[type] = save_type


def python2(saved: Any) -> bytes:
    stream = io.BytesIO()
    _Python2(stream, 2).dump(saved)
    return stream.getvalue()


def cuda_convnet(state: State, as_list: bool = False) -> bytes:
    """The pickle, with the options as an object of a class that nobody has."""
    found = cuda_convnet_layers(state)
    shuffled: Any = {
        name: found[name] for name in sorted(found, key=lambda name: name[::-1])
    }  # Python 2's dicts have no order
    if as_list:
        names = list(found)
        shuffled = [
            layer | {"inputs": [names.index(name) for name in layer.get("inputs", [])], "inputLayers": None}
            for layer in found.values()
        ]
    module = types.ModuleType("options")
    exec("class OptionsParser: pass\nclass Option: pass", module.__dict__)  # noqa: S102
    for cls in (module.OptionsParser, module.Option):
        cls.__module__ = "options"
    op = module.OptionsParser()
    op.options = {"layer_def": module.Option()}
    sys.modules["options"] = module
    try:
        saved = {
            "model_state": {"layers": shuffled, "epoch": 91, "train_outputs": [({"logprob": [1.7, 0.4]}, 128)] * 5},
            "op": op,
        }
        return python2(saved)
    finally:
        del sys.modules["options"]
