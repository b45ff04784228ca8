"""The training plan on the GPU, run under the shim, and unchanged on a GPU.

Loss, gradients, parameters and velocities of several steps against the array operations in float64; what may change
between steps; what is refused.
"""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import numpy as np
import pytest
from cuda_shim import ShimExecutor
from cuda_shim.machines import machine_called
from cuda_shim.plans import machine
from cuda_shim.training import CLASSES, CLOSE, OPTIONS, SIZE, Both, N, batch, build

import alexnet_np as anp
from alexnet_np import layers as L
from alexnet_np.data.preprocess import normalise
from alexnet_np.initialisation import initialise
from alexnet_np.layers import Dropout
from alexnet_np.models import AlexNet
from alexnet_np.plan import compile_training
from alexnet_np.plan.cuda_training import CudaTrainingPlan
from alexnet_np.presets import PRESETS

__all__ = ["machine"]  # a fixture


@pytest.mark.parametrize("preset", ["torchvision", "paper", "d2l"])
def test_steps_agree_with_float64(machine: Any, preset: str) -> None:
    """With dropout at work, new in each step, and a schedule of lr."""
    both = Both(machine, preset, label_smoothing=0.1, dampening=0.2)
    assert isinstance(both.plan, CudaTrainingPlan)
    for seed in range(4):
        both.step(seed)
        both.both(lambda _, optimizer: optimizer.param_groups[0].update(lr=optimizer.param_groups[0]["lr"] / 2))


def test_tf32x3_is_as_exact_as_strict(machine: Any) -> None:
    both = Both(machine, precision="tf32x3")
    for seed in range(2):
        both.step(seed)


def test_tf32_is_coarser(machine: Any) -> None:
    """Where another unit or pixel wins, gradients before it differ by far more than rounding: the last layers only."""
    both = Both(machine, precision="tf32", bound=3e-2, compared="classifier.6")
    both.step(0)
    assert both.worst > 1e-5, "tf32 does not show: another arithmetic was used"


@pytest.mark.parametrize("count", [1, 3])
def test_small_batches(machine: Any, count: int) -> None:
    """Whose dense layers are computed in another way."""
    both = Both(machine, count=count)
    for seed in range(2):
        both.step(seed)


def test_another_size_of_image(machine: Any) -> None:
    both = Both(machine, size=(130, 107))
    for seed in range(2):
        both.step(seed)


def by_kind(model: Any) -> list[dict]:
    weights = [(name, p) for name, p in model.named_parameters() if name.endswith("weight")]
    biases = [(name, p) for name, p in model.named_parameters() if name.endswith("bias")]
    return [{"params": weights}, {"params": biases, "lr": 0.1, "weight_decay": 0.0}]


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.0},
        {"nesterov": True},
        {"rule": "paper"},
        {"rule": "paper", "momentum": 0.0},
        {"groups": by_kind},
        {"groups": lambda model: list(model.named_parameters())[6:]},
        {"groups": lambda model: [("mine", dict(model.named_parameters())["classifier.6.bias"])]},
    ],
    ids=[
        "no momentum",
        "nesterov",
        "paper",
        "paper, no momentum",
        "groups",
        "not all parameters",
        "one, by another name",
    ],
)
def test_optimizers(machine: Any, options: dict) -> None:
    both = Both(machine, **options)
    for seed in range(3):
        both.step(seed)
        both.both(lambda _, optimizer: optimizer.param_groups[0].update(lr=optimizer.param_groups[0]["lr"] / 2))


def test_freezing_and_thawing_between_steps(machine: Any) -> None:
    both = Both(machine)
    both.step(0)
    both.both(lambda model, _: model.freeze("features"))
    kept = machine.fetch(both.model.features[0].weight.data).copy()
    both.step(1)
    assert np.array_equal(machine.fetch(both.model.features[0].weight.data), kept)
    assert not any(name.startswith("features") for name in both.plan.gradients)
    both.both(lambda model, _: setattr(model.features[10].weight, "requires_grad", True))
    both.step(2)
    assert [name for name in both.plan.gradients if name.startswith("features")] == ["features.10.weight"]


def test_parameters_thawed_later_begin_their_velocity_then(machine: Any) -> None:
    """With dampening the first step differs from the others, and each parameter has its own first."""
    both = Both(machine, dampening=0.5)
    both.both(lambda model, _: model.freeze("features"))
    both.step(0)
    both.both(lambda model, _: [setattr(p, "requires_grad", True) for p in model.parameters()])
    both.step(1)
    both.step(2)


def test_momentum_switched_on_between_steps(machine: Any) -> None:
    both = Both(machine, momentum=0.0)
    both.step(0)
    both.both(lambda _, optimizer: optimizer.param_groups[0].update(momentum=0.9))
    both.step(1)
    both.step(2)


def test_weights_and_optimizer_loaded_between_steps(machine: Any) -> None:
    both = Both(machine)
    both.step(0)
    new = build().astype("float32").state_dict()
    both.both(lambda model, _: model.load_state_dict({name: 0.5 * array for name, array in new.items()}))
    machine.move(both.model)
    double = both.optimizers[1].state_dict()
    both.optimizers[0].load_state_dict(double)
    both.step(1)
    both.step(2)


