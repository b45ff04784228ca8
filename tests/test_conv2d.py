import tracemalloc

import numpy as np
import pytest
import torch
from oracles import (
    channels_last,
    check_op,
    implementations,
    locked,
    refused,
    run,
    strided,
    using,
)

from alexnet_np import ops, threads
from alexnet_np.errors import ArgumentError, ShapeError
from alexnet_np.kernels import choices
from alexnet_np.ops import conv2d


def arrays(rng, x, weight, bias=True):
    """Random x, weight and bias of these shapes."""
    return [rng.standard_normal(x), rng.standard_normal(weight), rng.standard_normal(weight[0]) if bias else None]


# x, weight, keywords
CASES = {
    "plain": ((2, 3, 9, 7), (4, 3, 3, 3), {}),
    "1x1": ((2, 5, 6, 4), (3, 5, 1, 1), {}),
    "kernel is the input": ((2, 3, 5, 4), (6, 3, 5, 4), {}),
    "kernel is the padded input": ((2, 3, 3, 2), (4, 3, 5, 4), {"padding": 1}),
    "alexnet's first": ((2, 3, 39, 35), (8, 3, 11, 11), {"stride": 4, "padding": 2}),
    "asymmetric stride": ((2, 3, 11, 10), (4, 3, 3, 2), {"stride": (3, 2)}),
    "stride beyond the kernel": ((2, 3, 11, 10), (4, 3, 2, 2), {"stride": (4, 5)}),
    "one-element stride": ((2, 3, 9, 7), (4, 3, 3, 3), {"stride": [2], "padding": (1,)}),
    "asymmetric padding": ((2, 3, 8, 9), (4, 3, 3, 5), {"padding": (0, 2)}),
    "padding beyond the kernel": ((2, 3, 4, 5), (4, 3, 2, 2), {"padding": (5, 3), "stride": 2}),
    "same": ((2, 3, 8, 9), (4, 3, 3, 5), {"padding": "same"}),
    "same, even kernel": ((2, 3, 8, 9), (4, 3, 4, 2), {"padding": "same"}),
    "same, dilated even kernel": ((2, 3, 8, 9), (4, 3, 2, 4), {"padding": "same", "dilation": (3, 1)}),
    "valid": ((2, 3, 8, 9), (4, 3, 3, 5), {"padding": "valid", "stride": 2}),
    "dilation": ((2, 3, 13, 12), (4, 3, 3, 3), {"dilation": (2, 3), "padding": 2}),
    "groups": ((2, 6, 7, 8), (4, 3, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 6, 7, 8), (12, 1, 3, 3), {"groups": 6, "padding": 1}),
    "everything": (
        (3, 4, 15, 14),
        (6, 2, 3, 4),
        {"stride": (2, 3), "padding": (2, 1), "dilation": (2, 1), "groups": 2},
    ),
    "unbatched": ((3, 9, 7), (4, 3, 3, 3), {"stride": 2, "padding": 1}),
    "one image, one channel": ((1, 1, 4, 4), (1, 1, 2, 2), {}),
    "many columns": ((2, 32, 40, 40), (4, 32, 5, 5), {"padding": 2}),  # more than one block of im2col's
}

backend = implementations("conv2d", ways=False)
version = implementations("conv2d")


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_torch(backend, rng, case):
    x, weight, keywords = CASES[case]
    check_op(ops.conv2d, arrays(rng, x, weight), keywords, implementation=backend)


@pytest.mark.parametrize("case", ["everything", "unbatched", "same, even kernel", "padding beyond the kernel"])
def test_version_one_without_a_compiler(rng, case):
    x, weight, keywords = CASES[case]
    check_op(ops.conv2d, arrays(rng, x, weight), keywords, implementation="numba naive:python")


