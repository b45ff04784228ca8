"""Copies of a model's parameters on the GPU, as the products take them: written again by `refresh`.

Dense weights in 16 bits are packed from the model's own, of which no copy is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alexnet_np.device import Array, to_cpu
from alexnet_np.errors import ArgumentError
from alexnet_np.kernels import linear_int16_cuda
from alexnet_np.kernels.gemm_cuda import matmul_precision
from alexnet_np.kernels.gpu.runtime import contiguous, recording
from alexnet_np.kernels.gpu.tape import Tape
from alexnet_np.layers import stand_in
from alexnet_np.models import AlexNet
from alexnet_np.plan.cuda_steps import DenseInt16, Weighted


class PreparedWeights:
    """Those of `steps`, which may be any size's: every program of a plan reads the same."""

    def __init__(self, queue: Any, model: AlexNet, steps: list[Any], precision: str) -> None:
        self.queue, self.model, self.tape = queue, model, Tape()
        self.prepared: dict[str, Any] = {}
        weighted = [step for step in steps if isinstance(step, Weighted)]
        shapes = {name: p.shape for step in weighted for name, p in step.layer.named_parameters(step.name)}
        self.packed = {f"{step.name}.weight" for step in weighted if isinstance(step, DenseInt16)}
        copied = {name: shape for name, shape in shapes.items() if name not in self.packed}
        self.copies = {name: self.tape.stays(self.tape.ghost(shape)) for name, shape in copied.items()}
        with recording(self.tape), matmul_precision(precision):
            for step in weighted:
                weight, bias = f"{step.name}.weight", f"{step.name}.bias"
                self.prepared[weight] = step.prepare(self.copies.get(weight, stand_in(shapes[weight])))
                if bias in self.copies:
                    self.prepared[bias] = self.copies[bias]
        for step in weighted:
            for array in self.arrays(step.name):
                self.tape.stays(array)
        self.total = self.tape.plan_memory()
        self.tape.put(queue.allocate(self.total))
        self.calls = self.tape.bind(queue)

    def refresh(self) -> None:
        """Inside the queue's turn."""
        for name, parameter in self.model.named_parameters():
            if name in self.copies:
                self.queue.copy(contiguous(parameter.data), self.tape.real(self.copies[name]))
            if name in self.packed:
                linear_int16_cuda.pack(parameter.data, self._real(name))
        for call in self.calls:
            call()

    def check(self) -> None:
        """Outside a turn. Raises ArgumentError for weights that 16 bits cannot hold."""
        for name in sorted(self.packed):
            if not np.isfinite(to_cpu(self._real(name).scales)).all():
                raise ArgumentError(f"compile: {name} has values that are not finite, which int16 cannot hold")

    def _real(self, name: str) -> linear_int16_cuda.Packed:
        return linear_int16_cuda.Packed(*map(self.tape.real, self.prepared[name]))

    def arrays(self, step: str) -> list[Array]:
        """What is kept for a step."""
        operand, bias = self.prepared.get(f"{step}.weight"), self.prepared.get(f"{step}.bias")
        arrays = [] if bias is None else [bias]
        if isinstance(operand, linear_int16_cuda.Packed):
            arrays += operand
        elif operand is not None:
            split = operand.prepared.low is not None  # else the prepared weight is a view of the weight
            arrays += [operand.weight, *(operand.prepared if split else ())]
        return arrays
