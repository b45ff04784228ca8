"""What every layer is: forward, backward, what is kept between the two, and torch's ways of walking over a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from contextvars import ContextVar, Token
from functools import wraps
from typing import Any, Self

import numpy as np

from alexnet_np import arguments
from alexnet_np.backend import use_backend
from alexnet_np.device import Array
from alexnet_np.errors import AlexNetError
from alexnet_np.hooks import Hookable
from alexnet_np.parameters import Parameter

Shape = tuple[int, ...]

SPENT = object()  # kept in the place of what a backward has used up

_grad_enabled: ContextVar[bool] = ContextVar("alexnet_np_grad_enabled", default=True)


class no_grad:  # noqa: N801 - torch's name
    """Forward passes inside keep nothing for backward, as torch.no_grad. A decorator as well: `@no_grad()`."""

    def __init__(self) -> None:
        self._tokens: list[Token[bool]] = []

    def __enter__(self) -> None:
        self._tokens.append(_grad_enabled.set(False))

    def __exit__(self, *exc: object) -> None:
        _grad_enabled.reset(self._tokens.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*given: Any, **options: Any) -> Any:
            with no_grad():
                return function(*given, **options)

        return run

    def __repr__(self) -> str:
        return "no_grad()"


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

    def __call__(self, x: Any) -> Array:
        x = self.hooked_input(x)
        return self.hooked_output(x, self.forward(x))

    def forward(self, x: Any) -> Array:
        """y as a call gives it, but without this layer's own hooks, as in torch."""
        with nullcontext() if self.backend is None else use_backend(self.backend):
            y, cache = self.compute(x)
        self.keep(cache)
        return y

    def backward(self, dy: Array, input_grad: bool = True, retain_graph: bool = False) -> Array | None:
        """Add this layer's parameter gradients to their `.grad`; return dx, or None if it was not asked for.

        What forward kept is dropped here, as torch does, which leaves a training step its memory for the next
        gradients. With retain_graph=True it stays until the next forward, and backward may be called again.
        Raises AlexNetError where there is nothing to go back through.
        """
        retain_graph = arguments.flag("backward", "retain_graph", retain_graph)
        input_grad = arguments.flag("backward", "input_grad", input_grad)
        self.kept()
        with nullcontext() if self.backend is None else use_backend(self.backend):
            dx = self.gradients(dy, input_grad)
        if not retain_graph:
            self.spend()
        return self.hooked_gradient(dx, dy)

    def keep(self, cache: Any) -> None:
        """Hold `cache`, what forward leaves for backward, unless gradients are off."""
        self._cache = cache if _grad_enabled.get() else None

    def spend(self) -> None:
        """Drop what forward left."""
        self._cache = SPENT

    def kept(self) -> Any:
        """What forward left for backward. Raises AlexNetError if there is nothing."""
        if self._cache is SPENT:
            raise AlexNetError(
                f"{self!r}: a second backward, and what forward kept is dropped by the first; give that one "
                "retain_graph=True, or run forward again"
            )
        if self._cache is None:
            raise AlexNetError(f"{self!r}: backward needs a forward first, outside no_grad()")
        return self._cache

    def compute(self, x: Any) -> tuple[Array, Any]:
        """y, and what backward needs of it."""
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

    # Walking over a network

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """(name, layer) for every layer that is not a container, in the order they run."""
        yield prefix, self

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        """(name, layer) for what this layer directly holds, named as torch names it."""
        yield from ()

    def children(self) -> Iterator[Layer]:
        return (layer for _, layer in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """(name, layer) for this layer, named "", and everything inside, containers first, as in torch."""
        yield prefix, self
        for name, layer in self.named_children():
            yield from layer.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Layer]:
        return (layer for _, layer in self.named_modules())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) for every layer inside, in the order they run, weight before bias."""
        for name, layer in self.leaves(prefix):
            if layer is not self:
                yield from layer.named_parameters(name)

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many numbers the parameters hold; `only_trainable`: without those that are frozen."""
        only = arguments.flag("num_parameters", "only_trainable", only_trainable)
        return sum(p.size for p in self.parameters() if p.requires_grad or not only)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or thaw (True) every parameter inside."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Drop every gradient, as torch does."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on (and nothing else: there is nothing else)."""
        mode = arguments.flag("train", "mode", mode)
        for layer in self.modules():
            layer.training = mode
        return self

    def eval(self) -> Self:
        """Switch dropout off. backward works as before."""
        return self.train(False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in self.arguments().items())})"


def check_layer(where: str, layer: Any) -> Layer:
    """`layer` if it is one. Raises ArgumentError."""
    return arguments.instance(where, "a layer", layer, Layer, "a layer of alexnet_np.layers")


def stand_in(shape: Shape) -> Array:
    """An array of `shape` that takes no memory, for asking an op about shapes."""
    return np.broadcast_to(np.float32(0), arguments.shape("output_shape", "shape", shape))
