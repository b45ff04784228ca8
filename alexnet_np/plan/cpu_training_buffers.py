"""The memory of a training plan on the CPU: images and rows of the whole batch, or of a slice of it; what SGD updates.

Every image holds whole vectors of channels, with zeros in those that it does not have: sums over channels and over
filters need no care then, forward or backward, and nothing is added twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels import sgd_numba
from alexnet_np.kernels.cpu.simd import LANES
from alexnet_np.layers import Parameter
from alexnet_np.ops.sgd import Step
from alexnet_np.plan.cpu_buffers import Buffer, InputBuffer

OPTIONS = ("lr", "momentum", "dampening", "weight_decay", "nesterov")


def whole_vectors(channels: int) -> int:
    return -(-channels // LANES) * LANES


class Images(Buffer):
    @property
    def channels(self) -> int:
        return whole_vectors(self.C)


class Input(InputBuffer):
    @property
    def channels(self) -> int:
        return whole_vectors(self.C)


class Update(NamedTuple):
    """A parameter that is trained, its group, and the optimizer and its name for it."""

    parameter: Parameter
    group: dict[str, Any]
    name: str
    optimizer: Any

    def now(self) -> tuple[Array | None, Step]:
        """The velocity, made where this is its first step, and the step, by the optimizer's numbers of now."""
        options, velocities = {option: self.group[option] for option in OPTIONS}, self.optimizer.velocities
        first = bool(options["momentum"]) and self.name not in velocities
        if first:
            velocities[self.name] = np.empty_like(self.parameter.data)
        velocity = velocities[self.name] if options["momentum"] else None
        return velocity, Step(**options, paper=self.optimizer.rule == "paper", first=first)

    def apply(self, gradient: Array) -> None:
        velocity, step = self.now()
        sgd_numba.compute(self.parameter.data, gradient, velocity, step)


def updates_of(layer: str, updates: Mapping[str, Update]) -> dict[str, Update]:
    """Those of one layer, by the parameters' own names."""
    names = {kind: f"{layer}.{kind}" for kind in ("weight", "bias")}
    return {kind: updates[name] for kind, name in names.items() if name in updates}


class Spread:
    """Filters as a plan computes them: with S x S pixels in the channels, groups as one, whole vectors of both.

    Whatever that does, it puts each weight in one place and zeros elsewhere; the gradient is read from those places.
    """

    def __init__(self, shape: tuple[int, ...], lay_out: Callable[[Array], Array]) -> None:
        numbered = lay_out(np.arange(1, 1 + int(np.prod(shape))).reshape(shape))
        flat = numbered.reshape(-1)
        places = np.flatnonzero(flat)
        self.places = places[np.argsort(flat[places])]
        self.filters = np.zeros(numbered.shape, np.float32)

    def fill(self, weight: Array) -> Array:
        self.filters.reshape(-1)[self.places] = weight.reshape(-1)
        return self.filters

    def read(self, wide: Array, gradient: Array) -> None:
        np.take(wide.reshape(-1), self.places, out=gradient.reshape(-1), mode="clip")
