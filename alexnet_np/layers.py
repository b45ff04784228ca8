"""Layers: an op's hyper-parameters, its parameters and their gradients, and hooks. No math: that is alexnet_np/ops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import numpy as np

from alexnet_np import ops
from alexnet_np.backend import use_backend
from alexnet_np.device import Array
from alexnet_np.errors import AlexNetError, ArgumentError, ShapeError
from alexnet_np.hooks import Hookable

Shape = tuple[int, ...]

_grad_enabled: ContextVar[bool] = ContextVar("alexnet_np_grad_enabled", default=True)


@contextmanager
def no_grad() -> Iterator[None]:
    """Forward passes inside keep nothing for backward, as torch.no_grad."""
    token = _grad_enabled.set(False)
    try:
        yield
    finally:
        _grad_enabled.reset(token)


class Parameter:
    """An array that training changes: `data`, its gradient `grad` (None until a backward), and `requires_grad`."""

    def __init__(self, data: Array, fan_in: int) -> None:
        self.data = data
        self.grad: Array | None = None
        self.requires_grad = True
        self.fan_in = fan_in  # inputs that one output sums over: what initialisation scales by

    @property
    def shape(self) -> Shape:
        return self.data.shape

    def accumulate(self, gradient: Array | None) -> None:
        """Add to `grad`, as torch does. The first gradient is kept as it is: ops return arrays of their own."""
        if gradient is not None:
            self.grad = gradient if self.grad is None else self.grad + gradient

    def __repr__(self) -> str:
        return f"Parameter{self.shape} {self.data.dtype}{'' if self.requires_grad else ', frozen'}"


class Layer(Hookable):
    """One step of a network. Subclasses name their op and its arguments.

    No layer ever writes into an array it was given or has handed out, so what a hook keeps stays as it was.
    """

    op: Any = None  # the module in alexnet_np/ops

    def __init__(self) -> None:
        super().__init__()
        self.training = True
        self.backend: str | None = None  # None: the one chosen by use_backend, else the array operations
        self._cache: Any = None

    def __call__(self, x: Array) -> Array:
        with nullcontext() if self.backend is None else use_backend(self.backend):
            y, cache = self.forward(x)
        self.keep(cache)
        return self.hooked_output(x, y)

    def backward(self, dy: Array, input_grad: bool = True, retain_graph: bool = True) -> Array | None:
        """Add this layer's parameter gradients to their `.grad`; return dx, or None if it was not asked for.

        It may be called again for another dy: what forward kept stays until the next forward. With retain_graph=False
        it is dropped here, as torch does by default, which leaves a training step its memory for the next gradients.
        """
        self.kept()
        with nullcontext() if self.backend is None else use_backend(self.backend):
            dx = self.gradients(dy, input_grad)
        if not retain_graph:
            self.keep(None)
        return self.hooked_gradient(dx, dy)

    def keep(self, cache: Any) -> None:
        """Hold `cache`, what forward leaves for backward, unless gradients are off."""
        self._cache = cache if _grad_enabled.get() else None

    def kept(self) -> Any:
        """What forward left for backward. Raises AlexNetError if there is nothing."""
        if self._cache is None:
            raise AlexNetError(f"{self!r}: backward needs a forward first, outside no_grad()")
        return self._cache

    def forward(self, x: Array) -> tuple[Array, Any]:
        return self.op.forward(x, **self.arguments())

    def gradients(self, dy: Array, input_grad: bool) -> Array | None:
        """dx from the op's backward."""
        return self.op.backward(dy, self._cache)

    def arguments(self) -> dict[str, Any]:
        """The op's keyword arguments."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of `shape`. Raises ShapeError where the input does not fit."""
        return shape

    def macs(self, shape: Shape) -> int:
        """Multiply-accumulates for an input of `shape`: those of convolutions and dense layers, as is customary."""
        return 0

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """(name, layer) for every layer that is not a container, in the order they run."""
        yield prefix, self

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) for every layer inside, in the order they run, weight before bias."""
        for name, layer in self.leaves(prefix):
            if isinstance(layer, WeightedLayer):
                yield from layer.named_parameters(name)

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in self.arguments().items())})"


def stand_in(shape: Shape) -> Array:
    """An array of `shape` that takes no memory, for asking an op about shapes."""
    return np.broadcast_to(np.float32(0), shape)


class WeightedLayer(Layer):
    """A layer with a weight and perhaps a bias, which its op takes after x."""

    def __init__(self, weight_shape: Shape, fan_in: int, bias: bool) -> None:
        super().__init__()
        # Zeros until whoever builds the network fills them (alexnet_np/initialisation.py, or a weight file).
        self.weight = Parameter(np.zeros(weight_shape, np.float32), fan_in)
        self.bias = Parameter(np.zeros(weight_shape[0], np.float32), fan_in) if bias else None

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        dot = f"{prefix}." if prefix else ""
        yield f"{dot}weight", self.weight
        if self.bias is not None:
            yield f"{dot}bias", self.bias

    def forward(self, x: Array) -> tuple[Array, Any]:
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
    ) -> None:
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(f"Conv2d: channels {in_channels}, {out_channels} must be multiples of groups={groups}")
        KH, KW = ops.checks.pair("Conv2d", "kernel_size", kernel_size, 1)
        CG = in_channels // groups
        super().__init__((out_channels, CG, KH, KW), CG * KH * KW, bias)
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

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__((out_features, in_features), in_features, bias)

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
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode

    def arguments(self) -> dict[str, Any]:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return {name: getattr(self, name) for name in names}

    def output_shape(self, shape: Shape) -> Shape:
        x, _ = ops.checks.batched("max_pool2d", stand_in(shape))
        return (*shape[:-2], *ops.max_pool2d.find_geometry(x, **self.arguments()).output)

    def __repr__(self) -> str:
        return f"MaxPool2d(kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding})"


class AdaptiveAvgPool2d(Layer):
    """See alexnet_np/ops/adaptive_avg_pool2d.py."""

    op = ops.adaptive_avg_pool2d

    def __init__(self, output_size: Any) -> None:
        super().__init__()
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

    def forward(self, x: Array) -> tuple[Array, Any]:
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
        self.p, self.seed, self.calls = p, seed, 0

    def arguments(self) -> dict[str, Any]:
        return {"p": self.p}

    def forward(self, x: Array) -> tuple[Array, Any]:
        if not self.training:
            return self.op.forward(x, p=self.p, training=False)
        seed = (self.seed & 0xFFFFFFFF) << 32 | self.calls & 0xFFFFFFFF
        self.calls += 1
        return self.op.forward(x, p=self.p, training=True, seed=seed)


class Flatten(Layer):
    """See alexnet_np/ops/flatten.py."""

    op = ops.flatten

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def arguments(self) -> dict[str, Any]:
        return {"start_dim": self.start_dim, "end_dim": self.end_dim}

    def output_shape(self, shape: Shape) -> Shape:
        return self.op.forward(stand_in(shape), **self.arguments())[0].shape
