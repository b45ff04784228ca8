"""A training plan and the array operations in float64, side by side.

Differences are relative to the largest value of an array; tf32's are 1000 times those of float32.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

import alexnet_np as anp
from alexnet_np.plan import compile_training
from cuda_shim.machines import Cpu

N, SIZE, CLASSES = 5, (99, 99), 10
OPTIONS = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}


def build(preset: str = "torchvision", dtype: str = "float32") -> Any:
    return anp.alexnet(preset, width=1 / 16, num_classes=CLASSES, seed=3, dtype=dtype).train()


def batch(seed: int, C: int = 3, size: tuple[int, int] = SIZE, count: int = N) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, C, *size), np.float32), rng.integers(0, CLASSES, count)


class Both:
    """A model under the plan, and the same one on the array operations in float64, step by step side by side."""

    def __init__(self, machine: Any, preset: str = "torchvision", size: tuple[int, int] = SIZE, **options: Any) -> None:
        self.machine, self.size, self.smoothing = machine, size, options.pop("label_smoothing", 0.0)
        precision, self.bound = options.pop("precision", None), options.pop("bound", machine.bound)
        self.count, self.compared = options.pop("count", N), options.pop("compared", "")  # names that begin so
        groups = options.pop("groups", lambda model: model.named_parameters())
        self.model = options.pop("model", None) or build(preset)
        self.double = copy.deepcopy(self.model).astype("float64")
        machine.move(self.model)
        self.optimizers = [anp.SGD(groups(m), **{**OPTIONS, **options}) for m in (self.model, self.double)]
        common = {"size": size, "label_smoothing": self.smoothing, "precision": precision}
        self.plan = compile_training(self.model, self.optimizers[0], self.count, **common)
        self.worst = 0.0

    def step(self, seed: int) -> None:
        x, target = batch(seed, self.model.in_channels, self.size, self.count)
        loss = self.machine.fetch(self.plan(self.machine.place(x), target))
        expected, cache = anp.ops.cross_entropy.forward(
            self.double(x.astype(float)), target, label_smoothing=self.smoothing
        )
        self.double.zero_grad()
        self.double.backward(anp.ops.cross_entropy.backward(1.0, cache), input_grad=False)
        gradients = {
            n: p.grad for n, p in self.double.named_parameters() if p.grad is not None and n in self.plan.trained
        }
        self.optimizers[1].step()
        assert loss.shape == ()
        self.close(loss, expected, self.compared, "loss")
        in_cache = set(gradients) - set(self.plan.gradients)  # applied there, to be seen by the velocities
        assert not in_cache or isinstance(self.machine, Cpu)
        assert all(name.startswith("classifier") and name.endswith("weight") for name in in_cache)
        for name in gradients.keys() & self.plan.gradients.keys():
            self.close(self.plan.gradients[name], gradients[name], name, "gradient")
        for (name, p), q in zip(self.model.named_parameters(), self.double.parameters(), strict=True):
            self.close(p.data, q.data, name, "itself")
        assert set(self.optimizers[0].velocities) == set(self.optimizers[1].velocities)
        for name, velocity in self.optimizers[1].velocities.items():
            self.close(self.optimizers[0].velocities[name], velocity, name, "velocity")

    def close(self, actual: Any, expected: np.ndarray, name: str, what: str) -> None:
        if not name.startswith(self.compared):
            return
        actual = self.machine.fetch(actual) if not isinstance(actual, np.ndarray) else np.array(actual)
        error = np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30)
        assert actual.shape == expected.shape
        assert error <= self.bound, f"{name} {what} differs by {error:.1e} of its largest value"
        self.worst = max(self.worst, error)

    def both(self, act: Any) -> None:
        """Do something to both models or optimizers."""
        for model, optimizer in zip((self.model, self.double), self.optimizers, strict=True):
            act(model, optimizer)
