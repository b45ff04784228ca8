"""The steps of a plan on the GPU: what each layer of a model launches, forward and backward, as a tape records it.

A step is given and gives ghosts (alexnet_np/kernels/gpu/tape.py): it says what is to be computed, on no memory yet.
Bias and ReLU are part of the convolution or dense layer before them; flattening launches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from alexnet_np import layers
from alexnet_np.device import Array
from alexnet_np.kernels import (
    adaptive_avg_pool2d_cuda,
    avg_pool2d_cuda,
    conv2d_cuda,
    dropout_cuda,
    linear_cuda,
    linear_int16_cuda,
    local_response_norm_cuda,
    max_pool2d_cuda,
    relu_cuda,
    sigmoid_cuda,
    tanh_cuda,
)
from alexnet_np.kernels.gemm_cuda import Prepared
from alexnet_np.plan import steps
from alexnet_np.plan.steps import Classes


class Operand(NamedTuple):
    """A weight as it is, and as a product takes it."""

    weight: Array
    prepared: Prepared


Weights = Mapping[str, Any]  # "features.0.weight" -> Operand, or Packed; "features.0.bias" -> array
Gradients = tuple[Array | None, dict[str, Array]]  # dx, and the parameters' by name


class Input(steps.Input):
    def forward(self, x: Array, weights: Weights, keep: bool = False) -> Array:
        return x


class Weighted(steps.Weighted):
    x: Array  # of the last forward, as y is
    y: Array

    def prepare(self, weight: Array) -> Any:
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


class Convolution(steps.Convolution, Weighted):
    def prepare(self, weight: Array) -> Operand:
        return Operand(weight, conv2d_cuda.prepare_filters(weight, self.geometry.groups))

    def forward(self, x: Array, weights: Weights, keep: bool = False) -> Array:
        operand, bias = self.operands(weights)
        exact = self.options.exact
        self.x, self.y = x, conv2d_cuda.convolve(x, *operand, bias, self.geometry, self.relu, exact)
        way = str(conv2d_cuda.choose(x, operand.weight, self.geometry, planned=True, exact=exact))
        self.say({"im2col": "im2col + cuBLAS", "implicit": "implicit GEMM"}.get(way, way))
        return self.y

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> Gradients:
        weight = parameters[f"{self.name}.weight"]
        dx, *rest = conv2d_cuda.gradients(self.before_relu(dy), self.x, weight, self.geometry, self.needs(needs))
        return dx, self.by_name(*rest)


class Dense(steps.Dense, Weighted):
    def prepare(self, weight: Array) -> Operand:
        return Operand(weight, linear_cuda.prepare_weight(weight))

    def forward(self, x: Array, weights: Weights, keep: bool = False) -> Array:
        operand, bias = self.operands(weights)
        self.x, self.y = x, linear_cuda.multiply(x, *operand, bias, self.relu)
        way = linear_cuda.choose(x, operand.weight, planned=True).algorithm
        self.say({"cublas": "cuBLAS", "rows": "a warp an output"}.get(way, way))
        return self.y

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> Gradients:
        weight = parameters[f"{self.name}.weight"]
        dx, *rest = linear_cuda.gradients(self.before_relu(dy), self.x, weight, self.needs(needs))
        return dx, self.by_name(*rest)


class DenseInt16(steps.Dense, Weighted):
    """Its weight is stored in 16 bits, and there is no other copy of it."""

    def prepare(self, weight: Array) -> linear_int16_cuda.Packed:
        return linear_int16_cuda.room(weight)

    def forward(self, x: Array, weights: Weights, keep: bool = False) -> Array:
        packed, bias = weights[f"{self.name}.weight"], weights.get(f"{self.name}.bias")
        way = linear_int16_cuda.choose(x, packed)
        self.say({"cublas": "cuBLAS, int16", "rows": "a warp an output, int16"}[way])
        return linear_int16_cuda.multiply(x, packed, bias, self.relu)


class Activation(steps.Activation):
    KERNELS: Mapping[str, Any] = {"relu": relu_cuda, "tanh": tanh_cuda, "sigmoid": sigmoid_cuda}

    def forward(self, x: Array, weights: Weights, keep: bool = False) -> Array:
        self.y = self.KERNELS[self.algorithm].compute(x)
        return self.y

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> Gradients:
        return self.KERNELS[self.algorithm].gradients(dy, self.y) if needs else None, {}


class MaxPool(steps.MaxPool):
    def forward(self, x: Array, weights: Weights, keep: bool = False) -> Array:
        if not keep:
            return max_pool2d_cuda.pool(x, self.geometry)
        self.shape = x.shape
        y, self.switches = max_pool2d_cuda.compute(x, self.geometry)
        return y

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> Gradients:
        return max_pool2d_cuda.gradients(dy, self.switches, self.shape, self.geometry) if needs else None, {}


class AvgPool(steps.AvgPool):
    def forward(self, x: Array, weights: Weights, keep: bool = False) -> Array:
        self.shape = x.shape
        return avg_pool2d_cuda.compute(x, self.geometry)

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> Gradients:
        return avg_pool2d_cuda.gradients(dy, self.shape, self.geometry) if needs else None, {}


class Normalise(steps.Normalise):
    def forward(self, x: Array, weights: Weights, keep: bool = False) -> Array:
        self.x = x if self.geometry.region == "within" else x.reshape(*x.shape[:2], -1)
        return local_response_norm_cuda.compute(self.x, self.geometry).reshape(x.shape)

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> Gradients:
        if not needs:
            return None, {}
        dx = local_response_norm_cuda.gradients(dy.reshape(self.x.shape), self.x, self.geometry)
        return dx.reshape(dy.shape), {}


class Average(steps.Average):
    def forward(self, x: Array, weights: Weights, keep: bool = False) -> Array:
        self.shape = x.shape
        return adaptive_avg_pool2d_cuda.compute(x, self.output)

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> Gradients:
        return adaptive_avg_pool2d_cuda.gradients(dy, self.shape) if needs else None, {}


class Dropout(steps.Dropout):
    """`seed`, one uint64, is given before recording; the mask is drawn twice rather than kept."""

    seed: Array

    def forward(self, x: Array, weights: Weights, keep: bool = False) -> Array:
        return dropout_cuda.compute_seeded(x, self.layer.p, self.seed)

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> Gradients:
        return dropout_cuda.compute_seeded(dy, self.layer.p, self.seed) if needs else None, {}


class Flatten(steps.Flatten):
    def forward(self, x: Array, weights: Weights, keep: bool = False) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: Array, needs: bool, parameters: Weights) -> Gradients:
        return dy.reshape(self.shape), {}


STEPS: Classes = {
    layers.Identity: Input,
    layers.Conv2d: Convolution,
    layers.Linear: Dense,
    layers.ReLU: Activation,
    layers.Tanh: Activation,
    layers.Sigmoid: Activation,
    layers.MaxPool2d: MaxPool,
    layers.AvgPool2d: AvgPool,
    layers.LocalResponseNorm: Normalise,
    layers.AdaptiveAvgPool2d: Average,
    layers.Dropout: Dropout,
    layers.Flatten: Flatten,
}
