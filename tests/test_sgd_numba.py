"""SGD's Numba kernel: both rules by itself, without the array operations, and beside them in float64."""

from unittest import mock

import numpy as np
import pytest

from alexnet_np.kernels import sgd_numba
from alexnet_np.ops import sgd
from alexnet_np.ops.sgd import Step

STEPS = [
    Step(0.1),
    Step(0.1, weight_decay=0.05),
    Step(0.1, 0.9, 0.3, 0.05, first=True),
    Step(0.1, 0.9, 0.3, 0.05),
    Step(0.1, 0.9, 0.0, 0.05, nesterov=True, first=True),
    Step(0.1, 0.9, 0.0, 0.05, nesterov=True),
    Step(0.1, weight_decay=0.05, paper=True),
    Step(0.1, 0.9, weight_decay=0.05, paper=True, first=True),
    Step(0.1, 0.9, weight_decay=0.05, paper=True),
]


@pytest.mark.parametrize("step", STEPS, ids=str)
@pytest.mark.parametrize("size", [1, 15, 64, 100, (1 << 16) + 5])
def test_every_rule_in_vectors_and_what_is_left_of_them(step: Step, size: int) -> None:
    rng = np.random.default_rng(size)
    w, g, v = (rng.standard_normal(size).astype(np.float32) for _ in range(3))
    has = step.momentum > 0
    if step.first:
        v[:] = np.nan  # it is written, not read
    exact = [array.astype(np.float64) for array in (w, g, v)]
    sgd.compute(exact[0], exact[1], exact[2] if has else None, step)
    kept = g.copy()
    with mock.patch.object(sgd_numba, "array_version", side_effect=AssertionError("handed on")):
        sgd_numba.compute(w, g, v if has else None, step)
    np.testing.assert_allclose(w, exact[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(g, kept)
    if has:
        np.testing.assert_allclose(v, exact[2], rtol=1e-6, atol=1e-6)
