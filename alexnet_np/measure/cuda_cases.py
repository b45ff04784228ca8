"""What every version with CUDA kernels is put through: inputs of each op, chosen where kernels go wrong."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import ops
from alexnet_np.kernels.variants import Variant, versions
from alexnet_np.random import uniform


def cuda_versions(op: str) -> list[Variant]:
    return [variant for variant in versions(op, "gpu") if variant.backend == "cuda"]


def rounding(variant: Variant) -> float:
    """How many times the error of a plain sum it is allowed."""
    return 10.0 if variant.name.startswith("winograd") else 1.0


class Case(NamedTuple):
    op: str
    name: str
    arrays: tuple[np.ndarray | None, ...]  # float64 arrays are cast to the dtype under test, others stay
    options: dict[str, Any]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(repr(shape).encode())).standard_normal(shape)


def conv(name: str, x: tuple[int, ...], weight: tuple[int, ...], bias: bool = True, **options: Any) -> Case:
    return Case("conv2d", name, (normal(*x), normal(*weight), normal(weight[0]) if bias else None), options)


def one(op: str, name: str, x: np.ndarray, **options: Any) -> Case:
    return Case(op, name, (x,), options)


def pool(name: str, x: np.ndarray, kernel_size: Any, stride: Any, **options: Any) -> Case:
    return one("max_pool2d", name, x, kernel_size=kernel_size, stride=stride, **options)


def with_special_values(x: np.ndarray) -> np.ndarray:
    flat = x.reshape(-1)
    flat[::7], flat[3::11], flat[5::13], flat[6::17] = np.nan, -np.inf, np.inf, 0.0
    return x


def targets(shape: tuple[int, ...], classes: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, classes, shape)


def probabilities(shape: tuple[int, ...]) -> np.ndarray:
    p = np.abs(normal(*shape))
    return p / p.sum(1, keepdims=True)


CASES = [
    conv("AlexNet's first layer", (2, 3, 63, 47), (8, 3, 11, 11), stride=4, padding=2),
    conv("AlexNet's second layer", (2, 6, 13, 13), (10, 6, 5, 5), padding=2),
    conv("several tiles of pixels and filters", (2, 2, 9, 10), (130, 2, 3, 3), padding=1),
    conv("groups, no bias", (2, 6, 9, 8), (4, 3, 3, 3), bias=False, padding=1, groups=2),
    conv("a group a channel", (2, 5, 7, 7), (10, 1, 3, 3), groups=5),
    conv("dilation and uneven strides", (2, 3, 17, 14), (4, 3, 3, 2), stride=(2, 3), padding=(2, 1), dilation=(2, 3)),
    conv("uneven padding", (1, 3, 8, 9), (4, 3, 3, 4), padding=((0, 2), (3, 1))),
    conv("padding wider than the kernel", (1, 2, 4, 4), (3, 2, 2, 2), padding=5, stride=3),
    conv("a stride that skips pixels", (2, 3, 11, 10), (4, 3, 2, 2), stride=4),
    conv("same", (2, 3, 6, 7), (4, 3, 4, 3), padding="same"),
    conv("1x1", (2, 9, 5, 5), (7, 9, 1, 1)),
    conv("one pixel, one image", (1, 4, 3, 3), (5, 4, 3, 3)),
    conv("unbatched", (3, 9, 9), (4, 3, 3, 3)),
    conv("empty batch", (0, 3, 9, 9), (4, 3, 3, 3)),
    pool("AlexNet's", normal(2, 3, 13, 13), 3, 2),
    pool("ceil_mode over the edge", normal(2, 3, 12, 14), 3, 2, ceil_mode=True),
    pool("padding, ceil_mode", normal(2, 2, 11, 10), (5, 2), (3, 2), padding=(2, 1), ceil_mode=True),
    pool("dilation and padding", normal(1, 2, 14, 13), (4, 3), (1, 3), padding=(2, 1), dilation=(3, 2)),
    pool("ties", np.round(normal(2, 2, 9, 9)), 3, 2, padding=1),
    pool("ties to all", with_special_values(np.round(normal(2, 2, 9, 9))), 3, 2, padding=1, ties="all"),
    pool("all negative", -1 - np.abs(normal(1, 2, 8, 8)), 3, 2, padding=1),
    pool("NaN and infinities", with_special_values(normal(2, 2, 10, 9)), 3, 2, padding=1),
    pool("all -inf", np.full((1, 1, 6, 7), -np.inf), 4, 3, padding=2, dilation=2, ceil_mode=True),
    pool("a window of more than 256", normal(1, 2, 21, 22), 17, 2),
    pool("unbatched", normal(3, 7, 7), 2, 2),
    pool("empty batch", normal(0, 3, 7, 7), 3, 3),
    one("avg_pool2d", "LeNet's", normal(2, 3, 10, 8), kernel_size=2),
    one("avg_pool2d", "overlapping", normal(2, 3, 13, 11), kernel_size=3, stride=2),
    one("avg_pool2d", "padding", normal(2, 2, 11, 10), kernel_size=(5, 2), stride=(3, 2), padding=(2, 1)),
    one(
        "avg_pool2d", "over the padding's edge", normal(2, 2, 8, 9), kernel_size=3, stride=3, padding=1, ceil_mode=True
    ),
    one(
        "avg_pool2d",
        "pixels only",
        normal(2, 2, 8, 9),
        kernel_size=4,
        padding=2,
        ceil_mode=True,
        count_include_pad=False,
    ),
    one("avg_pool2d", "another divisor", normal(1, 2, 8, 9), kernel_size=3, stride=2, padding=1, divisor_override=-7),
    one("avg_pool2d", "a stride that skips pixels", normal(1, 2, 12, 11), kernel_size=2, stride=(5, 4)),
    one("avg_pool2d", "NaN and infinities", with_special_values(normal(2, 2, 10, 9)), kernel_size=3, stride=2),
    one("avg_pool2d", "unbatched", normal(3, 7, 7), kernel_size=2),
    one("avg_pool2d", "empty batch", normal(0, 3, 7, 7), kernel_size=3),
    one("adaptive_avg_pool2d", "smaller", normal(2, 3, 13, 11), output_size=(6, 4)),
    one("adaptive_avg_pool2d", "larger", normal(2, 3, 4, 5), output_size=(6, 7)),
    one("adaptive_avg_pool2d", "the identity", normal(2, 3, 6, 6), output_size=6),
    one("adaptive_avg_pool2d", "to one", normal(2, 3, 5, 7), output_size=1),
    one("adaptive_avg_pool2d", "empty batch", normal(0, 3, 5, 7), output_size=2),
    one("relu", "special values", with_special_values(normal(300))),
    one("relu", "any shape", normal(3, 5, 7)),
    one("relu", "empty", normal(0, 4)),
    one("tanh", "of both signs", normal(3, 5, 7)),
    one("tanh", "empty", normal(0, 4)),
    one("sigmoid", "of both signs", normal(3, 5, 7)),
    one("sigmoid", "empty", normal(0, 4)),
    one("local_response_norm", "AlexNet's", normal(2, 37, 3, 5), size=5, alpha=1e-4, k=2.0),
    one("local_response_norm", "strong", normal(2, 20, 6), size=5, alpha=1.3),
    one("local_response_norm", "even, torch's sides", normal(2, 18, 3, 3), size=4, alpha=1.1),
    one("local_response_norm", "even, ONNX's sides", normal(2, 18, 3, 3), size=4, alpha=1.1, convention="onnx"),
    one("local_response_norm", "alone", normal(1, 33, 4), size=1, alpha=0.9),
    one("local_response_norm", "another beta", normal(2, 17, 5), size=3, alpha=1.2, beta=0.6, k=1.5),
    one("local_response_norm", "window wider than the channels", normal(2, 2, 5), size=5, alpha=1.0),
    one("local_response_norm", "window too wide for registers", normal(2, 21, 4), size=18, alpha=1.0),
    one("local_response_norm", "as wide, another beta", normal(2, 21, 4), size=2**40, alpha=2.0**40, beta=0.5),
    one("local_response_norm", "empty batch", normal(0, 4, 3), size=5),
    one("local_response_norm", "towers", normal(2, 36, 5), size=5, alpha=1.1, groups=2),
    one("local_response_norm", "within", normal(2, 5, 7, 6), size=5, alpha=1.3, region="within"),
    one("local_response_norm", "within, even", normal(2, 3, 7, 4), size=4, alpha=1.3, region="within"),
    one("local_response_norm", "within, another beta", normal(1, 2, 3, 9), size=9, beta=0.6, region="within"),
    one("dropout", "half", normal(3, 341), p=0.5, seed=2**63 + 12345),
    one("dropout", "a tenth", normal(2, 3, 5, 7), p=0.1, seed=0),
    one("dropout", "all", normal(9), p=1.0, seed=1),
    one("dropout", "p is a number drawn", normal(9), p=float(uniform(9, seed=1)[6]), seed=1),
    one("dropout", "a negative seed", normal(1030), p=0.3, seed=-5),
    one("dropout", "a part", normal(3, 47), p=0.4, seed=7, first=6),
    one("dropout", "a part far on", normal(130), p=0.4, seed=7, first=2**35 + 5),
    one("dropout", "empty", normal(0, 9), p=0.3, seed=5),
    Case("linear", "with bias", (normal(5, 37), normal(19, 37), normal(19)), {}),
    Case("linear", "one row", (normal(37), normal(19, 37), None), {}),
    Case("linear", "vectors", (normal(3, 300), normal(17, 300), normal(17)), {}),
    Case("linear", "more images than a row serves", (normal(6, 132), normal(9, 132), normal(9)), {}),
    Case("linear", "one output", (normal(4, 9), normal(9), np.array(0.5)), {}),
    Case("linear", "empty batch", (normal(0, 9), normal(3, 9), normal(3)), {}),
    Case("linear", "no inputs", (normal(4, 0), normal(3, 0), normal(3)), {}),
    *(
        one(op, name, x, dim=dim)
        for op in ("softmax", "log_softmax")
        for name, x, dim in [
            ("last axis", normal(5, 300), -1),
            ("a middle axis", normal(3, 40, 7), 1),
            ("the first axis", normal(6, 5), 0),
            ("infinities and NaN", with_special_values(normal(12, 9)), 1),
            ("huge", 1e4 * normal(3, 11), 1),
            ("one class", normal(4, 1), 1),
            ("empty", normal(0, 5), 1),
        ]
    ),
    Case("cross_entropy", "mean", (normal(9, 300), targets((9,), 300)), {}),
    Case("cross_entropy", "ignored rows", (normal(9, 5), targets((9,), 5)), {"reduction": "sum", "ignore_index": 2}),
    Case("cross_entropy", "none, positions", (normal(3, 6, 4, 2), targets((3, 4, 2), 6)), {"reduction": "none"}),
    Case("cross_entropy", "smoothed", (normal(7, 10), targets((7,), 10), np.abs(normal(10))), {"label_smoothing": 0.1}),
    Case("cross_entropy", "probabilities", (normal(6, 8), probabilities((6, 8))), {}),
    Case("cross_entropy", "an impossible class", (np.array([[0.0, -np.inf, 1.0]]), np.array([2])), {}),
    Case("cross_entropy", "empty batch", (normal(0, 5), targets((0,), 5)), {"reduction": "sum"}),
]


def itself(array: Any) -> Any:
    return array


def run_case(case: Case, dtype: str, place: Callable = itself, fetch: Callable = itself) -> dict[str, np.ndarray]:
    """Forward and backward through the op's public functions: every output by name.

    `place` puts an array where the op is to run, `fetch` brings it back.
    """
    op = getattr(ops, case.op)
    arrays = [a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a for a in case.arrays]
    placed = [None if a is None else place(a.copy()) for a in arrays]
    y, cache = op.forward(*placed, **case.options)
    gradients = op.backward(place(normal(*y.shape).astype(dtype)), cache)
    for array, original in zip(placed, arrays, strict=True):
        if original is not None:
            np.testing.assert_array_equal(fetch(array), original, err_msg=f"{case.op} modified an input")
    outputs = {"y": y}
    if case.op == "max_pool2d":
        outputs["switches"] = cache.switches
    if case.op == "dropout":
        outputs["mask"] = cache.mask
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    outputs |= {f"gradient {i}": g for i, g in enumerate(gradients) if g is not None}
    return {name: fetch(array) for name, array in outputs.items()}
