"""A training step compiled for the GPU: forward with dropout, cross-entropy, backward and SGD in one CUDA graph.

    optimizer = anp.SGD(model.named_parameters(), lr=0.01, momentum=0.9)
    step = compile_training(model, optimizer, batch_size=128)
    for x, target in batches:
        loss = step(x, target)

As in the inference plan (plan_cuda.py) the launches are written down once, on memory planned beforehand. What changes
from step to step lies in device memory, where the graph's kernels read it: the optimizer's numbers, so that schedules
work, and every dropout layer's seed and count of calls, so that masks are new each time and those of the model itself.
They are sent before each graph as the argument of a tiny kernel (kernels/gpu/upload.cu).

The model's own parameters and the optimizer's velocities are updated in place. Parameters frozen, thawed or replaced,
momentum switched on, velocities loaded, dropout's p changed: the step is written down anew when it next runs.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import layers
from alexnet_np.device import Array, as_array
from alexnet_np.errors import ArgumentError, BackendError, DtypeError, ShapeError
from alexnet_np.kernels import cross_entropy_cuda, sgd_cuda
from alexnet_np.kernels.gemm_cuda import check_precision, matmul_precision
from alexnet_np.kernels.gpu.arguments import address
from alexnet_np.kernels.gpu.runtime import contiguous, current_executor, empty, recording
from alexnet_np.kernels.gpu.sums import sum_rows
from alexnet_np.kernels.gpu.tape import VECTOR, Tape
from alexnet_np.kernels.gpu.upload import upload
from alexnet_np.models import AlexNet
from alexnet_np.ops.checks import pair
from alexnet_np.plan import megabytes
from alexnet_np.plan.cuda import Replay
from alexnet_np.plan.cuda_input import Input
from alexnet_np.plan.cuda_steps import Dropout, Weighted, steps_of
from alexnet_np.training.sgd import OPTIONS, SGD

LOW = 1 << 32
WORDS = 3  # of a parameter: six float32, the five OPTIONS in their order and `first`, as sgd_step_planned reads them


def compile_training(
    model: AlexNet,
    optimizer: SGD,
    batch_size: int,
    size: int | tuple[int, int] = 224,
    label_smoothing: float = 0.0,
    precision: str | None = None,
) -> CudaTrainingPlan:
    """A training step for batches of exactly `batch_size` images of `size`; it runs `model` as in train mode.

    `optimizer`: an SGD over parameters of `model`; those it does not have, or that are frozen, stay.
    `precision`: the arithmetic of products, "strict", "tf32" or "tf32x3", by default the one in force.
    Raises ArgumentError, DtypeError (float32 only), BackendError (a model on the GPU only).
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ArgumentError(f"compile_training: batch_size must be a positive int, got {batch_size!r}")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(f"compile_training: label_smoothing must be between 0 and 1, got {label_smoothing}")
    if model.dtype != np.float32:
        raise DtypeError(f"compile_training: the model is {model.dtype}; plans are float32: model.astype('float32')")
    ours = {id(p) for p in model.parameters()}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            if id(parameter) not in ours:
                raise ArgumentError(f"compile_training: the optimizer's {name!r} is not a parameter of this model")
    sides = pair("compile_training", "size", size, 1)
    return CudaTrainingPlan(model, optimizer, batch_size, sides, label_smoothing, check_precision(precision))


