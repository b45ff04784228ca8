"""Every op at AlexNet's own shapes on a GPU, forward and backward: the kernels' own time, with the floor beside it.

    alexnet bench kernels --device gpu [--batch 8] [--op conv2d] [--out FILE]

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

import alexnet_np as anp
from alexnet_np.device import Array
from alexnet_np.kernels import conv2d_direct_cuda, conv2d_implicit_cuda
from alexnet_np.kernels.gemm_cuda import matmul_precision
from alexnet_np.layers import Parameter
from alexnet_np.measure.cases import CASES, Case, Problem, pose
from alexnet_np.measure.gpu import LABELS, PEAKS, EventClock, Machine, to_numpy
from alexnet_np.measure.gpu_peers import configure
from alexnet_np.measure.harness import Contender, Work, attempt
from alexnet_np.measure.kernels import Calls, our_calls, torch_calls
from alexnet_np.measure.training import OPTIONS
from alexnet_np.ops.conv2d import Geometry, find_geometry
from alexnet_np.ops.sgd import Step, torch_rule
from alexnet_np.study.torch_net import import_torch

ERRORS = {"strict": 1e-4, "tf32": 5e-3}  # relative, L2
OURS = {"strict": (("cupy", "strict"), ("cuda", "strict"), ("cuda, TF32x3", "tf32x3")), "tf32": (("cuda", "tf32"),)}
ALGORITHMS: dict[str, Callable[[Array, Array, Array, Geometry], Array]] = {  # conv2d's forward, beside the chosen one
    "cuda implicit": conv2d_implicit_cuda.compute,
    "cuda direct": conv2d_direct_cuda.compute,
}
PARAMETERS = 61_100_840  # torchvision's network


def works(machine: Machine, batch: int, only: str | None = None, cases: Iterable[Case] = CASES) -> Iterator[Work]:
    """Each is made when its turn comes: its memory can go before the next."""
    for case in cases:
        if only in (None, case.op):
            problem = pose(case, batch)
            for arithmetic in LABELS if problem.macs else ("strict",):
                yield from _works(machine, problem, arithmetic)


def _works(machine: Machine, problem: Problem, arithmetic: str) -> list[Work]:
    case, x, dy = problem.case, machine.place(problem.x), machine.place(np.asarray(problem.dy, np.float32))
    arrays = [machine.place(array) for array in problem.arrays]
    forward: list[Contender] = []
    backward: list[Contender] = []
    for name, own in OURS[arithmetic] if problem.macs else OURS[arithmetic][:2]:
        calls = our_calls(case, machine.backends[name.split(",")[0]], x, arrays, dy)
        forward.append(Contender(name, in_arithmetic(own, calls[0]), peak=PEAKS[own]))
        backward.append(Contender(name, in_arithmetic(own, calls[1]), peak=PEAKS[own]))
    if case.op == "conv2d" and arithmetic == "strict":
        geometry = find_geometry(x, *arrays, **{"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **case.keywords})
        forward += [
            Contender(name, partial(run, x, arrays[0], arrays[1], geometry)) for name, run in ALGORITHMS.items()
        ]
    for name, memory in peers(case).items():
        for which, contenders in enumerate((forward, backward)):
            given = case, arithmetic, memory, (x, *arrays), dy, which
            call, missing = attempt(lambda: _torch(*given))  # noqa: B023
            contenders.append(Contender(name, call, missing, PEAKS[arithmetic]))
    label = f", {LABELS[arithmetic]}" if problem.macs else ""
    clock = EventClock(machine, kernels=True)
    made = problem.works(forward, backward, to_numpy, ERRORS[arithmetic])
    return [replace(work, name=work.name + label, clock=clock) for work in made]


def in_arithmetic(arithmetic: str, call: Callable[[], Any] | None) -> Callable[[], Any]:
    assert call is not None

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

    def tensor(array: Array) -> Any:
        made = torch.from_dlpack(array)
        return made.contiguous(memory_format=getattr(torch, memory)) if made.ndim == 4 else made

    configure(arithmetic, benchmark=True)
    calls: Calls = torch_calls(case, [tensor(array).clone() for array in inputs], tensor(dy))
    call = calls[which]
    assert call is not None

    def run() -> Any:
        configure(arithmetic, benchmark=True)
        return call()

    run()
    return run, ""


def sgd(machine: Machine, size: int = PARAMETERS) -> Work:
    """One step over a network's parameters: weight, gradient and velocity read, weight and velocity written."""
    draw = np.random.default_rng(0).standard_normal
    weight, gradient = draw(size, np.float32), draw(size, np.float32)
    expected, velocity = weight.copy(), np.empty_like(weight)
    for first in (True, False):  # contenders are warmed up by two calls, and checked after the second
        torch_rule(expected, gradient, velocity, Step(**OPTIONS, first=first))

    def ours(backend: str) -> Callable[[], Any]:
        parameter = Parameter(machine.place(weight), fan_in=1)
        parameter.grad = machine.place(gradient)
        return stepping(anp.SGD([("weight", parameter)], **OPTIONS, backend=machine.backends[backend]), parameter)

    def theirs() -> tuple[Callable[[], Any], str]:
        torch = import_torch()
        parameter, grad = (torch.from_dlpack(machine.place(array)) for array in (weight, gradient))
        parameter.grad = grad
        return stepping(torch.optim.SGD([parameter], **OPTIONS, fused=True), parameter), ""

    def check(parameter: Any) -> None:
        error = np.abs(to_numpy(parameter.data) - expected).max()
        assert error < 1e-6, f"a contender's step is off by {error:.1e}"

    everyone = [Contender(name, ours(name)) for name in ("cupy", "cuda")]
    everyone.append(Contender("torch fused", *attempt(theirs)))
    clock = EventClock(machine, kernels=True)
    return Work(f"sgd, {size:,} parameters, step", 0.0, 5.0 * weight.nbytes, everyone, check, clock)


def stepping(optimizer: Any, parameter: Any) -> Callable[[], Any]:
    def step() -> Any:
        optimizer.step()
        return parameter

    return step
