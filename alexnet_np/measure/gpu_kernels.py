"""Every op at AlexNet's own shapes on a GPU, forward and backward: the kernels' own time, with the floor beside it.

    alexnet bench kernels --device gpu [--op conv2d] [--version implicit] [--batch 8] [--out FILE]

The cases, their FLOPs and their bytes are cases.py's. Launches hide behind work queued before, and nothing of
use is left in L2 (gpu.py): these are the times of kernels, not of the Python that launches them. What multiplies
matrices is a work of its own in strict float32 and in TF32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.gemm_cuda import matmul_precision
from alexnet_np.kernels.variants import Variant, load
from alexnet_np.measure.cases import CASES, Case, Problem, pose
from alexnet_np.measure.gpu import LABELS, PEAKS, EventClock, Machine, to_numpy
from alexnet_np.measure.gpu_peers import configure
from alexnet_np.measure.harness import Contender, Work, attempt
from alexnet_np.measure.kernels import able, chosen, in_memory, our_calls, torch_calls
from alexnet_np.measure.units import sgd_work
from alexnet_np.study.torch_net import import_torch

ERRORS = {"strict": 1e-4, "tf32": 5e-3}  # relative, L2


def works(
    machine: Machine,
    batch: int,
    op: str | None = None,
    names: Iterable[str] = (),
    cases: Iterable[Case] | None = None,
) -> Iterator[Work]:
    """Each is made when its turn comes: its memory can go before the next."""
    versions = chosen("gpu", op, names)
    for case in CASES if cases is None else cases:
        if case.op in versions:
            problem = pose(case, batch)
            for arithmetic in LABELS if problem.macs else ("strict",):
                yield from _works(machine, versions[case.op], problem, arithmetic)


def sgd(machine: Machine, names: Iterable[str] = (), size: int | None = None) -> Work:
    versions = chosen("gpu", "sgd", names)["sgd"]
    return sgd_work(versions, machine.place, to_numpy, EventClock(machine, kernels=True), size)


def _works(machine: Machine, versions: list[Variant], problem: Problem, arithmetic: str) -> list[Work]:
    case, x, dy = problem.case, machine.place(problem.x), machine.place(np.asarray(problem.dy, np.float32))
    arrays = [machine.place(array) for array in problem.arrays]
    forward: list[Contender] = []
    backward: list[Contender] = []
    seen: list[tuple[Any, str]] = []
    for name, variant, own in arithmetics(versions, problem, arithmetic):
        calls = our_calls(variant, case, x, arrays, dy)
        run, _ = able(variant, calls[0])
        if run is not None:
            forward.append(Contender(name, in_arithmetic(own, run), peak=PEAKS[own]))
        gradients = getattr(load(variant), "gradients", None), own
        if gradients not in seen:  # versions that differ in their forward alone share it
            seen.append(gradients)
            backward.append(Contender(name, in_arithmetic(own, calls[1]), peak=PEAKS[own]))
    for name, memory in peers(case).items():
        for which, contenders in enumerate((forward, backward)):
            given = case, arithmetic, memory, (x, *arrays), dy, which
            call, missing = attempt(lambda: _torch(*given))  # noqa: B023
            contenders.append(Contender(name, call, missing, PEAKS[arithmetic]))
    label = f", {LABELS[arithmetic]}" if problem.macs else ""
    clock = EventClock(machine, kernels=True)
    made = problem.works(forward, backward, to_numpy, ERRORS[arithmetic])
    return [replace(work, name=work.name + label, clock=clock) for work in made]


def arithmetics(versions: list[Variant], problem: Problem, arithmetic: str) -> list[tuple[str, Variant, str]]:
    """(name, version, what it multiplies in): by tensor cores what the backend runs, strictly all."""
    chosen_ones = [v for v in versions if v.name == "cuda" and problem.macs]
    if arithmetic == "tf32":
        return [(v.label, v, "tf32") for v in chosen_ones]
    return [(v.label, v, "strict") for v in versions] + [(f"{v.label}, TF32x3", v, "tf32x3") for v in chosen_ones]


def in_arithmetic(arithmetic: str, call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with matmul_precision(arithmetic):
            return call()

    return run


def peers(case: Case) -> dict[str, str]:
    """torch's contenders and how images lie in memory for them."""
    images = {"torch channels_last": "channels_last"} if len(case.x) == 3 else {}
    return {"torch": "contiguous_format"} | images


def _torch(
    case: Case, arithmetic: str, memory: str, inputs: tuple[Array, ...], dy: Array, which: int
) -> tuple[Callable[[], Any], str]:
    """Forward (0) or backward (1), cudnn.benchmark on; called once, so that what is missing shows."""
    torch = import_torch()

    *tensors, gradient = (in_memory(torch.from_dlpack(array), memory).clone() for array in (*inputs, dy))
    configure(arithmetic, benchmark=True)
    keywords = case.keywords if case.torch_keywords is None else case.torch_keywords
    call = torch_calls(partial(getattr(torch.nn.functional, case.op), **keywords), tensors, gradient)[which]

    def run() -> Any:
        configure(arithmetic, benchmark=True)
        return call()

    run()
    return run, ""
