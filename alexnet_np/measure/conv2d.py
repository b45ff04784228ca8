"""Every convolution algorithm of ours alone, at AlexNet's shapes, beside torch's convolution: forward only.

Rows of `choices` force the algorithm. Filters are packed in the timed call, as in eager mode; a plan packs them once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from alexnet_np import ops
from alexnet_np.backend import use_backend
from alexnet_np.errors import MissingPackageError
from alexnet_np.kernels import choices, conv2d_numba
from alexnet_np.kernels.cpu.simd import MACHINE
from alexnet_np.kernels.problems import of_convolution
from alexnet_np.measure.cases import CASES, Case
from alexnet_np.measure.harness import Contender, Work
from alexnet_np.study.torch_net import import_torch

ERROR = 1e-4  # relative, L2
PEERS = ("torch contiguous", "torch channels_last")


def works(batch: int) -> list[Work]:
    return [work(case, batch) for case in CASES if case.op == "conv2d"]


def work(case: Case, batch: int) -> Work:
    draw = np.random.default_rng(0).standard_normal
    x = draw((batch, *case.x), dtype=np.float32)
    weight, bias = (draw(shape, dtype=np.float32) for shape in case.arrays)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    with use_backend("numpy"):
        truth, cache = ops.conv2d.forward(x, weight, bias, **case.keywords)
    geometry = cache.geometry

    def forced(way: choices.Choice) -> Callable[[], Any]:
        images = x if way.algorithm == "im2col" else last  # each in the memory order that it takes

        def run() -> Any:
            with choices.overriding(choices.row_of(way, problem)):
                return conv2d_numba.compute(images, weight, bias, geometry)

        return run

    problem = of_convolution(x, weight, geometry, machine=MACHINE)
    contenders = [Contender(str(way), forced(way)) for way in choices.ways(problem)]
    contenders += torch_contenders(case, x, weight, bias)

    def check(y: Any) -> None:
        error = np.linalg.norm(np.asarray(y) - truth) / np.linalg.norm(truth)
        assert error < ERROR, f"a contender is wrong: relative error {error:.1e}"

    flops = 2.0 * truth.size * weight[0].size
    moved = x.nbytes + truth.nbytes + weight.nbytes
    return Work(f"conv2d {case.layer}, batch {batch}, each algorithm", flops, moved, contenders, check)


def torch_contenders(case: Case, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> list[Contender]:
    try:
        torch = import_torch()
    except MissingPackageError:
        return [Contender(name, None, "torch is not installed") for name in PEERS]

    def runner(memory: Any) -> Callable[[], Any]:
        images, filters = (torch.from_numpy(a).to(memory_format=memory) for a in (x, weight))
        shift = torch.from_numpy(bias)

        def run() -> Any:
            with torch.inference_mode():
                return torch.nn.functional.conv2d(images, filters, shift, **case.keywords)

        return run

    formats = (torch.contiguous_format, torch.channels_last)
    return [Contender(name, runner(memory)) for name, memory in zip(PEERS, formats, strict=True)]
