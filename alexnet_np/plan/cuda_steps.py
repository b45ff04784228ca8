"""The steps of a plan on the GPU: what each layer of a model launches, forward and backward, as a tape records it.

A step is given and gives ghosts (alexnet_np/kernels/gpu/tape.py): it says what is to be computed, on no memory yet.
Bias and ReLU are part of the convolution or dense layer before them; what changes nothing (flattening, dropout in
inference, average pooling to the size that is there) launches nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from alexnet_np import layers, ops
from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError
from alexnet_np.kernels import (
    adaptive_avg_pool2d_cuda,
    conv2d_cuda,
    dropout_cuda,
    linear_cuda,
    local_response_norm_cuda,
    max_pool2d_cuda,
    relu_cuda,
)
from alexnet_np.kernels.gemm_cuda import Prepared
from alexnet_np.models import AlexNet
from alexnet_np.plan import layers_of


class Operand(NamedTuple):
    """A weight as it is, and as a product takes it."""

    weight: Array
    prepared: Prepared


Weights = Mapping[str, Any]  # "features.0.weight" -> Operand; "features.0.bias" -> array


class Step:
    """One line of a plan. `forward` keeps what `backward` needs, if there is to be one (`keep`)."""

    algorithm = ""
    macs = 0  # of one image, as the layer defines them

    def __init__(self, name: str, layer: layers.Layer) -> None:
        self.name, self.layer = name, layer

    def forward(self, x: Array, weights: Weights, keep: bool) -> Array:
        raise NotImplementedError

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> tuple[Array | None, dict[str, Array]]:
        """dx, if the steps before this one need it, and the gradients of this step's parameters by name."""
        raise NotImplementedError


class Weighted(Step):
    """A convolution or dense layer with its bias and, where `relu`, the ReLU after it."""

    layer: layers.WeightedLayer
    what = ""
    x: Array  # of the last forward, as y is
    y: Array

    def __init__(self, name: str, layer: layers.WeightedLayer, relu: bool) -> None:
        super().__init__(name, layer)
        self.relu = relu
        self.say(self.what)

    def say(self, what: str) -> None:
        bias, relu = "" if self.layer.bias is None else " + bias", " + relu" if self.relu else ""
        self.algorithm = what + bias + relu

    def prepare(self, weight: Array) -> Operand:
        raise NotImplementedError

    def operands(self, weights: Weights) -> tuple[Operand, Array | None]:
        return weights[f"{self.name}.weight"], weights.get(f"{self.name}.bias")

    def before_relu(self, dy: Array) -> Array:
        return relu_cuda.gradients(dy, self.y) if self.relu else dy

    def needs(self, input_grad: bool) -> tuple[bool, bool, bool]:
        weight, bias = self.layer.weight, self.layer.bias
        return input_grad, weight.requires_grad, bias is not None and bias.requires_grad

    def by_name(self, dweight: Array | None, dbias: Array | None) -> dict[str, Array]:
        pairs = ((f"{self.name}.weight", dweight), (f"{self.name}.bias", dbias))
        return {name: gradient for name, gradient in pairs if gradient is not None}


class Convolution(Weighted):
    layer: layers.Conv2d
    what = "im2col + cuBLAS"

    def __init__(self, name: str, layer: layers.Conv2d, relu: bool, entering: tuple[int, ...]) -> None:
        super().__init__(name, layer, relu)
        self.geometry = ops.conv2d.find_geometry(
            layers.stand_in((1, *entering)), layer.weight.data, None, **layer.arguments()
        )
        self.macs = layer.macs((1, *entering))

    def prepare(self, weight: Array) -> Operand:
        return Operand(weight, conv2d_cuda.prepare_filters(weight, self.geometry.groups))

    def forward(self, x: Array, weights: Weights, keep: bool) -> Array:
        operand, bias = self.operands(weights)
        self.x, self.y = x, conv2d_cuda.convolve(x, *operand, bias, self.geometry, self.relu)
        way = conv2d_cuda.choose(x, operand.weight, self.geometry, planned=True).algorithm
        self.say({"im2col": "im2col + cuBLAS", "implicit": "implicit GEMM"}.get(way, way))
        return self.y

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> tuple[Array | None, dict[str, Array]]:
        weight = parameters[f"{self.name}.weight"]
        dx, *rest = conv2d_cuda.gradients(self.before_relu(dy), self.x, weight, self.geometry, self.needs(needs))
        return dx, self.by_name(*rest)


class Dense(Weighted):
    layer: layers.Linear
    what = "cuBLAS"

    def __init__(self, name: str, layer: layers.Linear, relu: bool) -> None:
        super().__init__(name, layer, relu)
        self.macs = math.prod(layer.weight.shape)

    def prepare(self, weight: Array) -> Operand:
        return Operand(weight, linear_cuda.prepare_weight(weight))

    def forward(self, x: Array, weights: Weights, keep: bool) -> Array:
        operand, bias = self.operands(weights)
        self.x, self.y = x, linear_cuda.multiply(x, *operand, bias, self.relu)
        way = linear_cuda.choose(x, operand.weight, planned=True).algorithm
        self.say({"cublas": "cuBLAS", "rows": "a warp an output"}.get(way, way))
        return self.y

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> tuple[Array | None, dict[str, Array]]:
        weight = parameters[f"{self.name}.weight"]
        dx, *rest = linear_cuda.gradients(self.before_relu(dy), self.x, weight, self.needs(needs))
        return dx, self.by_name(*rest)


