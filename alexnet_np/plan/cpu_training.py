"""A training step compiled for the CPU: forward with dropout, cross-entropy, backward and SGD on memory planned once.

What it saves over the model called layer by layer: nothing is allocated in the loop; images stay channels-last in
buffers, a few at a time in the cache from a convolution to the next; filters are transformed once for both directions;
ReLU's gradient before a pooling is masked after it, where there is less of it; and the gradients of the dense weights,
most of all parameters, are applied by SGD while they are in the cache and never written.

The model's own parameters and the optimizer's velocities are updated in place, and read anew in every step: weights
changed by hand, a schedule's rates, momentum switched on, velocities loaded are seen. Parameters frozen or thawed,
layers replaced, dropout switched off: the step is laid out anew when it next runs.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from alexnet_np import layers
from alexnet_np.device import Array, as_array, on_gpu
from alexnet_np.errors import BackendError, DtypeError, ShapeError
from alexnet_np.plan import images
from alexnet_np.plan.cpu_training_buffers import Update
from alexnet_np.plan.cpu_training_program import TrainingProgram
from alexnet_np.plan.table import gigaflops, megabytes, table
from alexnet_np.plan.training import TrainingRequest, check_classes, check_target, find_trained
from alexnet_np.text import html_lines


class TrainingPlan:
    """See `alexnet_np.plan.compile_training`. Calls from several threads take turns.

    Copied, or sent to another process, it is compiled anew there, from a copy of its model and optimizer.
    """

    def __init__(self, request: TrainingRequest) -> None:
        self.request = request
        self.model, self.optimizer, self.batch_size = request.model, request.optimizer, request.batch_size
        self._lock = threading.Lock()
        self._build()

    def __call__(self, x: Any, target: Any) -> Array:
        """One step; returns the mean loss of the batch before it, () float32.

        `x`: as for the inference plan, float32 (N,C,H,W) or bytes (N,H,W,C), N up to the plan's batch_size, so that an
        epoch's last batch may be smaller. `target`: class indices (N,), any integers.
        Raises ShapeError, DtypeError, ArgumentError, BackendError.
        """
        x, shape = images.checked(self.model, x)
        if not isinstance(x, np.ndarray):
            raise BackendError(f"training plan: x is {name_of(x)}, not where the plan is; move it with x.get()")
        most, (H, W) = self.batch_size, self.request.size
        if shape[2:] != (H, W) or not 1 <= shape[0] <= most:
            got = f"{shape[0]} of {shape[2]}x{shape[3]}"
            raise ShapeError(f"training plan: it is for 1 to {most} images of {H}x{W}, got {got}")
        target = self._target(target, shape[0])
        with self._lock:
            if self._signature() != self.signature:
                self._build()
            self._check_parameters()
            loss = self.program.run(np.require(x, None, ["C", "W"]), target)  # kernels are compiled for writeable ones
            for _, layer in self.model.leaves():
                if isinstance(layer, layers.Dropout):
                    layer.calls += 1
        return np.asarray(loss)

    @property
    def trained(self) -> dict[str, Update]:
        """Of every parameter that is updated, by the model's name: itself, its group, the optimizer's name for it."""
        return self._updates

    @property
    def gradients(self) -> dict[str, Array]:
        """Of the last step, by the parameters' names; not of the weights that are updated while theirs is in the cache,
        which then is nowhere."""
        return self.program.gradients

    @property
    def logits(self) -> Array:
        """Of the last step, before its update: a view that the next step overwrites."""
        return self.program.loss.logits[: self.program.loss.count]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.request,)

    def _target(self, target: Any, N: int) -> Array:
        target = as_array(target, "training plan: target")
        if not isinstance(target, np.ndarray):
            raise BackendError(f"training plan: target is {name_of(target)}, not where the plan is")
        check_target(target, N)
        check_classes(target, self.model.num_classes)
        return target

    def _check_parameters(self) -> None:
        """Raise where kernels cannot read and update a parameter in place."""
        for name, parameter in self.model.named_parameters():
            array = parameter.data
            if not isinstance(array, np.ndarray):
                where = name_of(array)
                raise BackendError(f"training plan: {name} is {where} now; move the model back, or compile it anew")
            if array.dtype != np.float32 or not (array.flags.carray or not array.size):
                what = f"{array.dtype} with strides {array.strides}{'' if array.flags.writeable else ', read-only'}"
                raise DtypeError(f"training plan: {name} must be float32, in C order, writeable, got {what}")

    def _signature(self) -> list[Any]:
        """Whatever the layout depends on; identities, of objects that the plan keeps."""
        groups = [(id(p), id(group)) for group in self.optimizer.param_groups for p in group["params"]]
        parameters = [(id(p), p.data.shape, p.requires_grad) for p in self.model.parameters()]
        leaves = [(id(layer), getattr(layer, "p", None) == 0) for _, layer in self.model.leaves()]
        return [groups, parameters, leaves]

    def _build(self) -> None:
        """Lay the step out for the model and the optimizer as they are."""
        self._check_parameters()
        self._updates = {name: Update(*each, self.optimizer) for name, each in find_trained(self.request).items()}
        self.program = TrainingProgram(self.request, self._updates)
        self.signature = self._signature()

    def _repr_html_(self) -> str:
        """What a notebook shows: the steps, a line each."""
        return html_lines(repr(self))

    def __repr__(self) -> str:
        program, (H, W), smoothing = self.program, self.request.size, self.request.label_smoothing
        smooth = f", label smoothing {smoothing:g}" if smoothing else ""
        rows = []
        for some, count in zip((*program.units, program.rows), (*program.passes, self.batch_size), strict=True):
            for step in some:
                kept = f"{step.target.images}x{step.target.layout} {megabytes(step.target.array.nbytes)}"
                back = "" if step.dx is None else megabytes(step.dx.array.nbytes)
                rows.append((step.name, step.algorithm, kept, back, str(count), gigaflops(step.macs)))
        trained = megabytes(sum(update.parameter.data.nbytes for update in self._updates.values()))
        return table(
            f"Training plan on the CPU for up to {self.batch_size} images of {H}x{W}, float32{smooth}",
            ("step", "algorithm", "buffer", "gradient", "at a time", "GFLOP/image"),
            rows,
            f"{len(self._updates)} parameters of {trained} trained; {megabytes(program.nbytes)} of memory",
        )


def name_of(array: Any) -> str:
    return "on a GPU" if on_gpu(array) else f"a {type(array).__name__}"
