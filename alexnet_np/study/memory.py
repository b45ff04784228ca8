"""The bytes that each layer takes in a training step, as measured: of the arrays that are there, not of formulas.

activation    what forward leaves: its output, and what it keeps for backward. What it shares with its input (a view, an
              input that is kept) and the parameters are not counted again.
gradient      what backward leaves: dx, and the gradients of the parameters
workspace     the most that either takes beside, while it runs: the peak that tracemalloc sees, less what is left

The array operations on the CPU are measured, each layer by itself: what a BLAS takes for itself nobody tells, and the
kernels keep their memory from call to call.
"""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.device import Array, to_cpu
from alexnet_np.layers import Layer, Parameter, Shape
from alexnet_np.models import AlexNet


class Memory(NamedTuple):
    """In bytes, of the whole batch."""

    activation: int
    gradient: int
    workspace: int


def measured(model: AlexNet, shape: Shape) -> dict[str, Memory]:
    """Of every layer by its name, in a training step on an input of `shape` (N,C,H,W). The model stays as it was."""
    found: dict[str, Memory] = Context().run(_measured, model, shape)  # outside the caller's no_grad
    return found


def _measured(model: AlexNet, shape: Shape) -> dict[str, Memory]:
    layers = [(name, _copied(layer)) for name, layer in model.leaves()]
    x = np.zeros(shape, model.dtype)
    left: list[tuple[int, int]] = []  # by each layer's forward: bytes of arrays, and what it took beside
    with _tracing():
        for _, layer in layers:
            y, beside = _watched(partial(layer.forward, x))
            left.append((_bytes([y, layer.kept()], but=[x, *(p.data for p in layer.parameters())]), beside))
            x = y
        found, dy = {}, np.ones_like(x)
        for (name, layer), (activation, forward) in zip(reversed(layers), reversed(left), strict=True):
            dx, backward = _watched(partial(layer.backward, dy, retain_graph=True))
            gradient = _bytes([dx, *(p.grad for p in layer.parameters())], but=[dy])
            found[name] = Memory(activation, gradient, max(forward, backward))
            layer.spend()
            for parameter in layer.parameters():
                parameter.grad = None
            dy = dx
    return {name: found[name] for name, _ in layers}


def _copied(layer: Layer) -> Layer:
    """A copy in training that shares the weights, without hooks: the model's own gradients and hooks see nothing."""
    made = copy.copy(layer)
    Layer.__init__(made)  # nothing kept, no hooks
    for name, value in vars(layer).items():
        if isinstance(value, Parameter):
            setattr(made, name, Parameter(to_cpu(value.data), value.fan_in).requires_grad_(value.requires_grad))
    made.backend = "numpy"
    return made


@contextmanager
def _tracing() -> Iterator[None]:
    already = tracemalloc.is_tracing()
    if not already:
        tracemalloc.start()
    try:
        yield
    finally:
        if not already:
            tracemalloc.stop()


def _watched(run: Callable[[], Any]) -> tuple[Any, int]:
    """What `run` gives, and the most bytes that were taken meanwhile, less those that still are."""
    tracemalloc.reset_peak()
    result = run()
    now, peak = tracemalloc.get_traced_memory()
    return result, peak - now


def _bytes(values: list[Any], but: list[Any]) -> int:
    """Of the memory behind all arrays in `values`, each counted once, without that behind `but`."""
    owners = {id(owner): owner for owner in _owners(values)}
    for owner in _owners(but):
        owners.pop(id(owner), None)
    return sum(owner.nbytes for owner in owners.values())


def _owners(value: Any) -> Iterator[Array]:
    if isinstance(value, np.ndarray):
        while isinstance(value.base, np.ndarray):
            value = value.base
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _owners(item)