# Many channels, which the fast algorithms need: Winograd's kernels, its groups, its space-to-depth; and what it leaves
WIDE = {
    "3x3": ((3, 20, 13, 13), (36, 20, 3, 3), {"padding": 1}),
    "3x3, no padding": ((2, 16, 9, 8), (16, 16, 3, 3), {}),
    "5x5": ((2, 32, 27, 14), (17, 32, 5, 5), {"padding": 2}),
    "5x5, groups": ((2, 34, 9, 10), (40, 17, 5, 5), {"padding": 2, "groups": 2}),
    "alexnet's first": ((2, 3, 64, 63), (16, 3, 11, 11), {"stride": 4, "padding": 2}),
    "unbatched": ((16, 13, 13), (16, 16, 3, 3), {"padding": 1}),
    "dilated": ((2, 16, 13, 12), (18, 16, 3, 3), {"dilation": 2}),
    "strided": ((2, 16, 13, 12), (18, 16, 3, 3), {"stride": 2}),
    "1x1": ((2, 16, 7, 6), (33, 16, 1, 1), {}),
    "padding beyond the kernel": ((2, 16, 5, 4), (16, 16, 3, 3), {"padding": (7, 4)}),
    "padding beyond the folded kernel": ((2, 3, 9, 8), (16, 3, 11, 11), {"padding": 13, "stride": 4}),
    "12 filters, which fill most of a vector": ((2, 1, 63, 64), (12, 1, 11, 11), {"stride": 4, "padding": 1}),
    "12 channels": ((3, 12, 11, 13), (32, 12, 5, 5), {"padding": 2}),
    "12 and 9": ((2, 9, 8, 13), (12, 9, 3, 3), {"padding": 1}),
}


@pytest.mark.parametrize("case", WIDE)
@pytest.mark.parametrize("layout", [strided, channels_last])
def test_many_channels(version, rng, case, layout):
    x, weight, keywords = WIDE[case]
    weight_scale = 1 / np.sqrt(np.prod(weight[1:]))
    inputs = [a * s for a, s in zip(arrays(rng, x, weight), (1, weight_scale, 1), strict=True)]
    check_op(ops.conv2d, inputs, keywords, implementation=version, layout=layout, winograd=True)


def test_without_bias(backend, rng):
    check_op(ops.conv2d, arrays(rng, (2, 3, 6, 5), (4, 3, 3, 3), bias=False), implementation=backend)


@pytest.mark.parametrize("layout", [channels_last, strided, locked])
def test_any_memory_layout(backend, rng, layout):
    keywords = {"stride": (1, 2), "padding": 1, "groups": 2}
    check_op(ops.conv2d, arrays(rng, (2, 4, 7, 8), (6, 2, 3, 3)), keywords, implementation=backend, layout=layout)


def test_four_paddings_are_torch_on_the_padded_input(backend, rng):
    def padded(x, weight, bias, padding, stride):
        (top, bottom), (left, right) = padding
        x = torch.nn.functional.pad(x, (left, right, top, bottom))
        return torch.nn.functional.conv2d(x, weight, bias, stride)

    keywords = {"padding": ((0, 3), (2, 1)), "stride": 2}
    check_op(ops.conv2d, arrays(rng, (2, 3, 7, 6), (4, 3, 3, 3)), keywords, implementation=backend, reference=padded)


def test_answer_computed_by_hand(backend):
    x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    weight = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    dy = np.array([[[[1.0, 0.0], [0.0, 2.0]]]])
    y, dx, dweight, dbias = run(ops.conv2d, [x, weight, np.array([10.0])], {}, dy, backend)
    assert y.tolist() == [[[[47, 57], [77, 87]]]]  # 10 + 1*1 + 2*2 + 3*4 + 4*5, ...
    assert dx.tolist() == [[[[1, 2, 0], [3, 6, 4], [0, 6, 8]]]]  # the filter at (0,0), twice the filter at (1,1)
    assert dweight.tolist() == [[[[11, 14], [20, 23]]]]  # 1*1 + 2*5, 1*2 + 2*6, 1*4 + 2*8, 1*5 + 2*9
    assert dbias.tolist() == [3]


@pytest.mark.parametrize("groups", [1, 2])
def test_empty_batch(backend, rng, groups):
    keywords = {"groups": groups, "padding": 1}
    check_op(ops.conv2d, arrays(rng, (0, 4, 5, 6), (6, 4 // groups, 3, 3)), keywords, implementation=backend)


def test_no_channels_give_the_bias(backend):  # torch gives an output without channels
    inputs = [np.ones((2, 0, 5, 5)), np.ones((4, 0, 3, 3)), np.arange(4.0)]
    y, dx, dweight, dbias = run(ops.conv2d, inputs, {}, np.ones((2, 4, 3, 3)), backend)
    assert (y == np.arange(4.0)[:, None, None]).all()
    assert dx.shape == (2, 0, 5, 5) and dweight.shape == (4, 0, 3, 3) and dbias.tolist() == [18] * 4


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True), (False,) * 3])
@pytest.mark.parametrize("implementation", ["numpy", "numba", "numba im2col", "numba naive"])
def test_gradients_not_asked_for_are_none(rng, implementation, needs):
    x, weight, bias = arrays(rng, (2, 3, 6, 5), (4, 3, 3, 3))
    with using(ops.conv2d, implementation):
        y, cache = ops.conv2d.forward(x, weight, bias)
        wanted, all_three = ops.conv2d.backward(y, cache, needs), ops.conv2d.backward(y, cache)
    for gradient, full, need in zip(wanted, all_three, needs, strict=True):
        assert np.array_equal(gradient, full) if need else gradient is None


