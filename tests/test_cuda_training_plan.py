"""The training plan on the GPU, run under the shim, and unchanged on a GPU: what it has beside test_training_plan.py.

Reduced precision, input from anywhere, what is queued and allocated, what is refused, what is printed.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from cuda_shim import ShimExecutor
from cuda_shim.machines import machine_called
from cuda_shim.plans import machine
from cuda_shim.training import CLASSES, OPTIONS, SIZE, Both, N, batch, build

import alexnet_np as anp
from alexnet_np.data.preprocess import normalise
from alexnet_np.layers import Dropout
from alexnet_np.plan import compile_training
from alexnet_np.plan.cuda_training import CudaTrainingPlan
from alexnet_np.presets import PRESETS

__all__ = ["machine"]  # a fixture


def test_a_model_on_the_gpu_gets_its_plan(machine: Any) -> None:
    assert isinstance(Both(machine).plan, CudaTrainingPlan)


def test_tf32x3_is_as_exact_as_strict(machine: Any) -> None:
    both = Both(machine, precision="tf32x3")
    for seed in range(2):
        both.step(seed)


def test_tf32_is_coarser(machine: Any) -> None:
    """Where another unit or pixel wins, gradients before it differ by far more than rounding: the last layers only."""
    both = Both(machine, precision="tf32", bound=3e-2, compared="classifier.6")
    both.step(0)
    assert both.worst > 1e-5, "tf32 does not show: another arithmetic was used"


def test_bytes_and_targets_from_anywhere(machine: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (N, *SIZE, 3), np.uint8)
    x = normalise(pixels, PRESETS["torchvision"].preprocessing, np.empty((N, 3, *SIZE), np.float32))
    target = np.array([3, 9, 0, 9, 1])
    model = machine.move(build())
    step = compile_training(model, anp.SGD(model.named_parameters(), lr=0.0), N, SIZE)
    room = step.pinned_input()
    room[:] = pixels
    targets = (target, target.astype(np.uint8), np.repeat(target, 2)[::2], machine.place(target.astype(np.int32)))
    losses = set()
    for images in (machine.place(x), pixels, room, machine.place(pixels)):
        for t in targets:
            for _, layer in model.leaves():
                if isinstance(layer, Dropout):
                    layer.calls = 0
            losses.add(float(machine.fetch(step(images, t))))
    assert len(losses) == 1


def test_a_target_out_of_range_on_the_gpu_shows_as_nan_and_spoils_nothing(machine: Any) -> None:
    model = machine.move(build())
    step = compile_training(model, anp.SGD(model.named_parameters(), **OPTIONS), N, SIZE)
    x, target = batch(0)
    target[1] = CLASSES
    assert np.isnan(machine.fetch(step(machine.place(x), machine.place(target))))
    assert all(np.isfinite(machine.fetch(p.data)).all() for p in model.parameters())


def test_the_loop_allocates_nothing_but_the_loss() -> None:
    with machine_called("shim") as machine:
        both = Both(machine)
        both.step(0)
        both.step(1)
        x, target = batch(2)
        x, plan = machine.place(x), both.plan
        plan.queue.events.clear()
        with mock.patch.object(ShimExecutor, "empty", autospec=True, side_effect=ShimExecutor.empty) as empty:
            for _ in range(3):
                plan(x, target)
        assert [call.args[1] for call in empty.call_args_list] == [()] * 3
        assert plan.queue.events == ["copy", "copy", "graph", "copy"] * 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((2, 3, 99, 99), np.float32)}, anp.ShapeError, "is for 5 images of 99x99, got 2 of 99x99"),
        ({"x": np.zeros((5, 3, 99, 98), np.float32)}, anp.ShapeError, "is for 5 images of 99x99, got 5 of 99x98"),
        ({"x": np.zeros((5, 3, 99, 99))}, anp.DtypeError, "x must be float32 .* got float64"),
        ({"target": np.zeros(5)}, anp.DtypeError, "target must be integers, got float64"),
        ({"target": np.zeros((5, 1), int)}, anp.ShapeError, r"target must be \(5,\), got \(5, 1\)"),
        ({"target": np.array([0, 10, 1, 2, 3])}, anp.ArgumentError, r"target 10 is out of 0...9"),
        ({"target": np.array([0, 1, 2, 3, -1])}, anp.ArgumentError, r"target -1 is out of 0...9"),
    ],
)
def test_wrong_batches_are_named(machine: Any, change: dict, error: type, message: str) -> None:
    model = machine.move(build())
    step = compile_training(model, anp.SGD(model.named_parameters(), **OPTIONS), N, SIZE)
    x, target = batch(0)
    given = {"x": x, "target": target, **change}
    with pytest.raises(error, match=message) as caught:
        step(machine.place(given["x"]), given["target"])
    assert "\n" not in str(caught.value)


def test_a_batch_on_the_host_is_refused(machine: Any) -> None:
    model = machine.move(build())
    step = compile_training(model, anp.SGD(model.named_parameters(), **OPTIONS), N, SIZE)
    with pytest.raises(anp.BackendError, match="x is on the CPU, not where the plan is"):
        step(*batch(0))
    machine.move_back(model)
    x, target = batch(0)
    with pytest.raises(anp.BackendError, match="training plan: features.0.weight is on the CPU now"):
        step(machine.place(x), target)


def test_parameters_that_kernels_cannot_update_in_place(machine: Any) -> None:
    model = machine.move(build())
    optimizer, weight = anp.SGD(model.named_parameters(), **OPTIONS), model.classifier[6].weight
    kept = weight.data
    shifted = machine.place(np.zeros(kept.size + 1, np.float32))[1:].reshape(kept.shape)
    for wrong in (
        machine.place(np.zeros(kept.shape)),
        machine.place(np.zeros(kept.shape[::-1], np.float32)).T,
        shifted,
    ):
        weight.data = wrong
        with pytest.raises(anp.DtypeError, match="classifier.6.weight must be float32, in C order and aligned to 16"):
            compile_training(model, optimizer, N, SIZE)


def test_wrong_compilations_are_named(machine: Any) -> None:
    model = build()
    optimizer = anp.SGD(model.named_parameters(), **OPTIONS)
    other = anp.SGD(build().named_parameters(), **OPTIONS)
    machine.move(model)
    for arguments, options, message in [
        ((optimizer, 0), {}, "batch_size must be at least 1, got 0"),
        ((optimizer, N), {"label_smoothing": 1.5}, "label_smoothing must be between 0 and 1, got 1.5"),
        ((other, N), {}, "the optimizer's 'features.0.weight' is not a parameter of this model"),
        ((optimizer, N), {"precision": "half"}, "unknown matmul precision 'half'"),
    ]:
        with pytest.raises(anp.ArgumentError, match=message):
            compile_training(model, *arguments, **options)
    with pytest.raises(anp.ArgumentError, match="nothing to train"):
        compile_training(model.freeze(""), optimizer, N, SIZE)
    with pytest.raises(anp.DtypeError, match="the model is float64"):
        compile_training(model.astype("float64"), optimizer, N, SIZE)


def test_a_plan_prints_its_steps(machine: Any) -> None:
    model = machine.move(build())
    step = compile_training(model, anp.SGD(model.named_parameters(), **OPTIONS), N, SIZE, label_smoothing=0.1)
    lines = repr(step).splitlines()
    head = "Training plan on the GPU for 5 images of 99x99, float32, products strict, label smoothing 0.1"
    assert lines[0] == head
    assert any("classifier.0" in line and "Philox, p = 0.5" in line for line in lines)
    assert "16 for SGD" in lines[-1]
