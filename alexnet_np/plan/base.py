"""What the inference plans of both devices share: checks, turns, results, and how a plan is copied."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import layers
from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError, BackendError, DtypeError, ShapeError
from alexnet_np.models import AlexNet
from alexnet_np.plan import images, layout
from alexnet_np.text import html_lines

Shape = tuple[int, ...]
Results = dict[str, Array]  # by the caller's names


class Request(NamedTuple):
    """What `compile` was asked for."""

    model: AlexNet
    max_batch: int
    outputs: tuple[str, ...] | None
    exact: bool
    size: tuple[int, int]
    precision: str | None = None  # of products on the GPU
    forget: bool = False  # drop the model's weights as they are packed
    dense: str = "float32"  # how dense weights are stored
    at_once: int = 1  # plans that run at the same time, and share the processor's cache


class InferencePlan:
    """A model compiled for inference: see `alexnet_np.plan.compile`.

    The weights are copies: after training further, call `refresh()`. Calls from several threads take turns, since they
    share the buffers. Copied, or sent to another process, a plan is compiled anew there, from its model as it is then.
    """

    def __init__(self, request: Request) -> None:
        self.request, self.model, self.max_batch = request, request.model, request.max_batch
        self._lock = threading.Lock()
        self._made_of = description(self.model)
        self._taken: Shape = ()  # (C,H,W) of the last images
        self._shapes: tuple[Shape, dict[str, Shape]] = ((), {})  # of the outputs, for one size of image

    def __call__(self, x: Any, out: Any = None) -> Any:
        """Logits (N,num_classes) float32 of x, N up to max_batch; with `outputs`, a dict of name -> array.

        `x`: float32 (N,C,H,W) where the plan is; or uint8 (N,H,W,C), which the plan itself normalises to the very bits
        of the preset's `preprocess`; on a GPU from there or from the host, best from `pinned_input`. `out`: what to
        write to, float32 of the output's shape (a dict of such where there are names), where not even the results are
        to be allocated; on a GPU in C order. There a call is queued on the caller's stream, not waited for.
        Hooks do not fire. Raises ShapeError, DtypeError, ArgumentError, BackendError.
        """
        x, shape = images.checked(self.model, x, self._taken)
        self._taken = shape[1:]
        x = self._placed(x)
        if shape[0] > self.max_batch:
            raise ArgumentError(f"plan: {shape[0]} images, but it was compiled with max_batch={self.max_batch}")
        with self._lock:
            results = self._results(shape, out)
            if shape[0]:
                self._run(x, shape, results)
        return results[layout.LOGITS] if self.request.outputs is None else results

    def _repr_html_(self) -> str:
        """What a notebook shows: the steps, a line each."""
        return html_lines(repr(self))

    def refresh(self) -> None:
        """Read the model's weights again, after they have changed.

        Raises ShapeError, BackendError, ArgumentError where the model is another by now.
        """
        self._check_remembers("refreshed")
        with self._lock:
            self._check_model()
            self._refresh()

    def _check_remembers(self, what: str) -> None:
        if self.request.forget:
            raise ArgumentError(f"plan: it cannot be {what}, its model's weights are dropped; compile without forget")

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_remembers("copied")
        return type(self), (self.request,)

    # What a device adds.

    def _placed(self, x: Array) -> Array:
        """x as `_run` takes it. Raises BackendError where it is not where the plan is."""
        raise NotImplementedError

    def _run(self, x: Array, shape: Shape, results: Results) -> None:
        """The outputs of x into `results`; `shape` is x's as (N,C,H,W), N at least 1."""
        raise NotImplementedError

    def _refresh(self) -> None:
        raise NotImplementedError

    def _empty(self, shape: Shape) -> Array:
        """Where to write results of that shape."""
        raise NotImplementedError

    def _owns(self, array: Any) -> bool:
        """Whether `array` lies where the plan is."""
        raise NotImplementedError

    def _name_of(self, array: Any) -> str:
        """Where `array` is, in words."""
        raise NotImplementedError

    # What both do.

    def _results(self, shape: Shape, out: Any) -> Results:
        shapes = {name: (shape[0], *of_one) for name, of_one in self._output_shapes(shape[2:]).items()}
        if out is None:
            return {name: self._empty(of_all) for name, of_all in shapes.items()}
        given = {layout.LOGITS: out} if self.request.outputs is None else out
        if not isinstance(given, Mapping) or set(given) != set(shapes):
            raise ArgumentError(f"plan: out must be a dict of arrays for {', '.join(shapes)}")
        for name, of_all in shapes.items():
            self._check_out("out" if given is not out else f"out[{name!r}]", given[name], of_all)
        return dict(given)

    def _check_out(self, name: str, out: Any, shape: Shape) -> None:
        if not self._owns(out):
            raise BackendError(f"plan: {name} is {self._name_of(out)}, not where the plan is")
        if out.dtype != np.float32:
            raise DtypeError(f"plan: {name} must be float32, got {out.dtype}")
        if out.shape != shape:
            raise ShapeError(f"plan: {name} must be {shape}, got {out.shape}")

    def _output_shapes(self, size: Shape) -> dict[str, Shape]:
        if self._shapes[0] != size:
            places = layout.walk(self.model, (size[0], size[1]), self.request.outputs)
            found = layout.output_shapes(places)
            self._shapes = size, {name: found[name] for name in self.request.outputs or found}
        return self._shapes[1]

    def _check_model(self) -> None:
        """Raise where the model is not what was compiled: parameters elsewhere or of another shape, other layers."""
        for name, parameter in self.model.named_parameters():
            if not self._owns(parameter.data):
                where = self._name_of(parameter.data)
                raise BackendError(f"plan: {name} is {where} now; move the model back, or compile it anew")
        self._check_layers()

    def _check_layers(self) -> None:
        now = description(self.model)
        for name, was in self._made_of.items():
            if now.get(name) != was:
                is_now = f"is {now[name]}" if name in now else "is gone"
                raise ShapeError(f"plan: {name} {is_now} now and was {was}; compile the model anew")
        if len(now) > len(self._made_of):
            raise ShapeError(f"plan: {next(reversed(now))} is new; compile the model anew")


def description(model: AlexNet) -> dict[str, str]:
    """Of every parameter and layer what a plan was made for, by name. Dropout's p has no part in it."""
    found = {name: f"{p.data.dtype} {p.data.shape}" for name, p in model.named_parameters()}
    for name, layer in model.leaves():
        found[name] = type(layer).__name__ if isinstance(layer, layers.Dropout) else repr(layer)
    return found
