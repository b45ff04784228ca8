"""Every op at AlexNet's own shapes, forward and backward: versions of ours beside torch.nn.functional.

    alexnet bench kernels [--op conv2d] [--version naive] [--batch 8] [--cold] [--out FILE] [--roofline FILE]

Which versions there are, and what each is called, says kernels/variants.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from alexnet_np import ops
from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError
from alexnet_np.kernels import variants
from alexnet_np.kernels.choices import NoWay
from alexnet_np.kernels.variants import Variant
from alexnet_np.measure.cases import CASES, Case, Problem, pose
from alexnet_np.measure.harness import Contender, Run, Work, attempt
from alexnet_np.study.torch_net import import_torch

Calls = tuple[Callable[[], Any], Callable[[], Any]]  # forward and backward


def chosen(device: str, op: str | None, names: Iterable[str]) -> dict[str, list[Variant]]:
    """op -> its versions to be timed on a device, the backends' first: those of these names, or the usual ones.

    Raises ArgumentError naming the choices for an op or a name that there is not.
    """
    found: dict[str, list[Variant]] = {}
    for variant in sorted(variants.versions(op, device), key=lambda v: v.name != v.backend):
        if {variant.name, variant.label} & set(names) if names else variant.usual:
            found.setdefault(variant.op, []).append(variant)
    if op is not None and not names and op not in found:
        raise ArgumentError(f"{op} has no version on the {device}")
    for name in names:
        if op is not None:
            variants.find(op, name, device)
        elif not any(name in (v.name, v.label) for of_op in found.values() for v in of_op):
            known = dict.fromkeys(v.name for v in variants.versions(None, device))
            raise ArgumentError(f"no op has a version {name!r} on the {device}: choose one of {', '.join(known)}")
    return found


def works(batch: int, op: str | None = None, names: Iterable[str] = ()) -> Iterator[Work]:
    """Forward and backward of every case of `op` (of all where it is None), by the versions chosen and by torch."""
    versions = chosen("cpu", op, names)
    for case in CASES:
        if case.op in versions:
            problem = pose(case, batch)
            forward, backward = ours(versions[case.op], problem, bool(names))
            for name, run in peers(problem).items():
                forward.append(Contender(name, *attempt(partial(run, 0))))
                backward.append(Contender(name, *attempt(partial(run, 1))))
            yield from problem.works(forward, backward)


def ours(versions: list[Variant], problem: Problem, named: bool) -> tuple[list[Contender], list[Contender]]:
    """Forward and backward by each version. What does not compute this is left out, or told where it was `named`."""
    directions: tuple[list[Contender], list[Contender]] = [], []
    for variant in versions:
        if variant.missing:
            for contenders in directions:
                contenders.append(Contender(variant.label, None, variant.missing))
            continue
        calls = our_calls(variant, problem.case, *problem.inputs)
        for contenders, call in zip(directions, calls, strict=True):
            run, missing = able(variant, call)
            if run is not None or named:
                contenders.append(Contender(variant.label, run, missing))
    return directions


def able(variant: Variant, call: Callable[[], Any]) -> Run:
    """`call`, or None and why the version, a way of choices.py, does not compute it."""
    try:
        if variant.rows:
            call()
    except NoWay as error:
        return None, str(error)
    return call, ""


def our_calls(variant: Variant, case: Case, x: Array, arrays: list[Any], dy: Array) -> Calls:
    """A way of choices.py on the CPU is given images as it takes them, channels last."""
    module = getattr(ops, case.op)
    last = channels_last if variant.rows and variant.device == "cpu" else np.asarray
    if variant.device == "cpu":
        x, dy = last(x), last(dy)

    def forward() -> Any:
        with variants.using(variant, insisting=True):
            return module.forward(x, *arrays, **case.keywords)[0]

    with variants.using(variant):
        cache = module.forward(x, *arrays, **case.keywords)[1]

    def backward() -> Any:
        with variants.using(variant, insisting=True):
            return module.backward(dy, cache)

    return forward, backward


def channels_last(images: np.ndarray) -> np.ndarray:
    """The same (N,C,H,W), channels consecutive in memory; what has no images stays as it is."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(images, 1, -1)), -1, 1) if images.ndim == 4 else images


def peers(problem: Problem) -> dict[str, Callable[[int], Run]]:
    """torch's contenders: forward (0) or backward (1) of each."""
    memory = {"torch": "contiguous_format"}
    if problem.x.ndim == 4:
        memory["torch channels_last"] = "channels_last"

    def run(order: str, which: int) -> Run:
        torch = import_torch()
        arrays = [torch.from_numpy(array) for array in (problem.x, *problem.arrays)]
        *inputs, dy = (in_memory(tensor, order) for tensor in (*arrays, torch.as_tensor(problem.dy)))
        case = problem.case
        keywords = case.keywords if case.torch_keywords is None else case.torch_keywords
        return torch_calls(partial(getattr(torch.nn.functional, case.op), **keywords), inputs, dy)[which], ""

    return {name: partial(run, order) for name, order in memory.items()}


def in_memory(tensor: Any, order: str) -> Any:
    return tensor.contiguous(memory_format=getattr(import_torch(), order)) if tensor.ndim == 4 else tensor


def torch_calls(function: Callable[..., Any], inputs: list[Any], dy: Any) -> Calls:
    """Forward and backward of one of torch's functions on tensors of any device."""
    torch = import_torch()
    wanted = [tensor.requires_grad_() for tensor in inputs if tensor.is_floating_point()]
    y = function(*inputs)

    def forward() -> Any:
        with torch.no_grad():
            return function(*inputs)

    def backward() -> Any:
        gradients = torch.autograd.grad(y, wanted, dy, retain_graph=True)
        return gradients if len(gradients) > 1 else gradients[0]

    return forward, backward
