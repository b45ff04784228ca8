"""tanh and sigmoid beside torch, by hand, and against a central difference."""

import numpy as np
import pytest
from oracles import check_op, implementations

import alexnet_np as anp
from alexnet_np import threads
from alexnet_np.kernels.cpu.image import framed
from alexnet_np.kernels.cpu.simd import LANES
from alexnet_np.kernels.relu_tanh_sigmoid_nhwc_numba import KINDS, activate
from alexnet_np.ops import sigmoid, tanh

backend = implementations("tanh")


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


@pytest.mark.parametrize("C", [5, LANES, 2 * LANES + 3])
@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS)
def test_channels_last_kernel(kind, C):
    """Every magnitude and sign, with frames, and 0 in the channels that fill a vector up."""
    width = max(C, LANES)
    xi, yi = framed(width, 3, 50), framed(width, 3, 50, 1, 2)
    x, y = np.zeros(2 * xi.image, np.float32), np.zeros(2 * yi.image, np.float32)
    values = np.random.default_rng(0).standard_normal((2, 3, 50, C)) * np.logspace(-4, 3, 50)[:, None]
    values[0, 0, 0] = [np.inf, -np.inf, np.nan, -0.0, 0.625, *values[0, 0, 0, 5:]]
    x.reshape(2, 3, 50, width)[..., :C] = values
    with threads.parallel():
        activate[2 * xi.H](kind, x, xi, y, yi, C)
    found = y.reshape(2, 6, 53, width)[:, 1:4, 1:51]
    assert np.count_nonzero(y) == np.count_nonzero(found)
    assert not found[..., C:].any()
    expected = (anp.ops.relu, tanh, sigmoid)[kind].forward(np.float64(np.float32(values)))[0]
    np.testing.assert_allclose(found[..., :C], expected, rtol=3e-7, atol=1e-37)
