import numpy as np
import pytest
from oracles import channels_last, check_op, implementations, refused, run, strided

from alexnet_np import ops
from alexnet_np.errors import ArgumentError, ShapeError

backend = implementations("adaptive_avg_pool2d")


@pytest.mark.parametrize(
    ("shape", "output_size"),
    [
        ((2, 3, 13, 13), (6, 6)),  # alexnet on a larger image: windows of 3, overlapping
        ((2, 3, 12, 18), 6),  # windows that divide evenly
        ((2, 3, 6, 6), 6),  # the identity
        ((2, 3, 1, 1), 6),  # alexnet on its smallest image: every output repeats the one pixel
        ((2, 3, 4, 5), (7, 9)),  # larger than the input
        ((2, 3, 9, 4), (1, 7)),
        ((2, 3, 9, 8), 1),
        ((2, 3, 9, 8), (None, 3)),
        ((2, 3, 9, 8), (4, None)),
        ((2, 3, 9, 8), [2, 5]),
        ((3, 9, 8), (4, 3)),
        ((0, 3, 9, 8), (4, 3)),
    ],
)
def test_agrees_with_torch(backend, rng, shape, output_size):
    x = rng.standard_normal(shape)
    check_op(ops.adaptive_avg_pool2d, [x], {"output_size": output_size}, implementation=backend)


@pytest.mark.parametrize("layout", [channels_last, strided])
def test_any_memory_layout(backend, rng, layout):
    x = rng.standard_normal((2, 4, 9, 8))
    check_op(ops.adaptive_avg_pool2d, [x], {"output_size": 4}, implementation=backend, layout=layout)


def test_answer_computed_by_hand(backend):
    x = np.array([[[[1.0, 2.0, 6.0]]]])  # two windows of two pixels, which share the middle one
    y, dx = run(ops.adaptive_avg_pool2d, [x], {"output_size": (1, 2)}, np.array([[[[10.0, 20.0]]]]), backend)
    assert y.tolist() == [[[[1.5, 4.0]]]]
    assert dx.tolist() == [[[[5.0, 15.0, 10.0]]]]


@pytest.mark.parametrize(("shape", "output"), [((2, 3, 9, 8), (0, 3)), ((2, 0, 9, 8), (4, 3))])
def test_nothing_in_or_nothing_out(backend, shape, output):  # torch has no backward here
    dy = np.ones((*shape[:2], *output))
    y, dx = run(ops.adaptive_avg_pool2d, [np.ones(shape)], {"output_size": output}, dy, backend)
    assert y.shape == dy.shape and dx.shape == shape and not dx.any()


@pytest.mark.parametrize("size", [6, (6, 6)])
def test_the_identity_is_a_copy(rng, size):
    x = rng.standard_normal((1, 2, 6, 6))
    y, cache = ops.adaptive_avg_pool2d.forward(x, size)
    assert not np.shares_memory(y, x)
    assert not np.shares_memory(ops.adaptive_avg_pool2d.backward(y, cache), y)


@pytest.mark.parametrize(
    ("shape", "output_size", "error", "match"),
    [
        ((9, 8), 3, ShapeError, r"x must be \(N,C,H,W\) or \(C,H,W\), got shape \(9, 8\)"),
        ((1, 3, 0, 8), 3, ShapeError, "empty side"),
        ((1, 3, 9, 8), -1, ArgumentError, "output_size must be at least 0"),
        ((1, 3, 9, 8), 2.5, ArgumentError, "an int or a pair of ints or None, got 2.5"),
        ((1, 3, 9, 8), (1, 2, 3), ArgumentError, "an int or a pair of ints or None"),
    ],
)
def test_refuses(shape, output_size, error, match):
    with refused(error, match):
        ops.adaptive_avg_pool2d.forward(np.zeros(shape), output_size)
