"""Every op at AlexNet's own shapes, forward and backward: each backend of ours beside torch.nn.functional.

alexnet bench kernels [--batch 8] [--op conv2d] [--cold] [--out FILE] [--roofline FILE]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alexnet_np import ops
from alexnet_np.backend import BACKENDS, available_backends, use_backend
from alexnet_np.errors import MissingPackageError
from alexnet_np.measure.cases import CASES, Case, Problem, pose
from alexnet_np.measure.harness import Contender, Work
from alexnet_np.study.torch_net import import_torch

Calls = tuple[Callable[[], Any] | None, Callable[[], Any] | None]  # forward and backward; None for who is missing


def works(batch: int, only: str | None = None) -> list[Work]:
    """Forward and backward of every case, with every backend that runs here and torch."""
    chosen = [case for case in CASES if only in (None, case.op)]
    return [work for case in chosen for work in _works(pose(case, batch))]


def _works(problem: Problem) -> list[Work]:
    found = []
    for backend, usable in available_backends().items():
        if BACKENDS[backend] == "cpu":
            calls = our_calls(problem.case, backend, *problem.inputs) if usable is True else (None, None)
            found.append((backend, calls, "" if usable is True else str(usable)))
    found.append(("torch", *_torch(problem)))
    forward, backward = ([Contender(name, calls[i], missing) for name, calls, missing in found] for i in (0, 1))
    return problem.works(forward, backward)


def our_calls(case: Case, backend: str, x: Any, arrays: list[Any], dy: Any) -> Calls:
    module = getattr(ops, case.op)

    def forward() -> Any:
        with use_backend(backend):
            return module.forward(x, *arrays, **case.keywords)[0]

    cache = module.forward(x, *arrays, **case.keywords)[1]  # any forward's cache serves any backward

    def backward() -> Any:
        with use_backend(backend):
            return module.backward(dy, cache)

    return forward, backward


def _torch(problem: Problem) -> tuple[Calls, str]:
    try:
        torch = import_torch()
    except MissingPackageError:
        return (None, None), "torch is not installed"
    inputs = [torch.from_numpy(a) for a in (problem.x, *problem.arrays)]
    return torch_calls(problem.case, inputs, torch.as_tensor(problem.dy)), ""


def torch_calls(case: Case, inputs: list[Any], dy: Any) -> Calls:
    """The same by torch.nn.functional on tensors of any device."""
    torch = import_torch()

    function = getattr(torch.nn.functional, case.op)
    keywords = case.keywords if case.torch_keywords is None else case.torch_keywords
    wanted = [tensor.requires_grad_() for tensor in inputs if tensor.is_floating_point()]
    y = function(*inputs, **keywords)

    def forward() -> Any:
        with torch.no_grad():
            return function(*inputs, **keywords)

    def backward() -> Any:
        gradients = torch.autograd.grad(y, wanted, dy, retain_graph=True)
        return gradients if len(gradients) > 1 else gradients[0]

    return forward, backward
