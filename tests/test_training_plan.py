"""Training plans on the CPU and on the GPU, that one under the shim, and unchanged where there is a GPU.

Loss, gradients, parameters and velocities of several steps against the array operations in float64, and what may change
between steps. What only one of them has: test_cpu_training_plan.py, test_cuda_training_plan.py.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda_shim import machines
from cuda_shim.training import CLASSES, OPTIONS, SIZE, Both, N, batch, build

import alexnet_np as anp
from alexnet_np import layers as L
from alexnet_np.initialisation import initialise
from alexnet_np.layers import Dropout
from alexnet_np.models import AlexNet
from alexnet_np.plan import compile_training


@pytest.fixture(params=["cpu", *machines.PARAMETERS])
def machine(request: pytest.FixtureRequest) -> Iterator:
    with machines.machine_called(request.param) as found:
        yield found


@pytest.mark.parametrize("preset", ["torchvision", "paper", "d2l"])
def test_steps_agree_with_float64(machine: Any, preset: str) -> None:
    """With dropout at work, new in each step, and a schedule of lr."""
    both = Both(machine, preset, label_smoothing=0.1, dampening=0.2)
    for seed in range(4):
        both.step(seed)
        both.both(lambda _, optimizer: optimizer.param_groups[0].update(lr=optimizer.param_groups[0]["lr"] / 2))


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


def test_logits_of_the_last_step(machine: Any) -> None:
    model = machine.move(build())
    for layer in dropouts(model):
        layer.p = 0.0
    step = compile_training(model, anp.SGD(model.named_parameters(), lr=0.0), N, SIZE)
    x, target = batch(0)
    step(machine.place(x), target)
    expected = build("torchvision", "float64").eval()(x.astype(float))
    assert np.abs(machine.fetch(step.logits) - expected).max() <= machine.bound * np.abs(expected).max()


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


def test_layers_that_no_preset_has(machine: Any) -> None:
    """tanh, the logistic function, a lone ReLU, and LRN and average pooling where presets have none: every gradient."""
    features = [
        *(
            L.Conv2d(3, 6, 3),
            L.Tanh(),
            L.LocalResponseNorm(3, alpha=0.5),
            L.LocalResponseNorm(4, alpha=0.9, region="within"),
        ),
        *(L.MaxPool2d(3, 2, padding=1, ceil_mode=True), L.ReLU()),
        *(L.Conv2d(6, 4, 3, groups=2), L.Sigmoid(), L.AvgPool2d(3, 2, 1), L.AdaptiveAvgPool2d(3)),
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
