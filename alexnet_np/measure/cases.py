"""Every op at AlexNet's own shapes: the arrays, what comes of them, and what the direct algorithm costs.

The FLOPs and bytes are those of the direct algorithm: each input read once, each output written once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alexnet_np import ops
from alexnet_np.measure.harness import Contender, Work


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
    Case("tanh", "in relu1's place", (64, 55, 55)),
    Case("sigmoid", "in relu1's place", (64, 55, 55)),
    Case("avg_pool2d", "in pool1's place", (64, 55, 55), (), {"kernel_size": 3, "stride": 2}),
    Case("adaptive_avg_pool2d", "of 448x448 pixels", (256, 13, 13), (), {"output_size": 6}),
    Case("dropout", "drop6", (4096,), (), {"p": 0.5, "seed": 1}, {"p": 0.5}),
    Case("linear", "fc6", (9216,), ((4096, 9216), (4096,))),
    Case("linear", "fc7", (4096,), ((4096, 4096), (4096,))),
    Case("linear", "fc8", (4096,), ((1000, 4096), (1000,))),
    Case("softmax", "1000 classes", (1000,), (), {"dim": -1}),
    Case("log_softmax", "1000 classes", (1000,), (), {"dim": -1}),
    Case("cross_entropy", "loss", (1000,)),
]


@dataclass
class Problem:
    """A case at one batch: its arrays, what comes of them, and what the direct algorithm costs."""

    case: Case
    name: str
    x: np.ndarray
    arrays: list[np.ndarray]
    dy: np.ndarray
    truth: tuple[Any, Any]  # y, and all that backward gives
    macs: int  # of the forward
    moved: int  # bytes, likewise

    @property
    def inputs(self) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        return self.x, self.arrays, self.dy

    def works(
        self,
        forward: list[Contender],
        backward: list[Contender],
        fetch: Callable[[Any], np.ndarray] = np.asarray,
        limit: float = 1e-4,
    ) -> list[Work]:
        """`fetch` makes a NumPy array of a contender's, whose relative error may be `limit`."""

        def check(truth: Any) -> Callable[[Any], None] | None:
            # torch draws a dropout mask of its own, so there is nothing to compare it with
            return None if self.case.op == "dropout" else lambda result: assert_close(result, truth, fetch, limit)

        gradients = 2 if self.case.arrays else 1  # dx and dweight are a product each
        flops = 2.0 * self.macs
        return [
            Work(f"{self.name}, forward", flops, self.moved, forward, check(self.truth[0])),
            Work(f"{self.name}, backward", flops * gradients, 2.0 * self.moved, backward, check(self.truth[1])),
        ]


def pose(case: Case, batch: int) -> Problem:
    draw = np.random.default_rng(0).standard_normal
    x = draw((batch, *case.x), dtype=np.float32)
    arrays: list[Any] = [
        draw(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:]))) for shape in case.arrays
    ]
    if case.op == "cross_entropy":
        arrays = [np.arange(batch) % case.x[0]]
    module = getattr(ops, case.op)
    y, cache = module.forward(x, *arrays, **case.keywords)
    dy = draw(y.shape, dtype=np.float32)
    macs = y.size * int(np.prod(case.arrays[0][1:])) if case.arrays else 0
    return problem_of(case, x, arrays, dy, (y, module.backward(dy, cache)), macs)


def problem_of(
    case: Case, x: np.ndarray, arrays: list[Any], dy: np.ndarray, truth: tuple[Any, Any], macs: int
) -> Problem:
    moved = x.nbytes + truth[0].nbytes + sum(a.nbytes for a in arrays)
    return Problem(case, f"{case.op} {case.layer}, batch {len(x)}", x, arrays, dy, truth, macs, moved)


def assert_close(result: Any, truth: Any, fetch: Callable[[Any], np.ndarray], limit: float) -> None:
    results = result if isinstance(result, tuple) else (result,)
    truths = truth if isinstance(truth, tuple) else (truth,)
    for got, want in zip(results, truths, strict=True):
        error = np.linalg.norm(fetch(got) - want) / np.linalg.norm(want)
        assert error < limit, f"a contender is wrong: relative error {error:.1e}"
