"""What the inference plan on the GPU refuses, in one line each: inputs, outputs, compilations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cuda_shim.plans import build, images, machine, photographs

import alexnet_np as anp
from alexnet_np.layers import Layer

__all__ = ["machine"]  # a fixture


def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("x", "there", "error", "message"),
    [
        (zeros(3, 3, 99, 99), True, anp.ArgumentError, "3 images, but it was compiled with max_batch=2"),
        (zeros(1, 3, 99, 99), False, anp.BackendError, "x is on the CPU, not where the plan is; move it with cupy"),
        (zeros(1, 3, 99, 99, dtype=np.float64), True, anp.DtypeError, "x must be float32 .* or uint8 .*, got float64"),
        (zeros(1, 1, 99, 99), True, anp.ShapeError, r"\(N,3,H,W\), got shape \(1, 1, 99, 99\)"),
        (zeros(3, 99, 99), True, anp.ShapeError, r"add the batch axis"),
        (zeros(1, 3, 20, 20), True, anp.ShapeError, "20x20 is too small for 'torchvision': the smallest .* 63x63"),
        (zeros(1, 3, 99, 99, dtype=np.uint8), False, anp.ShapeError, r"bytes must be \(N,H,W,3\), got shape"),
        (zeros(1, 20, 20, 3, dtype=np.uint8), True, anp.ShapeError, "20x20 is too small"),
        (zeros(99, 99, 3, dtype=np.uint8), False, anp.ShapeError, r"bytes must be \(N,H,W,3\)"),
    ],
)
def test_wrong_inputs_are_named(machine, x: np.ndarray, there: bool, error: type, message: str) -> None:
    plan = anp.compile(machine.move(build()), max_batch=2, size=99)
    with pytest.raises(error, match=message) as caught:
        plan(machine.place(x) if there else x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("out", "there", "error", "message"),
    [
        (zeros(1, 10), False, anp.BackendError, "out is on the CPU"),
        (zeros(1, 10, dtype=np.float64), True, anp.DtypeError, "out must be float32, got float64"),
        (zeros(2, 10), True, anp.ShapeError, r"out must be \(1, 10\), got \(2, 10\)"),
    ],
)
def test_wrong_outputs_are_named(machine, out: np.ndarray, there: bool, error: type, message: str) -> None:
    plan = anp.compile(machine.move(build()), max_batch=2, size=99)
    with pytest.raises(error, match=message):
        plan(machine.place(images(1)), out=machine.place(out) if there else out)


def test_wrong_compilations_are_named(machine) -> None:
    model = build()
    with pytest.raises(anp.ArgumentError, match="precision is for models on the GPU"):
        anp.compile(model, precision="tf32")
    machine.move(model)
    for options, message in [
        ({"precision": "half"}, "unknown matmul precision 'half': choose one of strict, tf32, tf32x3"),
        ({"exact": True, "precision": "tf32"}, "exact=True needs precision 'strict', got 'tf32'"),
        ({"max_batch": 0}, "max_batch must be at least 1"),
    ]:
        with pytest.raises(anp.ArgumentError, match=message):
            anp.compile(model, **options)
    plan = anp.compile(model, max_batch=2, size=99)
    with pytest.raises(anp.ArgumentError, match="pinned_input takes 1 to 2 images, got 3"):
        plan.pinned_input(3)
    model.said = replace(model.described(), preprocessing=None)
    with pytest.raises(anp.ArgumentError, match="no preprocessing is known for '.*'; give x as float32"):
        plan(photographs(1))
    with pytest.raises(anp.DtypeError, match="the model is float64; plans are float32"):
        anp.compile(model.astype("float64"))


def test_a_layer_that_no_plan_knows(machine) -> None:
    model = machine.move(build())
    model.features.layers[1] = Layer()
    with pytest.raises(anp.ArgumentError, match=r"no plan for features.1 \(Layer\(\)\); call the model"):
        anp.compile(model, size=99)
