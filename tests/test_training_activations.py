"""tanh and sigmoid beside torch, by hand, and against a central difference."""

import numpy as np
import pytest
from oracles import check_op

import alexnet_np as anp
from alexnet_np.ops import sigmoid, tanh


@pytest.mark.parametrize("op", [tanh, sigmoid], ids=["tanh", "sigmoid"])
def test_as_torch(op, backend):
    x = np.random.default_rng(0).standard_normal((3, 5, 7)) * 3
    check_op(op, [x], implementation=backend)
    check_op(op, [x.T], implementation=backend)
    check_op(op, [np.zeros((0, 4))], implementation=backend)


def test_by_hand():
    y, cache = tanh.forward(np.array([0.0, np.log(2)]))
    np.testing.assert_allclose(y, [0, 0.6], rtol=1e-15)
    np.testing.assert_allclose(tanh.backward(np.array([2.0, 1.0]), cache), [2, 0.64], rtol=1e-15)
    y, cache = sigmoid.forward(np.array([0.0, np.log(3), -np.log(3)]))
    np.testing.assert_allclose(y, [0.5, 0.75, 0.25], rtol=1e-15)
    np.testing.assert_allclose(sigmoid.backward(np.array([4.0, 1.0, 1.0]), cache), [1, 0.1875, 0.1875], rtol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_out(dtype):
    x = np.array([-1e30, -800, -80, 80, 800, 1e30, np.inf, -np.inf, np.nan], dtype)
    with np.errstate(over="raise", invalid="raise"):
        y, cache = sigmoid.forward(x)
        dx = sigmoid.backward(np.ones_like(x), cache)
    assert np.array_equal(y[[0, 1, 3, 4, 5, 6, 7]], [0, 0, 1, 1, 1, 1, 0])
    assert y[2] == pytest.approx(np.exp(-80), rel=1e-6) and np.isnan(y[8]) and np.isnan(dx[8])
    assert np.array_equal(tanh.forward(x)[0][:8], [-1, -1, -1, 1, 1, 1, 1, -1])


@pytest.mark.parametrize("op", [tanh, sigmoid])
def test_refused(op):
    with pytest.raises(anp.DtypeError, match="int64"):
        op.forward(np.arange(3))
    with pytest.raises(anp.ShapeError):
        op.backward(np.zeros(3), op.forward(np.zeros(2))[1])
