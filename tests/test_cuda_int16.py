"""Plans on the GPU with dense weights in 16 bits: close, half as large, named, refreshed, copied; what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from cuda_shim.plans import build, images, machine

import alexnet_np as anp
from alexnet_np.kernels.gemm_numba import WIDTH

__all__ = ["machine"]  # a fixture

LOGITS = 1e-4  # largest, relative to the largest logit, as in tests/test_linear_int16.py
DENSE = ("classifier.1", "classifier.4", "classifier.6")


def truth(model: Any, x: np.ndarray) -> np.ndarray:
    double = anp.alexnet(width=1 / 16, num_classes=10, weights=model.state_dict(), dtype="float64").eval()
    with anp.no_grad():
        return double(x.astype(float))


@pytest.mark.parametrize("precision", ["strict", "tf32x3"])
def test_a_plan_is_close_whichever_way_its_dense_layers_go(machine: Any, precision: str) -> None:
    model, x = build(), images(6)
    expected = truth(model, x)
    machine.move(model)
    plan, plain = (anp.compile(model, 6, size=99, precision=precision, dense=d) for d in ("int16", "float32"))
    for N in (6, 6, 1, 4, 1):  # by cuBLAS, and by a warp an output
        found = machine.fetch(plan(machine.place(x[:N])))
        assert np.abs(found - expected[:N]).max() < LOGITS * np.abs(expected).max()
        assert np.abs(found - machine.fetch(plain(machine.place(x[:N])))).max() > 0
    assert "dense int16" in repr(plan) and repr(plan).count("cuBLAS, int16") == 3 and "int16" not in repr(plain)
    sizes = [sum(a.nbytes for name in DENSE for a in each.weights.arrays(name)) for each in (plan, plain)]
    assert 0.5 < sizes[0] / sizes[1] < 0.56 or precision != "strict"  # tf32x3 keeps three arrays of each
    assert plan.weights.total < plain.weights.total


def test_few_images_go_by_rows(machine: Any) -> None:
    plan = anp.compile(machine.move(build()), 4, size=99, dense="int16")
    assert repr(plan).count("a warp an output, int16") == 3


def test_integers_are_those_of_the_cpu(machine: Any) -> None:
    model = build()
    cpu = anp.compile(model, 1, size=99, dense="int16")
    weights = {name: p.data.copy() for name, p in model.named_parameters()}
    plan = anp.compile(machine.move(model), 1, size=99, dense="int16")
    for step in cpu._program.rows:
        F, K = weights[f"{step.name}.weight"].shape
        integers, scales = map(machine.fetch, plan.weights._real(f"{step.name}.weight"))
        for found, held in ((integers, step.weights), (scales, step.scales)):
            panels = held.reshape(-1, found.shape[1], WIDTH)
            assert np.array_equal(panels.transpose(0, 2, 1).reshape(-1, found.shape[1])[:F], found)
        assert integers.shape == (F, K)


def test_refreshed_and_copied(machine: Any) -> None:
    model = machine.move(build())
    plan, x = anp.compile(model, 1, size=99, dense="int16"), machine.place(images(1))
    before = machine.fetch(plan(x))
    if not hasattr(machine, "executor"):  # a model under the shim is no model on a GPU once it is copied
        assert np.array_equal(machine.fetch(pickle.loads(pickle.dumps(plan))(x)), before)
    weight = model.classifier[-1].weight
    weight.data *= np.float32(2)
    assert np.array_equal(machine.fetch(plan(x)), before)
    plan.refresh()
    bias = machine.fetch(model.classifier[-1].bias.data)
    np.testing.assert_allclose(machine.fetch(plan(x)), 2 * before - bias, rtol=0, atol=1e-5 * np.abs(before).max())


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(machine: Any, odd: float) -> None:
    model = build()
    model.classifier[-1].weight.data[3, 5] = odd
    with pytest.raises(anp.ArgumentError, match=r"classifier\.6\.weight .* not finite") as error:
        anp.compile(machine.move(model), 1, size=99, dense="int16")
    assert "\n" not in str(error.value)
