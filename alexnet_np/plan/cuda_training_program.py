"""One training step written down: on which arrays it works, and the launches between the images and new parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import layers
from alexnet_np.device import Array
from alexnet_np.errors import BackendError, DtypeError
from alexnet_np.kernels import cross_entropy_cuda, sgd_cuda
from alexnet_np.kernels.gemm_cuda import matmul_precision
from alexnet_np.kernels.gpu.arguments import address
from alexnet_np.kernels.gpu.runtime import recording
from alexnet_np.kernels.gpu.sums import sum_rows
from alexnet_np.kernels.gpu.tape import VECTOR, Tape
from alexnet_np.models import AlexNet
from alexnet_np.plan import layout, steps
from alexnet_np.plan.cuda import Replay
from alexnet_np.plan.cuda_steps import STEPS, Dropout, Weighted
from alexnet_np.plan.training import Trained, TrainingRequest, find_trained

LOW = 1 << 32
NUMBERS = len(sgd_cuda.NUMBERS)  # float32 of a parameter; an even count, so that they fill whole words


@dataclass
class Line:
    """What a step's line in the plan's table says."""

    step: steps.Step
    shape: tuple[int, ...]  # of its output
    nbytes: int
    forward: int  # launches
    backward: int = 0


class TrainingProgram:
    """The step for the model and the optimizer as they are.

    `velocities` gives those of the parameters that are trained, `room` so many bytes to work in.
    """

    def __init__(
        self,
        request: TrainingRequest,
        queue: Any,
        velocities: Callable[[dict[str, Trained]], dict[str, Array]],
        room: Callable[[int], Array],
    ) -> None:
        self.request, self.trained = request, find_trained(request)
        for name, parameter in request.model.named_parameters():
            check_place(queue, name, parameter.data)
        self.velocities = velocities(self.trained)
        self.parameters = {name: parameter.data for name, parameter in request.model.named_parameters()}
        places = layout.walk(request.model, request.size, training=True)
        self.steps = steps.make(places, steps.Options(request.batch_size), STEPS)
        self.dropouts = [step for step in self.steps if isinstance(step, Dropout)]
        self.lines: list[Line] = []
        tape = Tape()
        ghosts = {name: at(tape, array) for name, array in self.parameters.items()}
        with recording(tape), matmul_precision(request.precision):
            recorded = self._record(tape, ghosts)
        self.nbytes, self.unshared = tape.plan_memory(), sum(b.nbytes for b in tape.buffers if b.memory is None)
        tape.put(room(self.nbytes))
        self.x, self.targets, self.state, self.loss, self.logits = (tape.real(ghost) for ghost in recorded[:5])
        self.gradients = {name: tape.real(ghost) for name, ghost in recorded.gradients.items()}
        self.replay = Replay(tape, queue)

    def words(self, new: set[str]) -> np.ndarray:
        """What the graph reads from device memory in the next step, as uint64; `new`: velocities not yet begun."""
        seeds = [step.layer.seed % LOW << 32 | step.layer.calls % LOW for step in self.dropouts]  # as Dropout.forward
        numbers = np.zeros((len(self.trained), NUMBERS), np.float32)
        for row, (_, group, name) in zip(numbers, self.trained.values(), strict=True):
            row[:] = [{**group, "first": name in new}[number] for number in sgd_cuda.NUMBERS]
        return np.concatenate([np.array(seeds, np.uint64), numbers.reshape(-1).view(np.uint64)])

    def _record(self, tape: Tape, ghosts: dict[str, Array]) -> Recorded:
        """Everything between the images and the new parameters."""
        N, smoothing = self.request.batch_size, self.request.label_smoothing
        x = y = tape.enters((N, self.request.model.in_channels, *self.request.size))
        targets = tape.enters((N,), np.int64)
        state = tape.enters((len(self.dropouts) + NUMBERS * len(self.trained) // 2,), np.uint64)
        for i, dropout in enumerate(self.dropouts):
            dropout.seed = state[i : i + 1]
        for step in self.steps:
            before, weights = len(tape.calls), dict(ghosts)
            if isinstance(step, Weighted):
                weights[f"{step.name}.weight"] = step.prepare(ghosts[f"{step.name}.weight"])
            y = step.forward(y, weights, keep=True)
            self.lines.append(Line(step, y.shape, y.nbytes, len(tape.calls) - before))
        losses, dy = cross_entropy_cuda.loss_and_gradient(y, targets, smoothing, 1 / N)
        loss = sum_rows(losses[None])
        gradients = self._record_backward(tape, dy, ghosts)
        numbers = state[len(self.dropouts) :].view(np.float32).reshape(len(self.trained), NUMBERS)
        for row, name in zip(numbers, self.trained, strict=True):
            velocity = at(tape, self.velocities[name]) if name in self.velocities else None
            sgd_cuda.compute_planned(
                ghosts[name], gradients[name], velocity, row, self.request.optimizer.rule == "paper"
            )
        for array in (y, loss, *gradients.values()):
            tape.leaves(array)
        return Recorded(x, targets, state, loss, y, gradients)

    def _record_backward(self, tape: Tape, dy: Array, ghosts: dict[str, Array]) -> dict[str, Array]:
        """The gradients by name; as far back as there is something to train."""
        gradients: dict[str, Array] = {}
        trainable = [any(p.requires_grad for p in step.layer.parameters()) for step in self.steps]
        for i in reversed(range(trainable.index(True), len(self.steps))):
            before = len(tape.calls)
            dx, found = self.steps[i].backward(dy, any(trainable[:i]), ghosts)
            gradients |= found
            self.lines[i].backward = len(tape.calls) - before
            if dx is None:
                break
            dy = dx
        return gradients


class Recorded(NamedTuple):
    """The arrays of a step that something outside of it reads or writes."""

    x: Array
    targets: Array
    state: Array
    loss: Array
    logits: Array
    gradients: dict[str, Array]


def at(tape: Tape, array: Array) -> Array:
    """A ghost that is `array`."""
    ghost = tape.ghost(array.shape)
    tape.put_at(ghost, array)
    return ghost


def check_place(queue: Any, name: str, array: Array) -> None:
    if not queue.owns(array):
        raise BackendError(
            f"training plan: {name} is {queue.name_of(array)} now; move the model back, or compile it anew"
        )
    if array.dtype != np.float32 or not array.flags.c_contiguous or address(array) % VECTOR:
        what = f"{array.dtype} with strides {array.strides} at {address(array):#x}"
        raise DtypeError(f"training plan: {name} must be float32, in C order and aligned to {VECTOR} bytes, got {what}")


def dropout_layers(model: AlexNet) -> list[layers.Dropout]:
    return [layer for _, layer in model.leaves() if isinstance(layer, layers.Dropout)]
