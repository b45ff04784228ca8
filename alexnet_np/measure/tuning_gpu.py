"""What `tune` times on the GPU, in strict float32, by the kernels' own time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from alexnet_np import layers, ops
from alexnet_np.kernels import choices, conv2d_cuda, conv2d_im2col_cuda, linear_cuda, linear_rows_cuda
from alexnet_np.kernels import local_response_norm_cuda as normalisation
from alexnet_np.kernels.problems import Problem, of_convolution
from alexnet_np.measure.gpu import EventClock, Machine
from alexnet_np.measure.tuning_subjects import BATCHES, Subject
from alexnet_np.models import AlexNet
from alexnet_np.plan.layout import Place, walk

SHAPE = ("C", "F", "groups", "kernel", "stride", "OH", "OW", "direction", "dtype", "precision")
DENSE = ("C", "F", "direction", "dtype", "precision")
FEW = 4  # images that a row of weights may serve at a time

Make = Callable[[], Subject]


def subjects(model: AlexNet, size: tuple[int, int], machine: Machine) -> Iterator[Make]:
    """What makes each, the most useful ones first."""
    places, timed = walk(model, size), Timed(machine)
    convolutions = [place for place in places if isinstance(place.layer, layers.Conv2d)]
    dense = [place for place in places if isinstance(place.layer, layers.Linear)]
    for batch in sorted(BATCHES, reverse=True):
        yield from (partial(timed.convolution, place, batch) for place in convolutions)
        yield from (partial(timed.linear, place, batch) for place in dense)
    yield partial(timed.columns, convolutions[-1])
    yield partial(timed.rows, dense[-1])
    yield from (partial(timed.normalising, convolutions[0], direction) for direction in ("forward", "backward"))


class Timed:
    """Makes subjects whose arrays lie on the machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.clock = machine, EventClock(machine, kernels=True).seconds

    def normal(self, *shape: int) -> Any:
        return self.machine.place(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))

    def parameters(self, place: Place) -> tuple[Any, Any]:
        layer: Any = place.layer
        weight, bias = layer.weight.data, layer.bias
        zeros = np.zeros(len(weight), np.float32)
        return self.machine.place(weight), self.machine.place(zeros if bias is None else bias.data)

    def convolution(self, place: Place, batch: int) -> Subject:
        layer: Any = place.layer
        (weight, bias), x = self.parameters(place), self.normal(batch, *place.entering)
        geometry = ops.conv2d.find_geometry(x, weight, None, **layer.arguments())
        problem = of_convolution(x, weight, geometry, device="gpu")
        run = partial(conv2d_cuda.compute, x, weight, bias, geometry, True)
        known = choices.conditions(problem)
        where = {name: known[name] for name in SHAPE} | {"batch": BATCHES[batch]}
        name, sizes = f"{place.name}, batch {batch}", {"implicit": ("tile",)}
        return Subject(name, problem, where, lambda: run, sizes=sizes, clock=self.clock)

    def linear(self, place: Place, batch: int) -> Subject:
        weight, bias = self.parameters(place)
        F, C = weight.shape
        problem = Problem("linear", "gpu", batch=batch, C=C, F=F, planned=True)
        run = partial(linear_cuda.compute, self.normal(batch, C), weight, bias, True)
        known = problem.conditions()
        where = {name: known[name] for name in DENSE} | {"batch": BATCHES[batch]}
        return Subject(f"{place.name}, batch {batch}", problem, where, lambda: run, clock=self.clock)

    def columns(self, place: Place) -> Subject:
        """Of im2col: how much of the batch at a time."""
        layer: Any = place.layer
        (weight, bias), x = self.parameters(place), self.normal(max(BATCHES), *place.entering)
        geometry = ops.conv2d.find_geometry(x, weight, None, **layer.arguments())
        run = partial(conv2d_im2col_cuda.compute, x, weight, bias, geometry, True)
        problem, sizes = Problem("conv2d", "gpu"), {"": ("column_bytes",)}
        return Subject(f"im2col of {layer!r}", problem, {}, lambda: run, (), sizes, self.clock)

    def rows(self, place: Place) -> Subject:
        weight, bias = self.parameters(place)
        run = partial(linear_rows_cuda.compute, self.normal(FEW, weight.shape[1]), weight, bias)
        problem, sizes = Problem("linear", "gpu"), {"": ("images",)}
        return Subject("a warp a row of weights", problem, {}, lambda: run, (), sizes, self.clock)

    def normalising(self, place: Place, direction: str) -> Subject:
        N, (C, H, W) = min(32, max(BATCHES)), place.leaving
        x, geometry = self.normal(N, C, H * W), ops.local_response_norm.find_geometry(5, 1e-4, 0.75, 2.0, "torch")
        forward = partial(normalisation.compute, x, geometry)
        run = forward if direction == "forward" else partial(normalisation.gradients, x, x, geometry)
        problem = Problem("local_response_norm", "gpu", direction, batch=N, C=C, F=C, window=5)
        where, sizes = {"direction": direction, "window": 5}, {"registers": ("run",)}
        return Subject(f"normalisation {direction}", problem, where, lambda: run, sizes=sizes, clock=self.clock)
