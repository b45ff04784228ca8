"""One batch forward, backward and into the parameters: by a training plan where the kernels are ours, else layer by
layer, as hooks and float64 need it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import ops
from alexnet_np.device import Array, beside, on_gpu
from alexnet_np.models import AlexNet
from alexnet_np.plan import compile_training, hooked, shares_ties
from alexnet_np.training.sgd import SGD

ARRAYS = ("numpy", "cupy")  # backends whose readers want to see what the layers do
PLAN, EAGER = "plan", "eager"


class Done(NamedTuple):
    loss: float  # the batch's mean, before its update
    correct: int


class Stepper:
    """Steps of `model` by `optimizer`, on batches of at most `batch_size` images."""

    def __init__(
        self,
        model: AlexNet,
        optimizer: SGD,
        backend: str,
        batch_size: int,
        label_smoothing: float = 0.0,
    ) -> None:
        self.model, self.optimizer, self.backend = model, optimizer, backend
        self.batch_size, self.label_smoothing = batch_size, label_smoothing
        self._plans: dict[int, Any] = {}  # by size of batch

    @property
    def engine(self) -> str:
        """Who computes the next step. One whole run is computed by one."""
        arrays = self.backend in ARRAYS or self.model.dtype != np.float32
        return EAGER if arrays or hooked(self.model) or shares_ties(self.model) else PLAN

    def of(self, part: AlexNet) -> Stepper:
        """The same for a network that is a part of this one's."""
        return Stepper(part, self.optimizer, self.backend, self.batch_size, self.label_smoothing)

    def __call__(self, x: np.ndarray, target: np.ndarray, check: Callable[[float], None]) -> Done:
        """`check` sees the loss and may raise; layer by layer before anything is updated, in a plan after it."""
        x = beside(x, next(self.model.parameters()).data)
        return self._planned(x, target, check) if self.engine == PLAN else self._eager(x, target, check)

    def _planned(self, x: Array, target: np.ndarray, check: Callable[[float], None]) -> Done:
        most = len(x) if on_gpu(x) else self.batch_size  # a CUDA graph is of one size of batch
        if most not in self._plans:
            self._plans[most] = compile_training(
                self.model, self.optimizer, most, x.shape[2:], label_smoothing=self.label_smoothing
            )
        plan = self._plans[most]
        loss = float(plan(x, target))
        check(loss)
        return Done(loss, right(plan.logits, target))

    def _eager(self, x: Array, target: np.ndarray, check: Callable[[float], None]) -> Done:
        logits = self.model(x)
        mean, cache = ops.cross_entropy.forward(logits, target, label_smoothing=self.label_smoothing)
        loss = float(mean)
        check(loss)
        self.optimizer.zero_grad()
        self.model.backward(ops.cross_entropy.backward(1.0, cache), input_grad=False)
        self.optimizer.step()
        return Done(loss, right(logits, target))


def right(logits: Array, target: np.ndarray) -> int:
    return int((logits.argmax(1) == beside(target, logits)).sum())
