"""Every op at AlexNet's own shapes, forward and backward: each backend of ours beside torch.nn.functional.

    alexnet bench kernels [--batch 8] [--op conv2d] [--cold] [--json FILE] [--roofline FILE]

The FLOPs and bytes are those of the direct algorithm: each input read once, each output written once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alexnet_np import ops
from alexnet_np.backend import BACKENDS, available_backends, use_backend

from .harness import Contender, Work


@dataclass
class Case:
    """One op at one layer's shape: the arrays it takes after x, and its keywords."""

    op: str
    layer: str
    x: tuple[int, ...]  # without the batch
    arrays: tuple[tuple[int, ...], ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    torch_keywords: dict[str, Any] | None = None  # where they differ; torch functions are named as the op


CASES = [
    Case("conv2d", "conv1", (3, 224, 224), ((64, 3, 11, 11), (64,)), {"stride": 4, "padding": 2}),
    Case("conv2d", "conv2", (64, 27, 27), ((192, 64, 5, 5), (192,)), {"padding": 2}),
    Case("conv2d", "conv3", (192, 13, 13), ((384, 192, 3, 3), (384,)), {"padding": 1}),
    Case("conv2d", "conv4", (384, 13, 13), ((256, 384, 3, 3), (256,)), {"padding": 1}),
    Case("conv2d", "conv5", (256, 13, 13), ((256, 256, 3, 3), (256,)), {"padding": 1}),
    Case("max_pool2d", "pool1", (64, 55, 55), (), {"kernel_size": 3, "stride": 2}),
    Case("max_pool2d", "pool2", (192, 27, 27), (), {"kernel_size": 3, "stride": 2}),
    Case("max_pool2d", "pool5", (256, 13, 13), (), {"kernel_size": 3, "stride": 2}),
    Case("local_response_norm", "paper's norm1", (96, 55, 55), (), {"size": 5, "alpha": 5e-4, "k": 2.0}),
    Case("local_response_norm", "paper's norm2", (256, 27, 27), (), {"size": 5, "alpha": 5e-4, "k": 2.0}),
    Case("relu", "relu1", (64, 55, 55)),
    Case("dropout", "drop6", (4096,), (), {"p": 0.5, "seed": 1}, {"p": 0.5}),
    Case("linear", "fc6", (9216,), ((4096, 9216), (4096,))),
    Case("linear", "fc7", (4096,), ((4096, 4096), (4096,))),
    Case("linear", "fc8", (4096,), ((1000, 4096), (1000,))),
    Case("cross_entropy", "loss", (1000,)),
]


def works(batch: int, only: str | None = None) -> list[Work]:
    """Forward and backward of every case, with every backend that runs here and torch."""
    chosen = [case for case in CASES if only in (None, case.op)]
    return [work for case in chosen for work in _works(case, batch)]


def _works(case: Case, batch: int) -> list[Work]:
    draw = np.random.default_rng(0).standard_normal
    x = draw((batch, *case.x), dtype=np.float32)
    arrays = [draw(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:]))) for shape in case.arrays]
    if case.op == "cross_entropy":
        arrays = [np.arange(batch) % case.x[0]]
    module = getattr(ops, case.op)
    y, cache = module.forward(x, *arrays, **case.keywords)
    dy = draw(y.shape, dtype=np.float32)
    truth = y, module.backward(dy, cache)
    macs = y.size * int(np.prod(case.arrays[0][1:])) if case.arrays else 0
    moved = x.nbytes + y.nbytes + sum(a.nbytes for a in arrays)

    contenders: dict[bool, list[Contender]] = {False: [], True: []}
    for backend, usable in available_backends().items():
        if BACKENDS[backend] == "cpu":
            for backward, contender in _ours(case, backend, usable, x, arrays, dy).items():
                contenders[backward].append(contender)
    for backward, contender in _torch(case, x, arrays, dy).items():
        contenders[backward].append(contender)

    def close(which: int) -> Callable[[Any], None] | None:
        # torch draws a dropout mask of its own, so there is nothing to compare it with
        return None if case.op == "dropout" else lambda result: _assert_close(result, truth[which])

    name = f"{case.op} {case.layer}, batch {batch}"
    gradients = 2 if case.arrays else 1  # dx and dweight are a product each
    return [
        Work(f"{name}, forward", 2.0 * macs, moved, contenders[False], close(0)),
        Work(f"{name}, backward", 2.0 * macs * gradients, 2.0 * moved, contenders[True], close(1)),
    ]


def _ours(
    case: Case, backend: str, usable: bool | str, x: Any, arrays: list[Any], dy: Any
) -> dict[bool, Contender]:
    if usable is not True:
        return {backward: Contender(backend, None, str(usable)) for backward in (False, True)}
    module = getattr(ops, case.op)

    def forward() -> Any:
        with use_backend(backend):
            return module.forward(x, *arrays, **case.keywords)

    cache = module.forward(x, *arrays, **case.keywords)[1]  # any forward's cache serves any backward

    def backward() -> Any:
        with use_backend(backend):
            return module.backward(dy, cache)

    return {False: Contender(backend, lambda: forward()[0]), True: Contender(backend, backward)}


def _torch(case: Case, x: Any, arrays: list[Any], dy: Any) -> dict[bool, Contender]:
    try:
        import torch
    except ImportError:
        return {backward: Contender("torch", None, "torch is not installed") for backward in (False, True)}
    function = getattr(torch.nn.functional, case.op)
    keywords = case.keywords if case.torch_keywords is None else case.torch_keywords
    inputs = [torch.from_numpy(a).requires_grad_(a.dtype == np.float32) for a in (x, *arrays)]
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    y = function(*inputs, **keywords)
    dy = torch.as_tensor(dy)

    def forward() -> Any:
        with torch.no_grad():
            return function(*inputs, **keywords)

    def backward() -> Any:
        gradients = torch.autograd.grad(y, wanted, dy, retain_graph=True)
        return gradients if len(gradients) > 1 else gradients[0]

    return {False: Contender("torch", forward), True: Contender("torch", backward)}


def _assert_close(result: Any, truth: Any) -> None:
    results = result if isinstance(result, tuple) else (result,)
    truths = truth if isinstance(truth, tuple) else (truth,)
    for got, want in zip(results, truths, strict=True):
        error = np.linalg.norm(np.asarray(got) - want) / np.linalg.norm(want)
        assert error < 1e-4, f"a contender is wrong: relative error {error:.1e}"