@pytest.mark.parametrize("backend", ["numpy", "numba im2col"])
def test_columns_are_built_for_a_slice_of_the_batch_only(backend, rng, monkeypatch):
    bound, (x, weight, _) = 2 << 20, arrays(rng, (16, 16, 29, 29), (8, 16, 3, 3))
    monkeypatch.setattr(conv2d, "COLUMN_BYTES", bound)
    row = choices.Row(column_bytes=bound // threads.get_num_threads())
    with choices.overriding(row), using(ops.conv2d, backend):
        ops.conv2d.forward(x, weight)  # compiles
        tracemalloc.start()
        y, _ = ops.conv2d.forward(x, weight)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak - y.nbytes < 1.1 * bound
    assert 5 * bound < 9 * x.nbytes  # all columns at once would be far more


@pytest.mark.parametrize(
    ("keywords", "shapes", "error", "match"),
    [
        ({}, [(9, 7), (4, 3, 3, 3), (4,)], ShapeError, r"x must be \(N,C,H,W\) or \(C,H,W\), got shape \(9, 7\)"),
        ({}, [(2, 3, 9, 7), (4, 3, 3), (4,)], ShapeError, r"weight must be \(F,C/groups,KH,KW\)"),
        ({}, [(2, 3, 9, 7), (4, 2, 3, 3), (4,)], ShapeError, "takes 2 channels .* but x has 3 channels"),
        ({"groups": 2}, [(2, 4, 9, 7), (5, 2, 3, 3), (5,)], ShapeError, "a multiple of 2 filters"),
        ({}, [(2, 3, 9, 7), (4, 3, 3, 3), (3,)], ShapeError, r"bias has shape \(3,\)"),
        ({}, [(2, 3, 9, 7), (0, 3, 3, 3), (0,)], ShapeError, "no filters"),
        ({}, [(2, 3, 9, 7), (4, 3, 0, 3), (4,)], ShapeError, "empty kernel"),
        ({"padding": 1}, [(2, 3, 0, 7), (4, 3, 1, 1), (4,)], ShapeError, "empty side"),
        ({}, [(2, 3, 2, 7), (4, 3, 3, 3), (4,)], ShapeError, "3x3 kernel .* larger than the input 2x7"),
        ({"stride": 0}, [(2, 3, 9, 7), (4, 3, 3, 3), (4,)], ArgumentError, "stride must be at least 1"),
        ({"stride": (1, 2, 3)}, [(2, 3, 9, 7), (4, 3, 3, 3), (4,)], ArgumentError, "an int or a pair of ints"),
        ({"stride": 1.5}, [(2, 3, 9, 7), (4, 3, 3, 3), (4,)], ArgumentError, "an int or a pair of ints"),
        ({"dilation": 0}, [(2, 3, 9, 7), (4, 3, 3, 3), (4,)], ArgumentError, "dilation must be at least 1"),
        ({"padding": -1}, [(2, 3, 9, 7), (4, 3, 3, 3), (4,)], ArgumentError, "padding must be at least 0"),
        ({"padding": "full"}, [(2, 3, 9, 7), (4, 3, 3, 3), (4,)], ArgumentError, "'same' or 'valid', got 'full'"),
        ({"padding": "same", "stride": 2}, [(2, 3, 9, 7), (4, 3, 3, 3), (4,)], ArgumentError, "needs stride 1"),
        ({"groups": 0}, [(2, 3, 9, 7), (4, 3, 3, 3), (4,)], ArgumentError, "groups must be at least 1"),
        ({"groups": 1.0}, [(2, 3, 9, 7), (4, 3, 3, 3), (4,)], ArgumentError, "groups must be an int"),
    ],
)
def test_refuses(keywords, shapes, error, match):
    with refused(error, match):
        ops.conv2d.forward(*(np.zeros(shape, "float32") for shape in shapes), **keywords)


def test_refuses_a_gradient_of_another_shape(rng):
    y, cache = ops.conv2d.forward(*arrays(rng, (2, 3, 9, 7), (4, 3, 3, 3)))
    with refused(ShapeError, r"dy has shape \(2, 4, 7, 4\), the output had \(2, 4, 7, 5\)"):
        ops.conv2d.backward(y[..., 1:], cache)
