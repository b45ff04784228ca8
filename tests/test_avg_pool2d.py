import numpy as np
import pytest
from oracles import channels_last, check_op, implementations, locked, refused, run, strided

from alexnet_np import ops
from alexnet_np.errors import ArgumentError, ShapeError

backend = implementations("avg_pool2d")

# x, keywords
CASES = {
    "LeNet's": ((2, 3, 28, 28), {"kernel_size": 2, "stride": 2}),
    "stride is the kernel": ((2, 3, 9, 8), {"kernel_size": (2, 3)}),
    "stride given as ()": ((2, 3, 9, 8), {"kernel_size": (2, 3), "stride": ()}),
    "overlapping": ((2, 3, 13, 13), {"kernel_size": 3, "stride": 2}),
    "stride does not divide": ((2, 3, 11, 10), {"kernel_size": (3, 2), "stride": (3, 4)}),
    "stride beyond the kernel": ((2, 3, 12, 11), {"kernel_size": 2, "stride": (5, 4)}),
    "1x1": ((2, 3, 4, 5), {"kernel_size": 1}),
    "kernel is the input": ((2, 3, 4, 5), {"kernel_size": (4, 5)}),
    "padding": ((2, 3, 9, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "asymmetric padding": ((2, 3, 9, 8), {"kernel_size": (5, 3), "stride": 2, "padding": (2, 0)}),
    "unbatched": ((3, 9, 8), {"kernel_size": 3, "stride": 2}),
    "ceil, hangs over both edges": ((2, 3, 10, 8), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "ceil, fits anyway": ((2, 3, 9, 7), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "ceil, last window would start in the padding": (
        (2, 3, 5, 6),
        {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True},
    ),
    "ceil, kernel beyond the input": ((2, 3, 2, 3), {"kernel_size": 4, "stride": 3, "padding": 2, "ceil_mode": True}),
    # torch's own OpInfo samples, and what of its corners they leave out
    "OpInfo: all arguments": (
        (2, 3, 9, 9),
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1), "count_include_pad": False, "ceil_mode": True},
    ),
    "OpInfo: divisor 2": (
        (2, 3, 9, 9),
        {"kernel_size": 4, "stride": 2, "padding": 1, "ceil_mode": True, "divisor_override": 2},
    ),
    "OpInfo: a wide window with padding": (
        (1, 3, 9, 9),
        {"kernel_size": (2, 3), "stride": (1, 1), "padding": (0, 1), "ceil_mode": False, "divisor_override": 1},
    ),
    "pixels only": ((2, 3, 9, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    "pixels only, ceil": (
        (2, 3, 10, 9),
        {"kernel_size": 5, "stride": 3, "padding": 2, "ceil_mode": True, "count_include_pad": False},
    ),
    "a negative divisor": ((2, 3, 9, 8), {"kernel_size": 3, "padding": 1, "divisor_override": -3}),
    "a divisor, pixels only": (
        (2, 3, 9, 8),
        {"kernel_size": 3, "padding": 1, "divisor_override": 5, "count_include_pad": False},
    ),
    "ceil, some windows hang over the padding": (
        (2, 3, 8, 9),
        {"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True},
    ),
    "empty batch": ((0, 3, 9, 8), {"kernel_size": 3, "stride": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_torch(backend, rng, case):
    shape, keywords = CASES[case]
    check_op(ops.avg_pool2d, [rng.standard_normal(shape)], keywords, implementation=backend)


@pytest.mark.parametrize("case", ["unbatched", "OpInfo: all arguments", "a negative divisor"])
def test_version_one_without_a_compiler(rng, case):
    shape, keywords = CASES[case]
    check_op(ops.avg_pool2d, [rng.standard_normal(shape)], keywords, implementation="numba naive:python")


@pytest.mark.parametrize("layout", [channels_last, strided, locked])
@pytest.mark.parametrize("case", ["overlapping", "a negative divisor", "pixels only, ceil"])
def test_any_memory_layout(backend, rng, layout, case):
    for shape in ((2, 4, 9, 8), (2, 37, 13, 11), (33, 10, 9)):  # few channels, many, unbatched
        x, keywords = rng.standard_normal(shape), CASES[case][1]
        check_op(ops.avg_pool2d, [x], keywords, implementation=backend, layout=layout)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layout", [strided, channels_last])
def test_what_is_not_finite_goes_where_torch_sends_it(backend, rng, value, layout):
    x = np.where(rng.random((2, 19, 9, 9)) < 0.1, value, rng.standard_normal((2, 19, 9, 9)))
    keywords = {"kernel_size": 3, "stride": 2, "padding": 1}
    check_op(ops.avg_pool2d, [x], keywords, implementation=backend, smooth=False, layout=layout)


def test_answer_computed_by_hand(backend):
    x = np.array([[[[1.0, 5.0, 2.0], [3.0, 4.0, 9.0], [7.0, 5.0, 5.0]]]])
    dy = np.array([[[[4.0, 8.0], [12.0, 16.0]]]])
    y, dx = run(ops.avg_pool2d, [x], {"kernel_size": 2, "stride": 1}, dy, backend)
    assert y.tolist() == [[[[13 / 4, 20 / 4], [19 / 4, 23 / 4]]]]
    assert dx.tolist() == [[[[1, 3, 2], [4, 10, 6], [3, 7, 4]]]]


def test_the_divisors_at_an_edge_computed_by_hand(backend):
    """Three columns, padded by 1, windows of 3 every 3: the second hangs over the padding by one."""
    x, dy = np.ones((1, 1, 1, 3)), np.array([[[[6.0, 6.0]]]])
    keywords = {"kernel_size": (1, 3), "stride": (1, 3), "padding": (0, 1), "ceil_mode": True}
    y, dx = run(ops.avg_pool2d, [x], keywords, dy, backend)
    assert y.tolist() == [[[[2 / 3, 1 / 2]]]] and dx.tolist() == [[[[2, 2, 3]]]]
    y, dx = run(ops.avg_pool2d, [x], keywords | {"count_include_pad": False}, dy, backend)
    assert y.tolist() == [[[[1, 1]]]] and dx.tolist() == [[[[3, 3, 6]]]]


@pytest.mark.parametrize(
    ("shape", "keywords", "error", "match"),
    [
        ((9, 8), {"kernel_size": 3}, ShapeError, r"x must be \(N,C,H,W\) or \(C,H,W\), got shape \(9, 8\)"),
        ((1, 0, 9, 8), {"kernel_size": 3}, ShapeError, "avg_pool2d: x has an empty side"),
        ((1, 1, 2, 8), {"kernel_size": 3}, ShapeError, "avg_pool2d: a 3x3 kernel is larger than the input 2x8"),
        ((1, 1, 9, 8), {"kernel_size": 0}, ArgumentError, "kernel_size must be at least 1"),
        ((1, 1, 9, 8), {"kernel_size": 3, "stride": 0}, ArgumentError, "stride must be at least 1"),
        ((1, 1, 9, 8), {"kernel_size": 3, "padding": 2}, ArgumentError, "at most half of the kernel"),
        ((1, 1, 9, 8), {"kernel_size": 3, "ceil_mode": 1}, ArgumentError, "ceil_mode must be True or False"),
        ((1, 1, 9, 8), {"kernel_size": 3, "count_include_pad": None}, ArgumentError, "count_include_pad must be True"),
        ((1, 1, 9, 8), {"kernel_size": 3, "divisor_override": 0}, ArgumentError, "divisor_override must not be 0"),
        ((1, 1, 9, 8), {"kernel_size": 3, "divisor_override": 2.0}, ArgumentError, "divisor_override must be an int"),
    ],
)
def test_refuses(shape, keywords, error, match):
    with refused(error, match):
        ops.avg_pool2d.forward(np.zeros(shape), **keywords)
