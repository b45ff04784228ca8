"""A network compiled for inference, for the device that it is on: alexnet_np/plan/cpu.py, alexnet_np/plan/cuda.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from alexnet_np import layers, ops
from alexnet_np.device import on_gpu
from alexnet_np.errors import ArgumentError, DtypeError
from alexnet_np.models import AlexNet

if TYPE_CHECKING:
    from alexnet_np.plan.cpu import Plan
    from alexnet_np.plan.cuda import CudaPlan


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
    alexnet_np/kernels/choices.py. A model on the GPU gets a CudaPlan, see alexnet_np/plan/cuda.py; there `precision` is
    the arithmetic of products, "strict", "tf32" or "tf32x3" (alexnet_np/kernels/gemm_cuda.py), by default the one in
    force. Raises ArgumentError, DtypeError (float32 only), BackendError.
    """
    if not isinstance(max_batch, int) or max_batch < 1:
        raise ArgumentError(f"compile: max_batch must be a positive int, got {max_batch!r}")
    if model.dtype != np.float32:
        raise DtypeError(f"compile: the model is {model.dtype}; plans are float32: model.astype('float32')")
    sides = ops.checks.pair("compile", "size", size, 1)
    if on_gpu(next(model.parameters()).data):
        from alexnet_np.plan.cuda import CudaPlan  # only now: a CPU needs none of it

        return CudaPlan(model, max_batch, exact, sides, precision)
    if precision is not None:
        raise ArgumentError("compile: precision is for models on the GPU; move this one with model.to('cuda')")
    from alexnet_np.plan.cpu import Plan  # only now: a GPU needs no Numba

    return Plan(model, max_batch, exact, sides)


Shape = tuple[int, ...]


def layers_of(model: AlexNet, size: tuple[int, int]) -> Iterator[tuple[str, layers.Layer, bool, Shape, Shape]]:
    """Of each layer its name, itself, whether the ReLU after it is part of it, and the shapes of its input and output.

    The shapes are of one image, for images of `size`. A ReLU that is part of the layer before does not come by itself.
    """
    named = list(model.leaves())
    shape: Shape = (model.in_channels, *size)
    while named:
        name, layer = named.pop(0)
        entering, shape = shape, layer.output_shape((1, *shape))[1:]
        relu = isinstance(layer, layers.WeightedLayer) and bool(named) and isinstance(named[0][1], layers.ReLU)
        if relu:
            named.pop(0)
        yield name, layer, relu, entering, shape


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
