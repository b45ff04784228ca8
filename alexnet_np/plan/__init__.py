"""A network compiled, for the device that it is on: for inference (`compile`), for training steps (`compile_training`).

    step      a line of a plan: a layer with what became part of it, where its input lies and where its output goes
    buffer    the memory that one step writes and the next reads, planned beforehand and used again and again
    stage     the steps from one pooling to the next, on the CPU: they take a few images through together
    pass      those few images, as many as keep a stage's buffers in the shared cache
    chunk     the images that go through all the stages before the next ones do; dense layers take the whole batch
    program   all steps with their memory, for one size of image, and on the GPU for one size of batch

base.py is what the plans of both devices do; layout.py walks over the layers; steps.py says what a step is,
cpu_steps.py, cpu_training_steps.py and cuda_steps.py how each device takes it; training.py is what training plans
share; cpu.py, cpu_training.py, cuda.py and cuda_training.py are the plans; table.py prints them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from alexnet_np import arguments
from alexnet_np.device import on_gpu
from alexnet_np.errors import ArgumentError, DtypeError
from alexnet_np.models import AlexNet
from alexnet_np.models import check_model as check_network
from alexnet_np.plan import images, layout
from alexnet_np.plan.base import InferencePlan, Request
from alexnet_np.plan.training import TrainingRequest

DENSE = ("float32", "int16")  # how a plan may store dense weights


def compile(
    model: AlexNet,
    max_batch: int = 128,
    outputs: Iterable[str] | None = None,
    *,
    exact: bool = False,
    size: int | tuple[int, int] | None = None,
    precision: str | None = None,
    forget: bool = False,
    dense: str = "float32",
    at_once: int = 1,
) -> InferencePlan:
    """A plan for images of `size` (height and width) in batches up to `max_batch`; it runs `model` as in eval mode.

    `outputs`: None for the logits; or names of layers, such as ("classifier.5", "logits"), and the plan gives a dict
    of name -> array, computing nothing that comes after the last of them. A part such as "features" is its last layer.
    `size`: by default the preset's; another size of image is planned anew when it first comes.
    `exact`: no fast algorithms; every convolution multiplies what its definition says. Which algorithm computes which
    layer is chosen in alexnet_np/kernels/choices.py.
    `precision`, for a model on the GPU: the arithmetic of products, "strict", "tf32" or "tf32x3"
    (alexnet_np/kernels/gemm_cuda.py), by default the one in force.
    `forget`, for a model on the CPU: its weights are dropped as they are taken, and dense ones packed where they lie,
    so that they are never there twice; then the model is good for nothing else, and the plan cannot be refreshed or
    copied.
    `dense`: how dense weights are stored, "float32", or "int16" with a scale for each 64 inputs of an output: half the
    bytes, which is what a batch of 1 takes its time for; logits are some 2e-5 off.
    `at_once`, for a model on the CPU: how many plans will run at the same time, this one's twins (`Plan.twin`) among
    them. Each takes its share of the cache, and of the memory.

    The traps: the weights are copies, until `plan.refresh()`; and hooks do not fire, since what lies between layers is
    often computed nowhere: ask for it with `outputs`.
    Raises ArgumentError, DtypeError (float32 only), BackendError.
    """
    check_model("compile", model)
    max_batch = arguments.integer("compile", "max_batch", max_batch, 1)
    exact = arguments.flag("compile", "exact", exact)
    names = None if outputs is None else tuple(layout.named_outputs(model, outputs))
    sides = arguments.pair("compile", "size", images.default_size(model) if size is None else size, 1)
    forget = arguments.flag("compile", "forget", forget)
    arguments.choice("compile", "dense", dense, DENSE)
    at_once = arguments.integer("compile", "at_once", at_once, 1)
    request = Request(model, max_batch, names, exact, sides, precision, forget, dense, at_once)
    if on_gpu(next(model.parameters()).data):
        from alexnet_np.plan.cuda import CudaPlan  # only now: a CPU needs none of it

        return CudaPlan(request)
    if precision is not None:
        raise ArgumentError("compile: precision is for models on the GPU; move this one with model.to('cuda')")
    from alexnet_np.plan.cpu import Plan  # only now: a GPU needs no Numba

    return Plan(request)


def compile_training(
    model: AlexNet,
    optimizer: Any,
    batch_size: int,
    size: int | tuple[int, int] | None = None,
    label_smoothing: float = 0.0,
    precision: str | None = None,
) -> Any:
    """A training step for batches of `batch_size` images of `size`; it runs `model` as in train mode.

        optimizer = anp.SGD(model.named_parameters(), lr=0.01, momentum=0.9)
        step = compile_training(model, optimizer, batch_size=128)
        for x, target in batches:
            loss = step(x, target)

    Forward with dropout, cross-entropy, backward and SGD; parameters and velocities are updated in place.
    `batch_size`: on the CPU the most images of a batch, on the GPU how many each has.
    `optimizer`: an SGD over parameters of `model`; those it does not have, or that are frozen, stay.
    `size`: by default the preset's. `precision`, for a model on the GPU: the arithmetic of products, "strict", "tf32"
    or "tf32x3", by default the one in force.

    The traps: hooks do not fire; and `.grad` is not filled: the gradients of the last step that are kept are
    `step.gradients`.
    Raises ArgumentError, DtypeError (float32 only), BackendError.
    """
    check_model("compile_training", model)
    if shares_ties(model):
        raise ArgumentError(
            "compile_training: ties that go to all maxima need equal sums to come out equal, as Winograd's do not; "
            "train layer by layer, with model and backward"
        )
    batch_size = arguments.integer("compile_training", "batch_size", batch_size, 1)
    label_smoothing = arguments.number("compile_training", "label_smoothing", label_smoothing, 0, 1)
    if not hasattr(optimizer, "param_groups"):
        raise ArgumentError(f"compile_training: optimizer must be an SGD, got {arguments.shown(optimizer)}")
    ours = {id(p) for p in model.parameters()}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            if id(parameter) not in ours:
                raise ArgumentError(f"compile_training: the optimizer's {name!r} is not a parameter of this model")
    sides = arguments.pair("compile_training", "size", images.default_size(model) if size is None else size, 1)
    if not on_gpu(next(model.parameters()).data):
        if precision is not None:
            raise ArgumentError(
                "compile_training: precision is for models on the GPU; move this one with model.to('cuda')"
            )
        from alexnet_np.plan.cpu_training import TrainingPlan  # only now: a GPU needs no Numba

        return TrainingPlan(TrainingRequest(model, optimizer, batch_size, sides, label_smoothing))
    from alexnet_np.kernels.gemm_cuda import check_precision  # only now: a CPU needs none of it
    from alexnet_np.plan.cuda_training import CudaTrainingPlan

    arithmetic = check_precision(precision)
    return CudaTrainingPlan(TrainingRequest(model, optimizer, batch_size, sides, label_smoothing, arithmetic))


def check_model(what: str, model: Any) -> None:
    """Raise where `model` cannot be compiled; warn where somebody listens to its layers."""
    check_network(what, model)
    if model.dtype != np.float32:
        raise DtypeError(f"{what}: the model is {model.dtype}; plans are float32: model.astype('float32')")
    if names := hooked(model):
        warnings.warn(f"{what}: hooks do not fire in a plan: {', '.join(names)}", stacklevel=3)


def hooked(model: AlexNet) -> list[str]:
    """The parts of a model that somebody listens to, by name."""
    parts = [("the model", model), ("features", model.features), ("classifier", model.classifier), *model.leaves()]
    return [name for name, layer in parts if layer.hooked]


def shares_ties(model: AlexNet) -> bool:
    """Whether all maxima of a pooling get its gradient, not the first alone."""
    return any(getattr(layer, "ties", "first") != "first" for layer in model.modules())
