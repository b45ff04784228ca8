"""softmax and log_softmax share their arguments, and so their tests."""

import numpy as np
import pytest
from oracles import check_op, implementations, refused, run, strided

from alexnet_np import ops
from alexnet_np.errors import ArgumentError

backend = implementations("softmax")

BOTH = pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax], ids=["softmax", "log_softmax"])


@BOTH
@pytest.mark.parametrize(
    ("shape", "dim"),
    [
        ((7,), 0),
        ((4, 9), -1),
        ((4, 9), 0),
        ((2, 3, 4, 5), 1),
        ((2, 3, 4, 5), -2),
        ((3, 1), 1),
        ((), 0),
        ((), -1),
        ((0, 3), 1),
        ((3, 0), 1),
        ((8, 1000), -1),
    ],
)
def test_agrees_with_torch(backend, rng, op, shape, dim):
    check_op(op, [np.asarray(rng.standard_normal(shape))], {"dim": dim}, implementation=backend)


@BOTH
def test_any_memory_layout(backend, rng, op):
    check_op(op, [rng.standard_normal((3, 4, 5))], {"dim": 1}, implementation=backend, layout=strided)


@BOTH
@pytest.mark.parametrize(
    "x",
    [
        [1000.0, 1001.0, 999.5],  # exp overflows without the shift
        [-1000.0, -1001.0, -999.5],
        [1e30, -1e30, 0.0],
        [0.0, -150.0, -300.0],  # softmax underflows, log-softmax must not
        [-np.inf, 1.0, 2.0],  # a masked class
        [np.nan, 1.0, 2.0],
    ],
)
def test_awkward_values(backend, op, x):
    check_op(op, [np.array([x, [0.0, 1.0, 2.0]])], {"dim": 1}, implementation=backend, smooth=False)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's own, for inf - inf
@BOTH
@pytest.mark.parametrize("x", [[-np.inf, -np.inf], [np.inf, 0.0]])
def test_no_finite_answer_is_nan_as_in_torch(op, x):
    y, _ = op.forward(np.array([x, [0.0, 1.0]]))
    assert np.isnan(y[0]).any() and np.isfinite(y[1]).all()


def test_softmax_computed_by_hand(backend):
    x = np.log(np.array([1.0, 2.0, 5.0]))
    y, dx = run(ops.softmax, [x], {}, np.array([8.0, 0.0, 0.0]), backend)
    np.testing.assert_allclose(y, [1 / 8, 2 / 8, 5 / 8], rtol=1e-15)
    np.testing.assert_allclose(dx, [7 / 8, -2 / 8, -5 / 8], rtol=1e-14)  # 8 * y0 * ([1, 0, 0] - y)


def test_log_softmax_computed_by_hand(backend):
    x = np.log(np.array([1.0, 2.0, 5.0]))
    y, dx = run(ops.log_softmax, [x], {}, np.array([8.0, 0.0, 0.0]), backend)
    np.testing.assert_allclose(y, np.log([1 / 8, 2 / 8, 5 / 8]), rtol=1e-15)
    np.testing.assert_allclose(dx, [7, -2, -5], rtol=1e-14)  # 8 * ([1, 0, 0] - exp y)


@BOTH
@pytest.mark.parametrize(
    ("dim", "match"),
    [(2, "dim 2 is out of range for an array of rank 2"), (-3, "dim -3"), (None, "dim must be an int")],
)
def test_refuses(op, dim, match):
    with refused(ArgumentError, match):
        op.forward(np.zeros((2, 3)), dim)