class Relu(Step):
    """One that no convolution or dense layer comes right before."""

    algorithm = "relu"

    def forward(self, x: Array, weights: Weights, keep: bool) -> Array:
        self.y = relu_cuda.compute(x)
        return self.y

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> tuple[Array | None, dict[str, Array]]:
        return relu_cuda.gradients(dy, self.y) if needs else None, {}


class MaxPool(Step):
    def __init__(self, name: str, layer: layers.MaxPool2d, entering: tuple[int, ...]) -> None:
        super().__init__(name, layer)
        self.geometry = ops.max_pool2d.find_geometry(layers.stand_in((1, *entering)), **layer.arguments())
        (KH, KW), (SH, SW) = self.geometry.kernel, self.geometry.stride
        self.algorithm = f"max {KH}x{KW}/{SH}" + (f"x{SW}" if SH != SW else "")

    def forward(self, x: Array, weights: Weights, keep: bool) -> Array:
        if not keep:
            return max_pool2d_cuda.pool(x, self.geometry)
        self.shape = x.shape
        y, self.switches = max_pool2d_cuda.compute(x, self.geometry)
        return y

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> tuple[Array | None, dict[str, Array]]:
        return max_pool2d_cuda.gradients(dy, self.switches, self.shape, self.geometry) if needs else None, {}


class Normalise(Step):
    algorithm = "window over channels"

    def __init__(self, name: str, layer: layers.LocalResponseNorm) -> None:
        super().__init__(name, layer)
        self.geometry = ops.local_response_norm.find_geometry(**layer.arguments())

    def forward(self, x: Array, weights: Weights, keep: bool) -> Array:
        self.x = x.reshape(*x.shape[:2], -1)
        return local_response_norm_cuda.compute(self.x, self.geometry).reshape(x.shape)

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> tuple[Array | None, dict[str, Array]]:
        if not needs:
            return None, {}
        dx = local_response_norm_cuda.gradients(dy.reshape(self.x.shape), self.x, self.geometry)
        return dx.reshape(dy.shape), {}


class Average(Step):
    layer: layers.AdaptiveAvgPool2d

    def __init__(self, name: str, layer: layers.AdaptiveAvgPool2d, entering: tuple[int, ...]) -> None:
        super().__init__(name, layer)
        self.output = ops.adaptive_avg_pool2d.find_output(layer.output_size, entering[1:])
        self.algorithm = f"average to {self.output[0]}x{self.output[1]}"

    def forward(self, x: Array, weights: Weights, keep: bool) -> Array:
        self.shape = x.shape
        return adaptive_avg_pool2d_cuda.compute(x, self.output)

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> tuple[Array | None, dict[str, Array]]:
        return adaptive_avg_pool2d_cuda.gradients(dy, self.shape) if needs else None, {}


class Dropout(Step):
    """In training. `seed`, one uint64, is given before recording; its mask is drawn twice rather than kept."""

    layer: layers.Dropout
    seed: Array

    def __init__(self, name: str, layer: layers.Dropout) -> None:
        super().__init__(name, layer)
        self.algorithm = f"Philox, p = {layer.p:g}"

    def forward(self, x: Array, weights: Weights, keep: bool) -> Array:
        return dropout_cuda.compute_seeded(x, self.layer.p, self.seed)

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> tuple[Array | None, dict[str, Array]]:
        return dropout_cuda.compute_seeded(dy, self.layer.p, self.seed) if needs else None, {}


class Flatten(Step):
    algorithm = "a view"

    def forward(self, x: Array, weights: Weights, keep: bool) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> tuple[Array | None, dict[str, Array]]:
        return dy.reshape(self.shape), {}


def steps_of(model: AlexNet, size: tuple[int, int], training: bool) -> Iterator[Step]:
    """The steps for images of `size`. Raises ArgumentError for a layer that no plan knows."""
    for name, layer, relu, entering, _ in layers_of(model, size):
        step = find_step(name, layer, relu, entering)
        changes_nothing = isinstance(step, Average) and step.output == entering[1:]
        changes_nothing |= isinstance(step, Dropout) and (not training or step.layer.p == 0)
        if not changes_nothing:
            yield step


def find_step(name: str, layer: layers.Layer, relu: bool, entering: tuple[int, ...]) -> Step:
    if isinstance(layer, layers.Conv2d):
        return Convolution(name, layer, relu, entering)
    if isinstance(layer, layers.Linear):
        return Dense(name, layer, relu)
    if isinstance(layer, layers.MaxPool2d):
        return MaxPool(name, layer, entering)
    if isinstance(layer, layers.AdaptiveAvgPool2d):
        return Average(name, layer, entering)
    simple = {
        layers.ReLU: Relu,
        layers.LocalResponseNorm: Normalise,
        layers.Dropout: Dropout,
        layers.Flatten: Flatten,
    }
    if type(layer) in simple:
        return simple[type(layer)](name, layer)
    raise ArgumentError(f"compile: no plan on the GPU for {name} ({layer!r}); call the model itself")
