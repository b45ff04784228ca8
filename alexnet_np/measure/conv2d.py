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
from alexnet_np.kernels import choices, conv2d_im2col_numba, conv2d_numba
from alexnet_np.measure.cases import CASES, Case
from alexnet_np.measure.harness import Contender, Work
from alexnet_np.study.torch_net import import_torch

ERROR = 1e-4  # relative, L2
PEERS = ("torch contiguous", "torch channels_last")
ROWS = {"direct": choices.Row("direct")} | {f"winograd {m}": choices.Row("winograd", tiles=(m,)) for m in (3, 4, 5, 6)}


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

    def forced(row: choices.Row) -> Callable[[], Any]:
        def run() -> Any:
            with choices.overriding(row):
                return conv2d_numba.compute(last, weight, bias, geometry)

        return run

    r = -(-geometry.kernel[0] // geometry.stride[0])
    families = {3: (4, 5, 6), 5: (3,)}[r]
    contenders = [
        Contender(f"F({row.tiles[0]},{r})" if row.tiles else name, forced(row))
        for name, row in ROWS.items()
        if not row.tiles or row.tiles[0] in families
    ]
    contenders.append(Contender("im2col", lambda: conv2d_im2col_numba.compute(x, weight, bias, geometry)))
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
