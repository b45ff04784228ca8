"""A network compiled for inference, for the device that it is on: alexnet_np/plan_cpu.py, alexnet_np/plan_cuda.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alexnet_np import ops
from alexnet_np.backend import on_gpu
from alexnet_np.errors import ArgumentError, DtypeError
from alexnet_np.models import AlexNet

if TYPE_CHECKING:
    from alexnet_np.plan_cpu import Plan
    from alexnet_np.plan_cuda import CudaPlan


def compile(
    model: AlexNet,
    max_batch: int = 128,
    exact: bool = False,
    size: int | tuple[int, int] = 224,
    precision: str | None = None,
) -> Plan | CudaPlan:
    """A plan for images of `size` (height and width) in batches up to `max_batch`; it runs `model` as in eval mode.

    `exact`: no fast algorithms; every convolution multiplies what its definition says.
    Another size of image is planned anew when it first comes. Which algorithm computes which layer is chosen here:
    alexnet_np/kernels/choices.py. A model on the GPU gets a CudaPlan, see alexnet_np/plan_cuda.py; there `precision` is
    the arithmetic of products, "strict", "tf32" or "tf32x3" (alexnet_np/kernels/gemm_cuda.py), by default the one in
    force. Raises ArgumentError, DtypeError (float32 only), BackendError.
    """
    if not isinstance(max_batch, int) or max_batch < 1:
        raise ArgumentError(f"compile: max_batch must be a positive int, got {max_batch!r}")
    if model.dtype != np.float32:
        raise DtypeError(f"compile: the model is {model.dtype}; plans are float32: model.astype('float32')")
    sides = ops.checks.pair("compile", "size", size, 1)
    if on_gpu(next(model.parameters()).data):
        from alexnet_np.plan_cuda import CudaPlan  # only now: a CPU needs none of it

        return CudaPlan(model, max_batch, exact, sides, precision)
    if precision is not None:
        raise ArgumentError("compile: precision is for models on the GPU; move this one with model.to('cuda')")
    from alexnet_np.plan_cpu import Plan  # only now: a GPU needs no Numba

    return Plan(model, max_batch, exact, sides)
