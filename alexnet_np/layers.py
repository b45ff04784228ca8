"""Every kind of layer: an op's hyper-parameters and, where it has them, its parameters. No math: that is in ops."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np

from alexnet_np import arguments, ops
from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError, ShapeError
from alexnet_np.initialisation import initialise
from alexnet_np.layer import Layer, Shape, no_grad, stand_in
from alexnet_np.ops import pooling
from alexnet_np.parameters import Parameter
from alexnet_np.sequential import Sequential

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "Conv2d",
    "Dropout",
    "Flatten",
    "Identity",
    "Layer",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "Parameter",
    "ReLU",
    "Sequential",
    "Shape",
    "Sigmoid",
    "Tanh",
    "WeightedLayer",
    "no_grad",
    "stand_in",
    "unfilled",
]

_filling: ContextVar[str] = ContextVar("alexnet_np_filling", default="random numbers")


@contextmanager
def unfilled(looking: bool = False) -> Iterator[None]:
    """Layers made inside hold zeros, not random numbers, for whoever fills them right after; `looking`: no numbers at
    all, which take no memory, for whoever looks at the layers only."""
    token = _filling.set("nothing" if looking else "zeros")
    try:
        yield
    finally:
        _filling.reset(token)


class WeightedLayer(Layer):
    """A layer with a weight and perhaps a bias, which its op takes after x. They start as torch's do."""

    def __init__(self, weight_shape: Shape, fan_in: int, bias: bool, seed: int | None) -> None:
        super().__init__()
        name = type(self).__name__
        has_bias = arguments.flag(name, "bias", bias)
        arguments.room(name, "the weight", weight_shape)
        filling = _filling.get()
        make = stand_in if filling == "nothing" else partial(np.zeros, dtype=np.float32)
        self.weight = Parameter(make(weight_shape), fan_in)
        self.bias = Parameter(make(weight_shape[:1]), fan_in) if has_bias else None
        if filling == "random numbers":
            initialise(self.named_parameters(), secrets.randbits(32) if seed is None else arguments.seed(name, seed))

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        dot = f"{prefix}." if prefix else ""
        yield f"{dot}weight", self.weight
        if self.bias is not None:
            yield f"{dot}bias", self.bias

    def compute(self, x: Array) -> tuple[Array, Any]:
        bias = None if self.bias is None else self.bias.data
        return self.op.forward(x, self.weight.data, bias, **self.arguments())

    def gradients(self, dy: Array, input_grad: bool) -> Array | None:
        return self.accumulate(*self.op.backward(dy, self._cache, self.needs(input_grad)))

    def needs(self, input_grad: bool) -> tuple[bool, bool, bool]:
        """Which of dx, dweight and dbias are wanted."""
        return input_grad, self.weight.requires_grad, self.bias is not None and self.bias.requires_grad

    def accumulate(self, dx: Array | None, dweight: Array | None, dbias: Array | None) -> Array | None:
        """Add the parameters' gradients to theirs; dx is for the layer before."""
        self.weight.accumulate(dweight)
        if self.bias is not None:
            self.bias.accumulate(dbias)
        return dx


class Conv2d(WeightedLayer):
    """See alexnet_np/ops/conv2d.py."""

    op = ops.conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        seed: int | None = None,
    ) -> None:
        given = {"in_channels": in_channels, "out_channels": out_channels, "groups": groups}
        for name, value in given.items():
            arguments.integer("Conv2d", name, value, 1)
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(f"Conv2d: channels {in_channels}, {out_channels} must be multiples of groups={groups}")
        KH, KW = arguments.pair("Conv2d", "kernel_size", kernel_size, 1)
        steps, spread = arguments.pair("Conv2d", "stride", stride, 1), arguments.pair("Conv2d", "dilation", dilation, 1)
        ops.conv2d.find_padding(padding, (KH, KW), steps, spread)
        CG = in_channels // groups
        super().__init__((out_channels, CG, KH, KW), CG * KH * KW, bias, seed)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def arguments(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def output_shape(self, shape: Shape) -> Shape:
        x, _ = ops.checks.batched("conv2d", stand_in(shape))
        geometry = ops.conv2d.find_geometry(x, self.weight.data, None, **self.arguments())
        return (*shape[:-3], self.weight.shape[0], *geometry.output)

    def macs(self, shape: Shape) -> int:
        return math.prod(self.output_shape(shape)) * self.weight.fan_in

    def __repr__(self) -> str:
        F, CG, KH, KW = self.weight.shape
        described = f"{CG * self.groups}, {F}, kernel_size=({KH}, {KW}), stride={self.stride}, padding={self.padding}"
        return f"Conv2d({described}{f', groups={self.groups}' if self.groups > 1 else ''})"


class Linear(WeightedLayer):
    """See alexnet_np/ops/linear.py."""

    op = ops.linear

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, seed: int | None = None) -> None:
        inputs = arguments.integer("Linear", "in_features", in_features, 0)
        super().__init__((arguments.integer("Linear", "out_features", out_features, 1), inputs), inputs, bias, seed)

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    def output_shape(self, shape: Shape) -> Shape:
        if shape[-1] != self.in_features:
            raise ShapeError(f"linear: input has {shape[-1]} features, the layer takes {self.in_features}")
        return (*shape[:-1], self.out_features)

    def macs(self, shape: Shape) -> int:
        return math.prod(self.output_shape(shape)) * self.in_features

    def __repr__(self) -> str:
        return f"Linear(in_features={self.in_features}, out_features={self.out_features})"


