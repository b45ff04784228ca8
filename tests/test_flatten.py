import numpy as np
import pytest
from oracles import channels_last, check_op, refused, run, strided

from alexnet_np import ops
from alexnet_np.errors import ArgumentError, ShapeError


@pytest.mark.parametrize(
    ("shape", "start", "end"),
    [
        ((2, 3, 4, 5), 1, -1),
        ((2, 3, 4, 5), 0, -1),
        ((2, 3, 4, 5), 1, 2),
        ((2, 3, 4, 5), -3, -2),
        ((2, 3, 4, 5), 2, 2),
        ((5,), 0, 0),
        ((), 0, -1),
        ((0, 3, 4), 1, -1),
        ((2, 0, 4), 1, -1),
    ],
)
def test_agrees_with_torch(backend, rng, shape, start, end):
    x = np.asarray(rng.standard_normal(shape))
    check_op(ops.flatten, [x], {"start_dim": start, "end_dim": end}, implementation=backend)


@pytest.mark.parametrize("layout", [channels_last, strided])
def test_order_is_that_of_the_axes_whatever_the_memory(backend, rng, layout):
    x = rng.standard_normal((2, 3, 4, 5))
    check_op(ops.flatten, [x], {"start_dim": 1}, implementation=backend, layout=layout)


def test_answer_computed_by_hand(backend):
    x = np.arange(8.0).reshape(1, 2, 2, 2)
    y, dx = run(ops.flatten, [x], {}, np.arange(8.0)[None], backend)
    assert y.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert np.array_equal(dx, x)


def test_a_scalar_becomes_one_number_by_default():  # torch.flatten starts at axis 0, torch.nn.Flatten at 1
    assert ops.flatten.forward(np.float32(3))[0].shape == (1,)


@pytest.mark.parametrize(
    ("start", "end", "match"),
    [(2, 1, "start_dim 2 comes after end_dim 1"), (3, -1, "dim 3 is out of range"), (0, 5, "dim 5 is out of range")],
)
def test_refuses(start, end, match):
    with refused(ArgumentError, match):
        ops.flatten.forward(np.zeros((2, 3, 4)), start, end)


def test_refuses_a_gradient_of_another_size():
    y, cache = ops.flatten.forward(np.zeros((2, 3, 4)))
    with refused(ShapeError, r"dy has shape \(2, 11\)"):
        ops.flatten.backward(y[:, 1:], cache)