class CudaTrainingPlan:
    """See `compile_training`. Calls from several threads take turns."""

    def __init__(
        self,
        model: AlexNet,
        optimizer: SGD,
        batch_size: int,
        size: tuple[int, int],
        label_smoothing: float,
        precision: str,
    ) -> None:
        self.model, self.optimizer, self.batch_size, self.size = model, optimizer, batch_size, size
        self.label_smoothing, self.precision = label_smoothing, precision
        self.queue = current_executor().queue(next(model.parameters()).data)
        self.input = Input(self.queue, model, batch_size)
        self.memory = self.queue.allocate(0)
        self._lock = threading.Lock()
        self._new_velocities: dict[str, Array] = {}  # not the optimizer's yet: their first step is to come
        self._build()

    def __call__(self, x: Any, target: Any) -> Array:
        """One step; returns the mean loss of the batch, () float32 on the GPU, queued and not waited for.

        `x`: as for the inference plan, float32 (N,C,H,W) or bytes (N,H,W,C), N the plan's batch_size. `target`: class
        indices (N,), any integers, on the host or the GPU. The trap: one out of range is an error on the host, but on
        the GPU, where nobody may wait to look, it makes the loss NaN and its own image count for nothing.
        Raises ShapeError, DtypeError, ArgumentError, BackendError.
        """
        x, shape = self.input.check(x)
        if shape != (self.batch_size, self.model.in_channels, *self.size):
            N, (H, W) = self.batch_size, self.size
            raise ShapeError(f"training plan: it is for {N} images of {H}x{W}, got {shape[0]} of {shape[2]}x{shape[3]}")
        target = self._target(target)
        with self._lock:
            if self._signature() != self.signature:
                self._build()
            loss = current_executor().empty((), np.dtype(np.float32), self.memory)
            x, slot = self.input.stage(x)
            words = self._state()
            with self.queue.turn():
                self.input.load(x, slot, self.x)
                self.queue.copy(target, self.targets)
                upload(words, self.state)
                self.replay.run()
                self.queue.copy(self.loss, loss)
            for layer in dropout_layers(self.model):
                layer.calls += 1
            for _, group, name in self.trained.values():
                if group["momentum"] and name in self._new_velocities:
                    self.optimizer.velocities[name] = self._new_velocities.pop(name)
        return loss

    def pinned_input(self) -> np.ndarray:
        """Page-locked uint8 (N,H,W,C) on the host to write images into; see CudaPlan.pinned_input."""
        with self._lock:
            return self.input.pinned(self.batch_size, self.size)

    def _target(self, target: Any) -> Array:
        """`target` as int64 in C order, checked as far as that needs no waiting."""
        target = as_array(target, "training plan: target")
        if target.dtype.kind not in "iu":
            raise DtypeError(f"training plan: target must be integers, got {target.dtype}")
        if target.shape != (self.batch_size,):
            raise ShapeError(f"training plan: target must be ({self.batch_size},), got {target.shape}")
        if not self.queue.owns(target):
            if not isinstance(target, np.ndarray):
                raise BackendError(f"training plan: target is {self.queue.name_of(target)}, not where the plan is")
            classes = self.model.num_classes
            wrong = target[(target < 0) | (target >= classes)]
            if wrong.size:
                raise ArgumentError(f"training plan: target {int(wrong[0])} is out of 0...{classes - 1}")
        return contiguous(target.astype(np.int64, copy=False))

    # Writing the step down.

    def _trained(self) -> dict[str, tuple[layers.Parameter, dict[str, Any], str]]:
        """Of every parameter to update, by the model's name: itself, its group, and the optimizer's name for it."""
        given = {
            id(parameter): (parameter, group, name)
            for group in self.optimizer.param_groups
            for name, parameter in zip(group["param_names"], group["params"], strict=True)
        }
        named = self.model.named_parameters()
        return {name: given[id(p)] for name, p in named if p.requires_grad and id(p) in given}

    def _signature(self) -> list[Any]:
        """Whatever the launches themselves depend on; identities, of objects that the plan keeps."""
        parameters = [(id(p.data), p.requires_grad) for p in self.model.parameters()]
        momentum = [bool(group["momentum"]) for group in self.optimizer.param_groups]
        velocities = [id(self._velocity(name)) for _, _, name in self.trained.values()]
        return [
            parameters,
            self.optimizer.rule,
            momentum,
            velocities,
            [layer.p for layer in dropout_layers(self.model)],
        ]

    def _velocity(self, name: str) -> Array | None:
        """Of the parameter that the optimizer calls `name`."""
        return self.optimizer.velocities.get(name, self._new_velocities.get(name))

    def _build(self) -> None:
        """Write the step down for the model and the optimizer as they are."""
        self.trained = self._trained()
        if not self.trained:
            raise ArgumentError("compile_training: nothing to train: every parameter is frozen or not the optimizer's")
        tape = Tape()
        ghosts = {name: tape.ghost(p.shape) for name, p in self.model.named_parameters()}
        for name, parameter in self.model.named_parameters():
            self._check_place(name, parameter.data)
            tape.put_at(ghosts[name], parameter.data)
        self._make_velocities()
        self.steps = list(steps_of(self.model, self.size, training=True))
        self.dropouts = [step for step in self.steps if isinstance(step, Dropout)]
        self.lines: list[list[Any]] = []
        with recording(tape), matmul_precision(self.precision):
            recorded = self._record(tape, ghosts)
        self.nbytes, self.unshared = tape.plan_memory(), sum(b.nbytes for b in tape.buffers if b.memory is None)
        if self.memory.nbytes < self.nbytes:
            self.memory = self.queue.allocate(self.nbytes)
        tape.put(self.memory)
        self.x, self.targets, self.state, self.loss, self.logits = (tape.real(ghost) for ghost in recorded[:5])
        self.gradients = {name: tape.real(ghost) for name, ghost in recorded.gradients.items()}
        self.replay = Replay(tape, self.queue)
        velocities = [self._velocity(name) for _, _, name in self.trained.values()]
        self._kept = [p.data for p in self.model.parameters()], velocities
        self.signature = self._signature()

    def _check_place(self, name: str, array: Array) -> None:
        if not self.queue.owns(array):
            where = self.queue.name_of(array)
            raise BackendError(f"training plan: {name} is {where} now; move the model back, or compile it anew")
        if array.dtype != np.float32 or not array.flags.c_contiguous or address(array) % VECTOR:
            what = f"{array.dtype} with strides {array.strides} at {address(array):#x}"
            raise DtypeError(
                f"training plan: {name} must be float32, in C order and aligned to {VECTOR} bytes, got {what}"
            )

    def _make_velocities(self) -> None:
        """For all that need one and have none."""
        for parameter, group, name in self.trained.values():
            if group["momentum"] and self._velocity(name) is None:
                self._new_velocities[name] = empty(parameter.data.shape, parameter.data)

    def _record(self, tape: Tape, ghosts: dict[str, Array]) -> Recorded:
        """Everything between the images and the new parameters."""
        x = y = tape.enters((self.batch_size, self.model.in_channels, *self.size))
        targets = tape.enters((self.batch_size,), np.int64)
        state = tape.enters((len(self.dropouts) + WORDS * len(self.trained),), np.uint64)
        for i, dropout in enumerate(self.dropouts):
            dropout.seed = state[i : i + 1]
        for step in self.steps:
            before, weights = len(tape.calls), dict(ghosts)
            if isinstance(step, Weighted):
                weights[f"{step.name}.weight"] = step.prepare(ghosts[f"{step.name}.weight"])
            y = step.forward(y, weights, keep=True)
            self.lines.append([step, y.shape, y.nbytes, len(tape.calls) - before, 0])
        losses, dy = cross_entropy_cuda.loss_and_gradient(y, targets, self.label_smoothing, 1 / self.batch_size)
        loss = sum_rows(losses[None])
        gradients = self._record_backward(tape, dy, ghosts)
        numbers = state[len(self.dropouts) :].view(np.float32).reshape(len(self.trained), 2 * WORDS)
        for row, (name, (parameter, group, theirs)) in zip(numbers, self.trained.items(), strict=True):
            velocity = None
            if group["momentum"]:
                velocity = tape.ghost(parameter.shape)
                tape.put_at(velocity, self._velocity(theirs))
            sgd_cuda.compute_planned(ghosts[name], gradients[name], velocity, row, self.optimizer.rule == "paper")
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
            self.lines[i][-1] = len(tape.calls) - before
            if dx is None:
                break
            dy = dx
        return gradients

    def _state(self) -> np.ndarray:
        """What the graph reads from device memory in the next step, as uint64 words."""
        seeds = [step.layer.seed % LOW << 32 | step.layer.calls % LOW for step in self.dropouts]  # as Dropout.forward
        numbers = np.zeros((len(self.trained), 2 * WORDS), np.float32)
        for row, (_, group, name) in zip(numbers, self.trained.values(), strict=True):
            row[:] = [*(group[option] for option in OPTIONS), name in self._new_velocities]
        return np.concatenate([np.array(seeds, np.uint64), numbers.reshape(-1).view(np.uint64)])

    def __repr__(self) -> str:
        (H, W), smoothing = self.size, f", label smoothing {self.label_smoothing:g}" if self.label_smoothing else ""
        head = f"Training plan on the GPU for {self.batch_size} images of {H}x{W}, float32"
        lines = [f"{head}, products {self.precision}{smoothing}"]
        lines.append(f"  {'step':<14}{'algorithm':<30}{'buffer':<28}{'forward':>9}{'backward':>9}{'GFLOP/image':>13}")
        for step, shape, nbytes, forward, backward in self.lines:
            flops = f"{2e-9 * step.macs:.3f}" if step.macs else ""
            buffer = f"{'x'.join(map(str, shape))} {megabytes(nbytes)}"
            lines.append(f"  {step.name:<14}{step.algorithm:<30}{buffer:<28}{forward:>9}{backward:>9}{flops:>13}")
        forward, backward = (sum(line[i] for line in self.lines) for i in (3, 4))
        trained = sum(parameter.data.nbytes for parameter, _, _ in self.trained.values())
        lines.append(
            f"  {forward} launches forward, 2 for the loss, {backward} backward, {len(self.trained)} for SGD on "
            f"{megabytes(trained)} of parameters; {megabytes(self.nbytes)} of memory for {megabytes(self.unshared)} of "
            "arrays"
        )
        return "\n".join(lines)


def dropout_layers(model: AlexNet) -> list[layers.Dropout]:
    return [layer for _, layer in model.leaves() if isinstance(layer, layers.Dropout)]


class Recorded(NamedTuple):
    """The arrays of a step that something outside of it reads or writes."""

    x: Array
    targets: Array
    state: Array
    loss: Array
    logits: Array
    gradients: dict[str, Array]
