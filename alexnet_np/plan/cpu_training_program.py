"""All the steps of a training plan on the CPU with their memory, for what the model and the optimizer have by now.

A unit is a convolution with what follows it up to the next one. It takes a slice of the batch at a time through its
steps, forward and backward, so that what one of them writes the next reads from the cache; and only what the way back
needs is kept for the whole batch. Dense layers take the whole batch at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from alexnet_np import layers, threads
from alexnet_np.device import Array
from alexnet_np.kernels import choices, cross_entropy_numba
from alexnet_np.kernels.conv2d_winograd_gradients_numba import slice_of
from alexnet_np.kernels.cpu.simd import LANES
from alexnet_np.plan import images, layout, steps
from alexnet_np.plan.cpu import parts
from alexnet_np.plan.cpu_buffers import Buffer, Rows
from alexnet_np.plan.cpu_training_buffers import Input, Update
from alexnet_np.plan.cpu_training_convolution import Convolution
from alexnet_np.plan.cpu_training_steps import Dropout, Load, MaxPool, other_steps
from alexnet_np.plan.steps import Classes
from alexnet_np.plan.training import TrainingRequest

STEPS: Classes = {**other_steps(), layers.Conv2d: Convolution}


class TrainingProgram:
    """`updates`: of every parameter that is trained, by the model's name."""

    def __init__(self, request: TrainingRequest, updates: Mapping[str, Update]) -> None:
        self.request, self.updates = request, updates
        places = layout.walk(request.model, request.size, training=True)
        self.steps = steps.make(places, steps.Options(request.batch_size), STEPS)
        self.load: Load = self.steps[0]
        at: Any = Input("input", *places[0].entering)
        for step in self.steps:
            at = step.forward(at, None)
        self.load.say()
        self.units, self.rows = cut(self.steps)
        self.dropouts = [step for step in self.steps if isinstance(step, Dropout)]
        self._share_masks()
        self.loss = Loss(request.batch_size, at, request.label_smoothing)
        self.gradients = self._lay_out_backward(at)
        self.passes = [self._allocate(unit) for unit in self.units]
        for step in self.rows:
            step.target.allocate(request.batch_size)
            if step.dx is not None:
                step.dx.allocate(request.batch_size)
        self.loss.dy.allocate(request.batch_size)

    def _share_masks(self) -> None:
        """Who sees to the gradient of a convolution's ReLU, and so what is kept for it."""
        for step, after in zip(self.steps, [*self.steps[1:], None], strict=True):
            if isinstance(step, Convolution) and step.relu:
                if isinstance(after, MaxPool):
                    after.rectified = after.keeps_target = True
                else:
                    step.masks = step.keeps_target = True

    def _lay_out_backward(self, logits: Rows) -> dict[str, Array]:
        """As far back as there is something to train."""
        trained = [any(name.startswith(f"{step.name}.") for name in self.updates) for step in self.steps]
        dy: Any = self.loss.dy
        gradients: dict[str, Array] = {}
        for i in reversed(range(trained.index(True), len(self.steps))):
            dy, found = self.steps[i].backward(dy, any(trained[:i]), self.updates)
            gradients |= found
        return gradients

    def _allocate(self, unit: list[Any]) -> int:
        """Memory for a unit's buffers; returns how many images it takes at a time."""
        batch, last = self.request.batch_size, unit[-1]
        inner = [step.target for step in unit] + [step.dx for step in unit if step.dx is not None]
        largest = max(buffer.image_bytes for buffer in inner if isinstance(buffer, Buffer))
        count = slice_of(batch, choices.sizes("stages", training=True)["stage_bytes"] // largest)
        for step, after in zip(unit, [*unit[1:], None], strict=True):
            kept = step is last or step.keeps_target or (after is not None and after.keeps_source and after.goes_back)
            if isinstance(step.target, Rows):
                step.target.allocate(batch)
            else:
                step.target.allocate(batch if kept else count, whole_chunk=kept)
            if step.dx is not None:
                begins = step is unit[0]
                step.dx.allocate(batch if begins else count, whole_chunk=begins)
        return count

    def run(self, x: Array, target: Array) -> np.float32:
        """One step for images x, float32 (N,C,H,W) or uint8 (N,H,W,C), and classes; the loss before it."""
        N = len(x)
        if x.dtype == np.uint8:
            self.load.table = images.table_of(self.request.model).reshape(-1)
            self.load.order = np.array(images.recipe(self.request.model).order)
        self.load.x = x.reshape(-1)
        for unit, most in zip(self.units, self.passes, strict=True):
            for step in unit:
                step.begin(N)
            for first, count in parts(N, most):
                for step in unit:
                    step.run(first, count)
        self.load.x = np.empty(0, np.float32)  # not the caller's array, for longer than the call
        for step in self.rows:
            step.begin(N)
            step.run(0, N)
        loss = self.loss.run(target)
        self._run_back(N)
        return loss

    def _run_back(self, N: int) -> None:
        for step in reversed(going_back(self.rows)):
            step.run_back(0, N)
            step.finish(N)
        for unit, most in zip(reversed(self.units), reversed(self.passes), strict=True):
            back = going_back(unit)
            for first, count in parts(N, most):
                for step in reversed(back):
                    step.run_back(first, count)
            for step in back:
                step.finish(N)

    @property
    def nbytes(self) -> int:
        buffers = [step.target for step in self.steps] + [step.dx for step in self.steps if step.dx is not None]
        arrays = sum(buffer.array.nbytes for buffer in (*buffers, self.loss.dy))
        return arrays + sum(step.own_bytes for step in self.steps)


def going_back(some: Iterable[Any]) -> list[Any]:
    return [step for step in some if step.goes_back]


def cut(made: list[Any]) -> tuple[list[list[Any]], list[Any]]:
    """The steps on images in units, each from a convolution to the last step before the next; and those on rows."""
    units: list[list[Any]] = [[]]
    for step in made:
        if isinstance(step, Convolution) and any(isinstance(before, Convolution) for before in units[-1]):
            units.append([])
        if not isinstance(step.source, Rows):
            units[-1].append(step)
    return units, [step for step in made if isinstance(step.source, Rows)]


class Loss:
    """Softmax cross-entropy: the mean over a batch, and its gradient."""

    def __init__(self, batch: int, logits: Rows, smoothing: float) -> None:
        C = logits.features
        self.rows, self.smoothing, self.dy = logits, smoothing, Rows("loss", C)
        self.logits, self.coefficients, self.dlogits = (np.empty((batch, C), np.float32) for _ in range(3))
        self.losses, self.scales = np.empty(batch, np.float32), np.empty(batch, np.float32)
        self.count = 0

    def run(self, target: Array) -> np.float32:
        """The loss for these classes; its gradient into `dy`."""
        N, C = len(target), self.rows.features
        self.count = N
        coefficients = self.coefficients[:N]
        coefficients[...] = self.smoothing / C
        coefficients[np.arange(N), target] += np.float32(1 - self.smoothing)
        self.logits[:N] = self.rows.view(0, N)
        self.scales[:N] = np.float32(1) / np.float32(N)
        given, wanted, into = (array.reshape(-1) for array in (self.logits, self.coefficients, self.dlogits))
        with threads.parallel() as workers:
            work = threads.scratch(3 * LANES * workers)
            cross_entropy_numba.losses_of_rows[N](given, wanted, C, self.losses, work)
            cross_entropy_numba.gradients_of_rows[N](self.scales, given, wanted, C, into, work)
        self.dy.view(0, N)[...] = self.dlogits[:N]
        return np.float32(self.losses[:N].sum() / np.float32(N))
