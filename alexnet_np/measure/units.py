"""What is timed as ops are and is no op of one layer: layers that run together, and a step of the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels import variants
from alexnet_np.kernels.variants import Variant
from alexnet_np.layers import Conv2d, Layer, MaxPool2d, ReLU
from alexnet_np.measure.cases import CASES, Case, Problem, problem_of
from alexnet_np.measure.harness import Clock, Contender, Run, WallClock, Work, attempt
from alexnet_np.measure.kernels import Calls, chosen, in_memory, torch_calls
from alexnet_np.measure.training import OPTIONS
from alexnet_np.ops import sgd
from alexnet_np.ops.sgd import Step, torch_rule
from alexnet_np.sequential import Sequential
from alexnet_np.study.torch_net import import_torch

FUSED = "conv2d_relu_max_pool2d"
STAGES = {"conv1": "pool1", "conv2": "pool2", "conv5": "pool5"}
PARAMETERS = 61_100_840  # torchvision's network


def fused_works(batch: int, op: str | None = None, names: Iterable[str] = ()) -> Iterator[Work]:
    """A convolution, its ReLU and its pooling: together, one after another on the same backend, and in torch."""
    versions = chosen("cpu", op, names).get(FUSED, [])
    cases = {case.layer: case for case in CASES}
    for conv, pool in STAGES.items() if versions else ():
        yield from _fused(cases[conv], cases[pool], batch, versions)


def _fused(conv: Case, pool: Case, batch: int, versions: list[Variant]) -> list[Work]:
    draw = np.random.default_rng(0).standard_normal
    x = draw((batch, *conv.x), dtype=np.float32)
    arrays = [draw(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:]))) for shape in conv.arrays]

    def layers(backend: str) -> list[Layer]:
        (F, C, K, _), _ = conv.arrays
        made = [Conv2d(C, F, K, **conv.keywords), ReLU(), MaxPool2d(**pool.keywords)]
        for parameter, array in zip(made[0].parameters(), arrays, strict=True):
            parameter.data = array
        for layer in made:
            layer.backend = backend
        return made

    truth = Sequential(layers("numpy"))
    y = truth(x)
    dy = draw(y.shape, dtype=np.float32)
    gradients = truth.backward(dy), *(p.grad for p in truth.parameters())
    macs = truth[0].macs(x.shape)
    case = Case(FUSED, f"{conv.layer} to {pool.layer}", conv.x, conv.arrays)
    problem = problem_of(case, x, arrays, dy, (y, gradients), macs)
    ways: dict[str, Calls] = {}
    for variant in versions:
        ways[variant.label] = our_calls(Sequential(layers(variant.backend)), x, dy)
        ways[f"{variant.label}, one by one"] = our_calls(OneByOne(layers(variant.backend)), x, dy)
    ways["numpy"] = our_calls(truth, x, dy)
    forward, backward = ([Contender(name, calls[i]) for name, calls in ways.items()] for i in (0, 1))
    for label, order in {"torch": "contiguous_format", "torch channels_last": "channels_last"}.items():
        for which, contenders in enumerate((forward, backward)):
            contenders.append(Contender(label, *attempt(partial(_torch, conv, pool, problem, order, which))))
    return problem.works(forward, backward)


class OneByOne(Sequential):
    """The same layers, none taken together."""

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, dy: Array, input_grad: bool = True, retain_graph: bool = False) -> Any:
        for layer in reversed(self.layers):
            dy = layer.backward(dy, True, retain_graph)
        return dy


def our_calls(layers: Sequential, x: np.ndarray, dy: np.ndarray) -> Calls:
    """As users have them: forward keeps what backward needs."""
    layers(x)

    def backward() -> Any:
        for parameter in layers.parameters():
            parameter.grad = None
        return layers.backward(dy, retain_graph=True), *(p.grad for p in layers.parameters())

    return lambda: layers(x), backward


def _torch(conv: Case, pool: Case, problem: Problem, order: str, which: int) -> Run:
    torch = import_torch()
    functional = torch.nn.functional

    def function(x: Any, weight: Any, bias: Any) -> Any:
        return functional.max_pool2d(functional.conv2d(x, weight, bias, **conv.keywords).relu(), **pool.keywords)

    tensors = [torch.from_numpy(array) for array in (problem.x, *problem.arrays, problem.dy)]
    *inputs, dy = (in_memory(tensor, order) for tensor in tensors)
    return torch_calls(function, inputs, dy)[which], ""


def sgd_work(
    versions: list[Variant],
    place: Callable[[np.ndarray], Array] = np.copy,
    fetch: Callable[[Any], np.ndarray] = np.asarray,
    clock: Clock | None = None,
    size: int | None = None,
) -> Work:
    """One step over a network's parameters: weight, gradient and velocity read, weight and velocity written."""
    size, draw = size or PARAMETERS, np.random.default_rng(0).standard_normal
    weight, gradient = draw(size, np.float32), draw(size, np.float32)
    expected, velocity = weight.copy(), np.empty_like(weight)
    for first in (True, False):  # contenders are warmed up by two calls, and checked after the second
        torch_rule(expected, gradient, velocity, Step(**OPTIONS, first=first))

    def theirs() -> Run:
        torch = import_torch()
        parameter, grad = (as_tensor(torch, place(array)) for array in (weight, gradient))
        parameter.grad = grad
        optimizer = torch.optim.SGD([parameter], **OPTIONS, fused=True)

        def run() -> Any:
            optimizer.step()
            return parameter

        return run, ""

    def check(parameter: Any) -> None:
        error = np.abs(fetch(parameter) - expected).max()
        assert error < 1e-6, f"a contender's step is off by {error:.1e}"

    everyone = [Contender(v.label, *_stepping(v, place, weight, gradient)) for v in versions]
    everyone.append(Contender("torch fused", *attempt(theirs)))
    name = f"sgd, {size:,} parameters, step"
    return Work(name, 0.0, 5.0 * weight.nbytes, everyone, check, clock or WallClock())


def _stepping(variant: Variant, place: Callable[[np.ndarray], Array], weight: np.ndarray, gradient: np.ndarray) -> Run:
    if variant.device == "cpu" and variant.missing:
        return None, variant.missing
    parameter, grad, velocity = place(weight), place(gradient), place(np.empty_like(weight))
    steps = iter([Step(**OPTIONS, first=True)])

    def run() -> Array:
        with variants.using(variant):
            sgd.update(parameter, grad, velocity, next(steps, Step(**OPTIONS)))
        return parameter

    return run, ""


def as_tensor(torch: Any, array: Array) -> Any:
    return torch.from_numpy(array) if type(array) is np.ndarray else torch.from_dlpack(array)
