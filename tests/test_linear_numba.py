"""The dense layer on weights as they are and on packed ones, against the array operations in float64."""

import numpy as np
import pytest

from alexnet_np import threads
from alexnet_np.kernels import choices, linear_numba
from alexnet_np.kernels.gemm_numba import WIDTH, padded_width
from alexnet_np.ops import linear

ERROR = 2e-6  # L2, relative: float32 sums of up to 1,100 products
SHAPES = [(1, 40, 64), (2, 16, 32), (3, 16, 33), (5, 1000, 64), (128, 40, 96), (600, 37, 1088), (4, 3, 50)]


def arrays(M, N, K):
    rng = np.random.default_rng(M + N + K)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in ((M, K), (N, K), (N,), (M, N))]


def assert_close(got, expected):
    assert got.shape == expected.shape and got.dtype == np.float32
    assert np.linalg.norm(got - expected) <= ERROR * np.linalg.norm(expected)


@pytest.mark.parametrize(("M", "N", "K"), SHAPES)
def test_forward_and_gradients(M, N, K):
    x, weight, bias, dy = arrays(M, N, K)
    doubles = [a.astype(np.float64) for a in (x, weight, bias, dy)]
    assert_close(linear_numba.compute(x, weight, bias), linear.compute(*doubles[:3]))
    expected = linear.gradients(doubles[3], doubles[0], doubles[1], (True, True, True))
    for ours, theirs in zip(linear_numba.gradients(dy, x, weight, (True, True, True)), expected, strict=True):
        assert_close(ours, theirs)
    assert linear_numba.gradients(dy, x, weight, (False, False, False)) == (None, None, None)


@pytest.mark.parametrize("relu", [0, 1])
@pytest.mark.parametrize(("M", "N", "K"), SHAPES)
def test_packed_weights(M, N, K, relu):
    x, weight, bias, _ = arrays(M, N, K)
    panels, ldx, ldy = -(-N // WIDTH), padded_width(K), padded_width(N)
    packed = np.full(panels * K * WIDTH, np.nan, np.float32)
    rows = np.full((M, ldx), np.nan, np.float32)
    rows[:, :K] = x
    wide = np.zeros(panels * WIDTH, np.float32)
    wide[:N] = bias
    y = np.full((M, ldy), np.nan, np.float32)
    with threads.parallel():
        linear_numba.pack_weight[-(-N // linear_numba.WIDTH)](weight.reshape(-1), N, K, packed)
    with choices.overriding(choices.Row(op="linear", block_k=100)):
        shape = linear_numba.Shape(M, N, K, ldx, ldy)
        linear_numba.forward(rows.reshape(-1), packed, wide, bool(relu), y.reshape(-1), shape)
    expected = linear.compute(*(a.astype(np.float64) for a in (x, weight, bias)))
    assert_close(y[:, :N], np.maximum(expected, 0) if relu else expected)


@pytest.mark.parametrize("sizes", [[5], [3, 4], [0, 2, 1, 9], [4, 4, 5, 4, 0, 1, 2, 3]])
@pytest.mark.parametrize(("N", "K"), [(7, 96), (130, 64), (10, 50)])
def test_the_gradient_over_shards_is_their_tree_whoever_has_them(rng, sizes, N, K):
    dy, x = ([rng.standard_normal((rows, width), dtype=np.float32) for rows in sizes] for width in (N, K))
    found, other = np.full((2, N, K), np.nan, np.float32)
    each = list(np.full((len(sizes), N, K), np.nan, np.float32))
    linear_numba.sum_shards(dy, x, found)
    linear.sum_shards(dy, x, other)
    for d, rows, out in zip(dy, x, each, strict=True):
        linear_numba.sum_shards([d], [rows], out)
    while len(each) > 1:
        each = [first + second for first, second in zip(each[::2], each[1::2], strict=True)]
    assert np.array_equal(found, each[0])
    whole = np.concatenate(dy).astype(np.float64).T @ np.concatenate(x)
    assert_close(found, whole)
    assert_close(other, whole)
