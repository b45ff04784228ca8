"""Layers that a backend computes together: a convolution, the ReLU after it, and perhaps the max pooling after that.

Only the way is shorter. Every layer keeps for its backward what it keeps when it runs alone (the convolution its input,
ReLU its output, pooling its switches), so forward and backward may each be fused or not, and layers be called singly.
Layers on which a hook listens are not fused: the hook is promised what lies between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any

import numpy as np

from alexnet_np import ops
from alexnet_np.backend import fused_implementation, use_backend
from alexnet_np.device import Array
from alexnet_np.layer import Layer
from alexnet_np.ops.checks import gradient
from alexnet_np.parameters import Parameter


def units(sequence: Sequence[Layer]) -> list[Any]:
    """The layers in order, those that may be fused taken together."""
    taken: list[Any] = []
    rest = list(sequence)
    while rest:
        together = fusible(rest)
        taken.append(Fused(rest[:together]) if together else rest[0])
        rest = rest[max(1, together) :]
    return taken


def fusible(rest: Sequence[Layer]) -> int:
    """How many of the first layers run together: 3 (convolution, ReLU, max pooling), 2 (without pooling), or 0."""
    count = 0
    for layer, op in zip(rest, (ops.conv2d, ops.relu, ops.max_pool2d), strict=False):
        # `op` of the class itself: a layer derived from ours may compute something else
        if vars(type(layer)).get("op") is not op or layer.hooked or layer.backend != rest[0].backend:
            break
        if getattr(layer, "ties", "first") != "first":  # what a fused backward keeps are the switches
            break
        count += 1
    return count if count > 1 else 0


class Fused:
    """One convolution with its ReLU and perhaps a max pooling; called and gone back through like a layer."""

    def __init__(self, together: Sequence[Any]) -> None:
        self.layers = list(together)
        self.conv, self.relu = self.layers[:2]
        self.pool: Any = self.layers[2] if len(self.layers) > 2 else None
        self.backend = self.conv.backend

    def parameters(self) -> Iterator[Parameter]:
        return chain.from_iterable(layer.parameters() for layer in self.layers)

    def __call__(self, x: Array) -> Array:
        with nullcontext() if self.backend is None else use_backend(self.backend):
            together = kernel(x)
            if together is None:
                for layer in self.layers:
                    x = layer(x)
                return x
            return self._forward(together, x)

    def backward(self, dy: Array, input_grad: bool = True, retain_graph: bool = False) -> Array | None:
        with nullcontext() if self.backend is None else use_backend(self.backend):
            caches = [layer.kept() for layer in self.layers]
            together = kernel(caches[0].x)
            if together is None or caches[0].unbatched:
                return self._one_by_one(dy, input_grad, retain_graph)
            dx = self._gradients(together, dy, input_grad, *caches)
        if not retain_graph:
            for layer in self.layers:
                layer.spend()
        return dx

    def _forward(self, together: Any, x: Array) -> Array:
        bias = None if self.conv.bias is None else self.conv.bias.data
        bias, cache = ops.conv2d.checked(x, self.conv.weight.data, bias, **self.conv.arguments())
        windows: Any = None
        if self.pool is not None:
            F = len(cache.weight)
            between = np.broadcast_to(np.float32(0), (len(cache.x), F, *cache.geometry.output))
            windows = ops.max_pool2d.find_geometry(between, **self.pool.arguments())
        y, pooled = together.compute(cache.x, cache.weight, bias, cache.geometry, windows)
        self.conv.keep(cache)
        self.relu.keep(y)
        if self.pool is None:
            return y
        self.pool.keep(ops.max_pool2d.Cache(y, pooled.switches, windows, unbatched=False))
        return pooled.y

    def _gradients(self, together: Any, dy: Array, input_grad: bool, conv: Any, y: Array, pool: Any = None) -> Any:
        switches, windows = (None, None) if pool is None else (pool.switches, pool.geometry)
        name, shape = ("relu", y.shape) if pool is None else ("max_pool2d", pool.switches.shape)
        dy = gradient(name, dy, shape, y)
        needs = self.conv.needs(input_grad)
        return self.conv.accumulate(
            *together.gradients(dy, y, conv.x, conv.weight, conv.geometry, needs, switches, windows)
        )

    def _one_by_one(self, dy: Array, input_grad: bool, retain_graph: bool) -> Array | None:
        for layer in reversed(self.layers[1:]):
            dy = layer.backward(dy, True, retain_graph)
        return self.conv.backward(dy, input_grad, retain_graph)


def kernel(x: Array) -> Any:
    """The module that computes these layers together on the batch x, or None: then they run one by one."""
    here = isinstance(x, np.ndarray) and x.ndim == 4 and x.dtype == np.float32
    return fused_implementation("conv2d_relu_max_pool2d", x) if here else None