def test_eager_steps_in_between(machine: Any) -> None:
    """The plan's model and optimizer are the caller's own, with nothing hidden in the plan."""
    both = Both(machine)
    both.step(0)
    for parameter in both.model.parameters():
        parameter.data *= np.float32(0.5)
    for parameter in both.double.parameters():
        parameter.data *= 0.5
    both.step(1)


def dropouts(model: Any) -> list[Dropout]:
    return [layer for _, layer in model.leaves() if isinstance(layer, Dropout)]


def test_a_step_is_repeated_to_the_bit_with_the_same_calls(machine: Any) -> None:
    """The masks are those of the layers' seed and calls, as on every backend; and other ones the next time."""
    model = machine.move(build())
    optimizer = anp.SGD(model.named_parameters(), lr=0.0)
    step = compile_training(model, optimizer, N, SIZE)
    x, target = batch(0)
    losses = [float(machine.fetch(step(machine.place(x), target))) for _ in range(3)]
    assert len(set(losses)) == 3, "the masks are the same in every step"
    assert [layer.calls for layer in dropouts(model)] == [3, 3]
    for calls in (1, 0, 2, 2**32):
        for layer in dropouts(model):
            layer.calls = calls
        assert float(machine.fetch(step(machine.place(x), target))) == losses[calls % 2**32]


def test_dropout_of_probability_nought_and_one(machine: Any) -> None:
    both = Both(machine)
    both.both(lambda model, _: [setattr(layer, "p", float(i)) for i, layer in enumerate(dropouts(model))])
    both.step(0)
    both.step(1)


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
            for layer in dropouts(model):
                layer.calls = 0
            losses.add(float(machine.fetch(step(images, t))))
    assert len(losses) == 1


def test_logits_of_the_last_step(machine: Any) -> None:
    model = machine.move(build())
    for layer in dropouts(model):
        layer.p = 0.0
    step = compile_training(model, anp.SGD(model.named_parameters(), lr=0.0), N, SIZE)
    x, target = batch(0)
    step(machine.place(x), target)
    expected = build("torchvision", "float64").eval()(x.astype(float))
    assert np.abs(machine.fetch(step.logits) - expected).max() <= CLOSE * np.abs(expected).max()


def test_two_runs_have_the_same_bits(machine: Any) -> None:
    runs = []
    for _ in range(2):
        model = machine.move(build("paper"))
        step = compile_training(model, anp.SGD(model.named_parameters(), **OPTIONS), N, SIZE)
        for seed in range(3):
            x, target = batch(seed)
            step(machine.place(x), target)
        runs.append([machine.fetch(p.data) for p in model.parameters()])
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


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
    with pytest.raises(anp.BackendError, match="no training plan on the CPU yet; move the model"):
        compile_training(model, optimizer, N, SIZE)
    machine.move(model)
    for arguments, options, message in [
        ((optimizer, 0), {}, "batch_size must be a positive int, got 0"),
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


def test_layers_that_no_preset_has(machine: Any) -> None:
    """tanh, the logistic function, a lone ReLU, and LRN and average pooling where presets have none: every gradient."""
    features = [
        *(L.Conv2d(3, 6, 3), L.Tanh(), L.LocalResponseNorm(3, alpha=0.5)),
        *(L.MaxPool2d(3, 2, padding=1, ceil_mode=True), L.ReLU()),
        *(L.Conv2d(6, 4, 3, groups=2), L.Sigmoid(), L.AdaptiveAvgPool2d(5)),
    ]
    classifier = [L.Dropout(0.3), L.Linear(16, 8), L.Sigmoid(), L.Linear(8, CLASSES)]
    model = AlexNet("mine", features, L.AdaptiveAvgPool2d(2), classifier, seed=1)
    initialise(model.named_parameters(), 1)
    both = Both(machine, model=model, size=(20, 23))
    for seed in range(2):
        both.step(seed)


def test_a_copy_goes_on_as_the_plan_does(machine: Any) -> None:
    model = machine.move(build())
    step = compile_training(model, anp.SGD(model.named_parameters(), **OPTIONS), N, SIZE)
    x, target = batch(0)
    step(machine.place(x), target)
    again = copy.deepcopy(step)
    assert again.model is not model
    assert again.optimizer.param_groups[0]["params"][0] is next(again.model.parameters())
    assert float(machine.fetch(again(machine.place(x), target))) == float(machine.fetch(step(machine.place(x), target)))


def test_a_plan_prints_its_steps(machine: Any) -> None:
    model = machine.move(build())
    step = compile_training(model, anp.SGD(model.named_parameters(), **OPTIONS), N, SIZE, label_smoothing=0.1)
    lines = repr(step).splitlines()
    head = "Training plan on the GPU for 5 images of 99x99, float32, products strict, label smoothing 0.1"
    assert lines[0] == head
    assert any("classifier.0" in line and "Philox, p = 0.5" in line for line in lines)
    assert "16 for SGD" in lines[-1]
