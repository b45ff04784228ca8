import numpy as np
import pytest
from oracles import check_op, implementations, run, strided

from alexnet_np import ops

backend = implementations("relu")


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4, 5), (0, 3)])
def test_agrees_with_torch(backend, rng, shape):
    check_op(ops.relu, [np.asarray(rng.standard_normal(shape))], implementation=backend)


def test_any_memory_layout(backend, rng):
    check_op(ops.relu, [rng.standard_normal((3, 4, 5))], implementation=backend, layout=strided)


def test_awkward_values(backend):
    x = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45])
    check_op(ops.relu, [x], implementation=backend, smooth=False)


def test_answer_computed_by_hand(backend):
    y, dx = run(ops.relu, [np.array([-2.0, 0.0, -0.0, 3.0])], {}, np.array([5.0, 6.0, 7.0, 8.0]), backend)
    assert y.tolist() == [0, 0, 0, 3]
    assert dx.tolist() == [0, 0, 0, 8]  # at exactly 0 nothing passes


def test_never_in_place():
    x = np.ones(3)
    assert not np.shares_memory(ops.relu.forward(x)[0], x)
