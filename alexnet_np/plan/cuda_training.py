"""A training step compiled for the GPU: forward with dropout, cross-entropy, backward and SGD in one CUDA graph.

As in the inference plan (cuda.py) the launches are written down once, on memory planned beforehand. What changes
from step to step lies in device memory, where the graph's kernels read it: the optimizer's numbers, so that schedules
work, and every dropout layer's seed and count of calls, so that masks are new each time and those of the model itself.
They are sent before each graph as the argument of a tiny kernel (kernels/gpu/upload.cu).

The model's own parameters and the optimizer's velocities are updated in place. Parameters frozen, thawed or replaced,
momentum switched on, velocities loaded, dropout's p changed: the step is written down anew when it next runs.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from alexnet_np.device import Array, as_array
from alexnet_np.errors import BackendError, ShapeError
from alexnet_np.kernels.gpu.runtime import contiguous, current_executor, empty
from alexnet_np.kernels.gpu.upload import upload
from alexnet_np.plan import images
from alexnet_np.plan.cuda_input import Input
from alexnet_np.plan.cuda_training_program import TrainingProgram, dropout_layers
from alexnet_np.plan.table import gigaflops, megabytes, table
from alexnet_np.plan.training import Trained, TrainingRequest, check_classes, check_target
from alexnet_np.text import html_lines


class CudaTrainingPlan:
    """See `alexnet_np.plan.compile_training`. Calls from several threads take turns.

    Copied, or sent to another process, it is compiled anew there, from a copy of its model and optimizer.
    """

    def __init__(self, request: TrainingRequest) -> None:
        self.request = request
        self.model, self.optimizer, self.batch_size = request.model, request.optimizer, request.batch_size
        self.queue = current_executor().queue(next(self.model.parameters()).data)
        self.input = Input(self.queue, self.model, self.batch_size)
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
        x, shape = images.checked(self.model, x)
        x = self.input.placed(x)
        N, (H, W) = self.batch_size, self.request.size
        if shape != (N, self.model.in_channels, H, W):
            raise ShapeError(f"training plan: it is for {N} images of {H}x{W}, got {shape[0]} of {shape[2]}x{shape[3]}")
        target = self._target(target)
        with self._lock:
            if self._signature() != self.signature:
                self._build()
            loss = current_executor().empty((), np.dtype(np.float32), self.memory)
            x, slot = self.input.stage(x)
            words = self.program.words(set(self._new_velocities))
            with self.queue.turn():
                self.input.load(x, slot, self.program.x)
                self.queue.copy(target, self.program.targets)
                upload(words, self.program.state)
                self.program.replay.run()
                self.queue.copy(self.program.loss, loss)
            for layer in dropout_layers(self.model):
                layer.calls += 1
            for _, group, name in self.trained.values():
                if group["momentum"] and name in self._new_velocities:
                    self.optimizer.velocities[name] = self._new_velocities.pop(name)
        return loss

    def pinned_input(self) -> np.ndarray:
        """Page-locked uint8 (N,H,W,C) on the host to write images into; see CudaPlan.pinned_input."""
        with self._lock:
            return self.input.pinned(self.batch_size, self.request.size)

    @property
    def trained(self) -> dict[str, Trained]:
        """Of every parameter that is updated, by the model's name: itself, its group, the optimizer's name for it."""
        return self.program.trained

    @property
    def gradients(self) -> dict[str, Array]:
        """Of the last step, by the parameters' names."""
        return self.program.gradients

    @property
    def logits(self) -> Array:
        """Of the last step, before its update."""
        return self.program.logits

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.request,)

    def _target(self, target: Any) -> Array:
        """`target` as int64 in C order, checked as far as that needs no waiting."""
        target = as_array(target, "training plan: target")
        check_target(target, self.batch_size)
        if not self.queue.owns(target):
            if not isinstance(target, np.ndarray):
                raise BackendError(f"training plan: target is {self.queue.name_of(target)}, not where the plan is")
            check_classes(target, self.model.num_classes)
        return contiguous(target.astype(np.int64, copy=False))

    def _signature(self) -> list[Any]:
        """Whatever the launches themselves depend on; identities, of objects that the plan keeps."""
        parameters = [(id(p.data), p.requires_grad) for p in self.model.parameters()]
        rule = [self.optimizer.rule, *(bool(group["momentum"]) for group in self.optimizer.param_groups)]
        velocities = [id(self._velocity(name)) for _, _, name in self.trained.values()]
        return [parameters, rule, velocities, [layer.p for layer in dropout_layers(self.model)]]

    def _velocity(self, name: str) -> Array | None:
        """Of the parameter that the optimizer calls `name`."""
        return self.optimizer.velocities.get(name, self._new_velocities.get(name))

    def _velocities(self, trained: dict[str, Trained]) -> dict[str, Array]:
        """By the model's names, of those with momentum; made where there is none yet."""
        found = {}
        for own, (parameter, group, name) in trained.items():
            if group["momentum"]:
                if self._velocity(name) is None:
                    self._new_velocities[name] = empty(parameter.data.shape, parameter.data)
                found[own] = self._velocity(name)
        return found

    def _room(self, nbytes: int) -> Array:
        if self.memory.nbytes < nbytes:
            self.memory = self.queue.allocate(nbytes)
        return self.memory

    def _build(self) -> None:
        """Write the step down for the model and the optimizer as they are."""
        self.program = TrainingProgram(self.request, self.queue, self._velocities, self._room)
        self.signature = self._signature()

    def _repr_html_(self) -> str:
        """What a notebook shows: the steps, a line each."""
        return html_lines(repr(self))

    def __repr__(self) -> str:
        program, (H, W), smoothing = self.program, self.request.size, self.request.label_smoothing
        smooth = f", label smoothing {smoothing:g}" if smoothing else ""
        rows = []
        for line in program.lines:
            buffer = f"{'x'.join(map(str, line.shape))} {megabytes(line.nbytes)}"
            numbers = (str(line.forward), str(line.backward), gigaflops(line.step.macs))
            rows.append((line.step.name, line.step.algorithm, buffer, *numbers))
        forward, backward = sum(line.forward for line in program.lines), sum(line.backward for line in program.lines)
        trained = megabytes(sum(parameter.data.nbytes for parameter, _, _ in program.trained.values()))
        memory = f"{megabytes(program.nbytes)} of memory for {megabytes(program.unshared)} of arrays"
        return table(
            f"Training plan on the GPU for {self.batch_size} images of {H}x{W}, float32, "
            f"products {self.request.precision}{smooth}",
            ("step", "algorithm", "buffer", "forward", "backward", "GFLOP/image"),
            rows,
            f"{forward} launches forward, 2 for the loss, {backward} backward, {len(program.trained)} for SGD on "
            f"{trained} of parameters; {memory}",
        )
