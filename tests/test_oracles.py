"""The oracles themselves: each of them must be able to fail, and say why."""

from unittest import mock

import numpy as np
import pytest
from oracles import FLOAT32_FLOOR, FLOAT32_RATIO, assert_as_accurate, assert_close, check_gradient, check_op, run

from alexnet_np import ops

x = np.array([[0.5, -1.5], [2.5, 3.5]])


def relu_with(**functions):
    """ops.relu with some of its math replaced."""
    return mock.patch.multiple(ops.relu, **functions)


def test_a_correct_op_passes():
    check_op(ops.relu, [x], implementation="numpy")


def test_a_wrong_forward_fails():
    with relu_with(compute=lambda x: np.maximum(x, 0) * (1 + 1e-11)), pytest.raises(AssertionError) as failure:
        check_op(ops.relu, [x], implementation="numpy")
    message = str(failure.value)
    assert "relu float64, numpy forward, numpy backward: y: worst at (1, 1): 3.500000000035 instead of 3.5" in message
    assert "ULPs); allowed 1.0e-12 of 3.5" in message


def test_a_wrong_gradient_fails_beside_torch_and_without_it():
    wrong = relu_with(gradients=lambda dy, y: np.where(y > 0, dy, 0.001 * dy))
    with wrong, pytest.raises(AssertionError, match=r"gradient 0: worst at \(0, 1\)"):
        check_op(ops.relu, [x], implementation="numpy")
    with wrong, pytest.raises(AssertionError, match="gradient of argument 0: central difference"):
        check_gradient(ops.relu, [x], {}, np.ones_like(x), "numpy")


def test_a_wrong_dtype_fails():
    with (
        relu_with(gradients=lambda dy, y: dy.astype("float64")),
        pytest.raises(AssertionError, match="float64 from float32 inputs"),
    ):
        run(ops.relu, [x], {}, x, "numpy", dtype=np.float32)


@pytest.mark.parametrize(
    "functions",
    [{"compute": lambda x: np.maximum(x, 0, out=x)}, {"gradients": lambda dy, y: np.multiply(dy, y, out=dy)}],
)
def test_touching_an_input_fails(functions):
    with relu_with(**functions), pytest.raises(AssertionError, match="was modified"):
        run(ops.relu, [x], {}, x, "numpy")


def test_a_numpy_warning_fails():
    with relu_with(compute=lambda x: x / 0), pytest.raises(RuntimeWarning, match="divide by zero"):
        run(ops.relu, [x], {}, x, "numpy")


@pytest.mark.parametrize(
    ("got", "want", "match"),
    [
        ([1.0, np.nan], [1.0, 2.0], r"worst at \(1,\): nan instead of 2.0"),
        ([np.nan, 2.0], [np.nan, np.nan], r"worst at \(1,\): 2.0 instead of nan"),
        ([1.0, np.inf], [1.0, -np.inf], r"worst at \(1,\): inf instead of -inf"),
        ([1.0], [1.0, 2.0], r"shape \(1,\), torch has \(2,\)"),
        (2.0, 1.0, r"worst at \(\): 2.0 instead of 1.0"),
    ],
)
def test_places_and_shapes_count(got, want, match):
    with pytest.raises(AssertionError, match=match):
        assert_close("y", np.array(got), np.array(want), 1e-12)


@pytest.mark.parametrize(("share", "passes"), [(0.9, True), (1.2, False)])
def test_float32_is_judged_by_torchs_error_or_by_one_rounding(rng, share, passes):
    truth, noise = rng.standard_normal(10**6), rng.standard_normal(10**6)
    for theirs, limit in ((1e-6 * noise, FLOAT32_RATIO * 1e-6), (0 * noise, FLOAT32_FLOOR)):
        ours = share * limit * noise[::-1]
        if passes:
            assert_as_accurate("y", truth + ours, truth + theirs, truth, FLOAT32_FLOOR)
        else:
            with pytest.raises(AssertionError, match="of the norm, torch's .*, allowed"):
                assert_as_accurate("y", truth + ours, truth + theirs, truth, FLOAT32_FLOOR)
