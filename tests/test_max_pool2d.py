import math

import numpy as np
import pytest
import torch
from oracles import (
    channels_last,
    check_op,
    device_of,
    implementations,
    locked,
    refused,
    run,
    strided,
    to_device,
    to_host,
    using,
)

from alexnet_np import ops
from alexnet_np.errors import ArgumentError, ShapeError

draws = np.random.default_rng(0)
backend = implementations("max_pool2d")

# x, keywords
CASES = {
    "alexnet's": ((2, 3, 13, 13), {"kernel_size": 3, "stride": 2}),
    "stride is the kernel": ((2, 3, 9, 8), {"kernel_size": 2}),
    "stride given as ()": ((2, 3, 9, 8), {"kernel_size": (2, 3), "stride": ()}),
    "stride does not divide": ((2, 3, 11, 10), {"kernel_size": (3, 2), "stride": (3, 4)}),
    "stride 1": ((2, 3, 6, 5), {"kernel_size": 3, "stride": 1}),
    "stride beyond the kernel": ((2, 3, 12, 11), {"kernel_size": 2, "stride": (5, 4)}),
    "1x1": ((2, 3, 4, 5), {"kernel_size": 1}),
    "kernel is the input": ((2, 3, 4, 5), {"kernel_size": (4, 5)}),
    "padding": ((2, 3, 9, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "asymmetric padding": ((2, 3, 9, 8), {"kernel_size": (5, 3), "stride": 2, "padding": (2, 0)}),
    "dilation": ((2, 3, 12, 11), {"kernel_size": 3, "stride": 2, "dilation": (2, 3)}),
    "dilation and padding": ((2, 3, 9, 8), {"kernel_size": (3, 2), "stride": 1, "padding": 1, "dilation": (3, 2)}),
    "a kernel of more than 256": ((1, 2, 20, 21), {"kernel_size": 17, "stride": 3, "padding": 8}),
    "unbatched": ((3, 9, 8), {"kernel_size": 3, "stride": 2}),
    "ceil, hangs over both edges": ((2, 3, 10, 8), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "ceil, fits anyway": ((2, 3, 9, 7), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "ceil, padding": ((2, 3, 10, 9), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    "ceil, last window would start in the padding": (
        (2, 3, 5, 6),
        {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True},
    ),
    "ceil, stride beyond the kernel": ((2, 3, 6, 7), {"kernel_size": 2, "stride": 4, "ceil_mode": True}),
    "ceil, dilation": ((2, 3, 11, 8), {"kernel_size": 3, "stride": 3, "dilation": 2, "padding": 1, "ceil_mode": True}),
    "ceil, kernel beyond the input": ((2, 3, 2, 3), {"kernel_size": 4, "stride": 3, "padding": 2, "ceil_mode": True}),
}


def distinct(rng, shape):
    """Random numbers at least 0.01 apart, so that no finite difference changes who wins."""
    return rng.permutation(math.prod(shape)).reshape(shape) / 100 - 1


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_torch(backend, rng, case):
    shape, keywords = CASES[case]
    x = distinct(rng, shape)
    check_op(ops.max_pool2d, [x], keywords, implementation=backend)
    assert_switches_are_torchs_indices(backend, x, keywords)


@pytest.mark.parametrize("case", ["unbatched", "ceil, dilation", "ceil, last window would start in the padding"])
def test_version_one_without_a_compiler(rng, case):
    shape, keywords = CASES[case]
    check_op(ops.max_pool2d, [distinct(rng, shape)], keywords, implementation="numba naive:python")


@pytest.mark.parametrize("layout", [channels_last, strided, locked])
def test_any_memory_layout(backend, rng, layout):
    for shape in ((2, 4, 9, 8), (2, 37, 13, 11), (33, 10, 9)):  # few channels, many, unbatched
        keywords = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}
        check_op(ops.max_pool2d, [distinct(rng, shape)], keywords, implementation=backend, layout=layout)


# 16 channels or more, which the channels-last kernels need
AWKWARD = {
    "ties": draws.integers(0, 2, (2, 17, 11, 9)).astype(float),
    "all equal": np.zeros((1, 18, 8, 8)),
    "zeros of both signs": np.where(draws.random((1, 18, 9, 9)) < 0.5, 0.0, -0.0),
    "all negative": -1.0 - draws.random((2, 19, 8, 9)),
    "some -inf": np.where(draws.random((2, 19, 9, 9)) < 0.7, -np.inf, draws.standard_normal((2, 19, 9, 9))),
    "all -inf": np.full((1, 18, 8, 9), -np.inf),
    "some NaN": np.where(draws.random((2, 19, 9, 9)) < 0.2, np.nan, draws.standard_normal((2, 19, 9, 9))),
    "all NaN": np.full((1, 18, 8, 9), np.nan),
    "inf": np.where(draws.random((2, 19, 9, 9)) < 0.2, np.inf, draws.standard_normal((2, 19, 9, 9))),
}


@pytest.mark.parametrize("content", AWKWARD)
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("layout", [strided, channels_last])
def test_awkward_values_go_where_torch_sends_them(backend, content, padding, layout):
    keywords = {"kernel_size": 3, "stride": 2, "padding": padding}
    check_op(ops.max_pool2d, [AWKWARD[content]], keywords, implementation=backend, smooth=False, layout=layout)
    assert_switches_are_torchs_indices(backend, AWKWARD[content], keywords, layout)


@pytest.mark.parametrize("content", ["ties", "some -inf", "some NaN"])
def test_version_one_without_a_compiler_on_awkward_values(content):
    keywords = {"kernel_size": 3, "stride": 2, "padding": 1}
    check_op(ops.max_pool2d, [AWKWARD[content]], keywords, implementation="numba naive:python", smooth=False)


def assert_switches_are_torchs_indices(backend, x, keywords, layout=strided):
    with using(ops.max_pool2d, backend):
        _, cache = ops.max_pool2d.forward(layout(to_device(x, device_of(backend))), **keywords)
    switches, geometry = to_host(cache.switches).astype(int), cache.geometry
    (KH, KW), (SH, SW), (PH, PW), (DH, DW), (OH, OW) = geometry
    assert cache.switches.dtype == (np.uint8 if KH * KW <= 256 else np.int32) or "naive" in backend
    h = np.arange(OH)[:, None] * SH - PH + switches // KW * DH
    w = np.arange(OW) * SW - PW + switches % KW * DW
    _, indices = torch.nn.functional.max_pool2d(torch.from_numpy(x), **keywords, return_indices=True)
    assert np.array_equal((h * x.shape[-1] + w).reshape(indices.shape), indices.numpy())


def test_answer_computed_by_hand(backend):
    x = np.array([[[[1.0, 5.0, 2.0], [3.0, 4.0, 9.0], [7.0, 5.0, 5.0]]]])
    dy = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    y, dx = run(ops.max_pool2d, [x], {"kernel_size": 2, "stride": 1}, dy, backend)
    assert y.tolist() == [[[[5, 9], [7, 9]]]]
    assert dx.tolist() == [[[[0, 1, 0], [0, 0, 2 + 4], [3, 0, 0]]]]  # the 9 wins two windows, and both gradients


@pytest.mark.parametrize("shape", [(0, 3, 5, 6), (0, 1, 3, 3)])
def test_empty_batch(backend, shape):
    check_op(ops.max_pool2d, [np.zeros(shape)], {"kernel_size": 3, "stride": 2}, implementation=backend)


def test_dilated_window_that_holds_no_pixel(backend):  # torch's index points outside of the image then
    keywords = {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": 2}
    y, dx = run(ops.max_pool2d, [np.ones((1, 1, 1, 1))], keywords, np.ones((1, 1, 1, 1)), backend)
    assert y.tolist() == [[[[-np.inf]]]]
    assert dx.tolist() == [[[[0]]]]


@pytest.mark.parametrize(
    ("shape", "keywords", "error", "match"),
    [
        ((9, 8), {"kernel_size": 3}, ShapeError, r"x must be \(N,C,H,W\) or \(C,H,W\), got shape \(9, 8\)"),
        ((1, 0, 9, 8), {"kernel_size": 3}, ShapeError, "empty side"),
        ((1, 1, 0, 8), {"kernel_size": 1}, ShapeError, "empty side"),
        ((1, 1, 2, 8), {"kernel_size": 3}, ShapeError, "3x3 kernel .* larger than the input 2x8"),
        ((1, 1, 9, 8), {"kernel_size": 0}, ArgumentError, "kernel_size must be at least 1"),
        ((1, 1, 9, 8), {"kernel_size": 3.0}, ArgumentError, "kernel_size must be an int or a pair of ints"),
        ((1, 1, 9, 8), {"kernel_size": 3, "stride": 0}, ArgumentError, "stride must be at least 1"),
        ((1, 1, 9, 8), {"kernel_size": 3, "padding": 2}, ArgumentError, "at most half of the kernel"),
        ((1, 1, 9, 8), {"kernel_size": 3, "padding": -1}, ArgumentError, "padding must be at least 0"),
        ((1, 1, 9, 8), {"kernel_size": 3, "dilation": 0}, ArgumentError, "dilation must be at least 1"),
    ],
)
def test_refuses(shape, keywords, error, match):
    with refused(error, match):
        ops.max_pool2d.forward(np.zeros(shape), **keywords)