class MaxPool2d(Layer):
    """See alexnet_np/ops/max_pool2d.py."""

    op = ops.max_pool2d

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        pooling.find_windows("max_pool2d", kernel_size, stride, padding, dilation, ceil_mode)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode
        self.ties = "first"  # or "all": who gets the gradient where several pixels are the maximum

    def arguments(self) -> dict[str, Any]:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return {name: getattr(self, name) for name in names}

    def compute(self, x: Any) -> tuple[Array, Any]:
        return ops.max_pool2d.forward(x, **self.arguments(), ties=self.ties)

    def output_shape(self, shape: Shape) -> Shape:
        x, _ = ops.checks.batched("max_pool2d", stand_in(shape))
        return (*shape[:-2], *ops.max_pool2d.find_geometry(x, **self.arguments()).output)

    def __repr__(self) -> str:
        return f"MaxPool2d(kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding})"


class AvgPool2d(Layer):
    """See alexnet_np/ops/avg_pool2d.py."""

    op = ops.avg_pool2d

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        pooling.find_windows("avg_pool2d", kernel_size, stride, padding, ceil_mode=ceil_mode)
        ops.avg_pool2d.find_rule(count_include_pad, divisor_override)
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def arguments(self) -> dict[str, Any]:
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
        return {name: getattr(self, name) for name in names}

    def output_shape(self, shape: Shape) -> Shape:
        x, _ = ops.checks.batched("avg_pool2d", stand_in(shape))
        return (*shape[:-2], *ops.avg_pool2d.find_geometry(x, **self.arguments()).output)

    def __repr__(self) -> str:
        return f"AvgPool2d(kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding})"


class AdaptiveAvgPool2d(Layer):
    """See alexnet_np/ops/adaptive_avg_pool2d.py."""

    op = ops.adaptive_avg_pool2d

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        ops.adaptive_avg_pool2d.find_output(output_size, (1, 1))
        self.output_size = output_size

    def arguments(self) -> dict[str, Any]:
        return {"output_size": self.output_size}

    def output_shape(self, shape: Shape) -> Shape:
        return (*shape[:-2], *ops.adaptive_avg_pool2d.find_output(self.output_size, shape[-2:]))


class ReLU(Layer):
    """See alexnet_np/ops/relu.py."""

    op = ops.relu


class Tanh(Layer):
    """See alexnet_np/ops/tanh.py."""

    op = ops.tanh


class Sigmoid(Layer):
    """See alexnet_np/ops/sigmoid.py."""

    op = ops.sigmoid


class Identity(Layer):
    """y = x. Stands where a layer was taken out, so that the others keep their names."""

    def compute(self, x: Array) -> tuple[Array, Any]:
        return x, x

    def gradients(self, dy: Array, input_grad: bool) -> Array:
        return dy


class LocalResponseNorm(Layer):
    """See alexnet_np/ops/local_response_norm.py, which says how `convention` matters."""

    op = ops.local_response_norm

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        convention: str = "torch",
        region: ops.local_response_norm.Region = "across",
        groups: int = 1,
    ) -> None:
        super().__init__()
        ops.local_response_norm.find_geometry(size, alpha, beta, k, convention, region, groups)
        self.size, self.alpha, self.beta, self.k, self.convention = size, alpha, beta, k, convention
        self.region, self.groups = region, groups

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("size", "alpha", "beta", "k", "convention", "region", "groups")}


class Dropout(Layer):
    """See alexnet_np/ops/dropout.py. The mask is a function of the layer's seed and of how often it was called.

    `seed` (32 bits) and `calls` together are all the state there is: set both to repeat a mask.
    """

    op = ops.dropout

    def __init__(self, p: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        self.p, self.seed, self.calls = arguments.number("Dropout", "p", p, 0, 1), arguments.seed("Dropout", seed), 0
        self.row = 0  # of the batch that x's first row is, where x is a part of one
        self.columns: tuple[int, int] | None = None  # likewise: the first of x's features, and how many there are

    def arguments(self) -> dict[str, Any]:
        return {"p": self.p}

    def compute(self, x: Array) -> tuple[Array, Any]:
        if not self.training:
            return self.op.forward(x, p=self.p, training=False)
        seed = (self.seed & 0xFFFFFFFF) << 32 | self.calls & 0xFFFFFFFF
        self.calls += 1
        if self.columns is None:
            return self.op.forward(x, p=self.p, training=True, seed=seed, first=self.row * math.prod(x.shape[1:]))
        mask = ops.dropout.columns_of_mask(x, self.p, seed, self.row, self.columns)
        return self.op.forward(x, p=self.p, training=True, mask=mask)


class Flatten(Layer):
    """See alexnet_np/ops/flatten.py."""

    op = ops.flatten

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = arguments.integer("Flatten", "start_dim", start_dim)
        self.end_dim = arguments.integer("Flatten", "end_dim", end_dim)

    def arguments(self) -> dict[str, Any]:
        return {"start_dim": self.start_dim, "end_dim": self.end_dim}

    def output_shape(self, shape: Shape) -> Shape:
        return self.op.forward(stand_in(shape), **self.arguments())[0].shape
