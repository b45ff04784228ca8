"""The training plan on the CPU, beside what test_training_plan.py says of both devices: every preset, batches of
several sizes, memory, what is refused, what is printed."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from cuda_shim.machines import Cpu
from cuda_shim.training import CLASSES, OPTIONS, SIZE, Both, N, batch, build

import alexnet_np as anp
from alexnet_np import layers as L
from alexnet_np.backend import use_backend
from alexnet_np.data.preprocess import normalise
from alexnet_np.initialisation import initialise
from alexnet_np.kernels.conv2d_winograd_gradients_numba import Adjoint
from alexnet_np.models import AlexNet
from alexnet_np.ops.local_response_norm import CONVENTIONS, ODD_ONLY
from alexnet_np.plan import compile_training
from alexnet_np.plan.cpu_training import TrainingPlan
from alexnet_np.presets import PRESETS


def eager_step(model: AlexNet, optimizer: Any, x: np.ndarray, target: np.ndarray) -> float:
    with use_backend("numba"):
        optimizer.zero_grad()
        loss, cache = anp.ops.cross_entropy.forward(model(x), target)
        model.backward(anp.ops.cross_entropy.backward(1.0, cache), input_grad=False)
        optimizer.step()
    return float(loss)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_as_layer_by_layer(preset: str) -> None:
    """At width 1/8 on the same kernels in float32, so that in pooling the same units win."""
    models = [anp.alexnet(preset, width=1 / 8, num_classes=CLASSES, seed=2).train() for _ in range(2)]
    optimizers = [anp.SGD(model.named_parameters(), **OPTIONS) for model in models]
    size = 99 if models[0].described().preprocessing.crop > 99 else models[0].described().preprocessing.crop
    plan = compile_training(models[0], optimizers[0], N, size)
    for seed, count in enumerate((N, N - 2, N)):
        x, target = batch(seed, models[0].in_channels, (size, size), count)
        loss, expected = plan(x, target), eager_step(models[1], optimizers[1], x, target)
        assert abs(loss - expected) <= 1e-5 * abs(expected)
        for (name, p), q in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
            largest = np.abs(q.data).max()
            assert np.abs(p.data - q.data).max() <= 3e-5 * largest, name
            velocities = (optimizer.velocities[name] for optimizer in optimizers)
            one, other = velocities
            assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max(), name


@pytest.mark.parametrize("count", [4, 7, 18])
def test_gradients_do_not_depend_on_who_shares_the_blocks(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that take blocks of images alone, and threads that share each block: the same bits."""
    found = []
    for alone in (True, False):
        monkeypatch.setattr(Adjoint, "_takes_alone", lambda *_, alone=alone: alone)
        model = anp.alexnet(width=1 / 8, num_classes=CLASSES, seed=2).train()
        plan = compile_training(model, anp.SGD(model.named_parameters(), **OPTIONS), count, 99)
        plan(*batch(0, 3, (99, 99), count))
        found.append(plan.gradients)
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_a_batch_may_be_smaller() -> None:
    """With nothing of a larger one before it left over."""
    plans = []
    x, target = batch(1, count=2)
    for first in (N, 2):
        model = build()
        step = compile_training(model, anp.SGD(model.named_parameters(), **{**OPTIONS, "lr": 0.0}), N, SIZE)
        step(*batch(0, count=first))
        plans.append((step, step(x, target), [gradient.copy() for gradient in step.gradients.values()]))
    (one, loss, gradients), (_, other_loss, others) = plans
    assert loss == other_loss and one.logits.shape == (2, CLASSES)
    assert all(np.array_equal(a, b) for a, b in zip(gradients, others, strict=True))


def test_what_other_nets_have() -> None:
    """Convolutions that Winograd cannot compute, gaps in windows, groups too narrow for vectors, dropout of maps."""
    features = [
        *(L.Conv2d(3, 6, 3, stride=(2, 1)), L.ReLU(), L.MaxPool2d(3, 2, dilation=2)),
        *(L.Dropout(0.25), L.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2, bias=False), L.ReLU()),
        *(L.LocalResponseNorm(3, alpha=0.5, groups=2), L.Conv2d(8, 6, 5, groups=2, padding=2), L.ReLU()),
        *(L.LocalResponseNorm(3, alpha=0.5, region="within"), L.Conv2d(6, 40, 3), L.AdaptiveAvgPool2d(3)),
    ]
    classifier = [L.Linear(360, 96), L.ReLU(), L.Dropout(0.3), L.Linear(96, 33), L.Tanh(), L.Linear(33, CLASSES)]
    model = AlexNet("mine", features, L.AdaptiveAvgPool2d(3), classifier, seed=1)
    initialise(model.named_parameters(), 1)
    both = Both(Cpu(), model=model, size=(31, 26))
    for seed in range(2):
        both.step(seed)


@pytest.mark.parametrize(("k", "beta", "C"), [(0.0, 0.75, 6), (0.0, 0.5, 20), (2.0, 0.75, 6)])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_normalising_channels_that_do_not_fill_vectors(convention: str, k: float, beta: float, C: int) -> None:
    """Where k = 0, what fills the vector up is no number by the formula: it stays zero, or the next layer meets it."""
    size = 5 if convention in ODD_ONLY else 4
    norm = L.LocalResponseNorm(size, alpha=0.5, beta=beta, k=k, convention=convention)
    features = [L.Conv2d(3, C, 3, padding=1), norm, L.Conv2d(C, 17, 3), L.ReLU(), L.AdaptiveAvgPool2d(2)]
    model = AlexNet("mine", features, L.AdaptiveAvgPool2d(2), [L.Linear(68, CLASSES)], seed=1)
    initialise(model.named_parameters(), 1)
    model.features[0].bias.data[:] = 4  # far from zero, where with k = 0 rounding grows without bound
    both = Both(Cpu(), model=model, size=(9, 11))
    for seed in range(2):
        both.step(seed)
    [step] = [step for step in both.plan.program.steps if step.name == "features.1"]
    assert all(np.isfinite(buffer.array).all() for buffer in (step.target, step.dx))


@pytest.mark.parametrize("preset", ["torchvision", "bvlc"])
def test_a_step_allocates_nothing_that_counts(preset: str) -> None:
    """Beyond views and numbers, which Python keeps some of for the next step, where its buffers have 12 MB."""
    model = anp.alexnet(preset, width=1 / 8, num_classes=CLASSES, seed=0).train()
    step = compile_training(model, anp.SGD(model.named_parameters(), **OPTIONS), N)
    x, target = batch(0, size=step.request.size)
    step(x, target)
    buffers = [s.target.array for s in step.program.steps]
    tracemalloc.start()
    try:
        step(x, target)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(3):
            step(x, target)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert step.program.nbytes > 10e6 and peak < 1e5
    assert all(a is s.target.array for a, s in zip(buffers, step.program.steps, strict=True))


def test_bytes_are_normalised_to_the_bits_of_preprocess() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (N, *SIZE, 3), np.uint8)
    x = normalise(pixels, PRESETS["torchvision"].preprocessing, np.empty((N, 3, *SIZE), np.float32))
    target, losses = np.array([3, 9, 0, 9, 1], np.uint8), []
    for images in (x, pixels):
        model = build()
        losses.append(compile_training(model, anp.SGD(model.named_parameters(), lr=0.0), N, SIZE)(images, target))
    assert losses[0] == losses[1]


def test_a_frozen_trunk_is_only_run_forward() -> None:
    model = build().freeze("features")
    step = compile_training(model, anp.SGD(model.named_parameters(), **OPTIONS), N, SIZE)
    kept = [p.data.copy() for p in model.features.parameters()]
    step(*batch(0))
    assert all(np.array_equal(a, p.data) for a, p in zip(kept, model.features.parameters(), strict=True))
    assert all(s.dx is None for s in step.program.steps if s.name.startswith("features"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((6, 3, 99, 99), np.float32)}, anp.ShapeError, "is for 1 to 5 images of 99x99, got 6 of 99x99"),
        ({"x": np.zeros((0, 3, 99, 99), np.float32)}, anp.ShapeError, "is for 1 to 5 images of 99x99, got 0 of 99x99"),
        ({"x": np.zeros((5, 3, 99, 98), np.float32)}, anp.ShapeError, "is for 1 to 5 images of 99x99, got 5 of 99x98"),
        ({"x": np.zeros((5, 3, 99, 99))}, anp.DtypeError, "x must be float32 .* got float64"),
        ({"target": np.zeros(5)}, anp.DtypeError, "target must be integers, got float64"),
        ({"target": np.zeros(4, int)}, anp.ShapeError, r"target must be \(5,\), got \(4,\)"),
        ({"target": np.array([0, 10, 1, 2, 3])}, anp.ArgumentError, r"target 10 is out of 0...9"),
    ],
)
def test_wrong_batches_are_named(change: dict, error: type, message: str) -> None:
    model = build()
    step = compile_training(model, anp.SGD(model.named_parameters(), **OPTIONS), N, SIZE)
    x, target = batch(0)
    with pytest.raises(error, match=message) as caught:
        step(**{"x": x, "target": target, **change})
    assert "\n" not in str(caught.value)


def test_wrong_compilations_are_named() -> None:
    model = build()
    optimizer = anp.SGD(model.named_parameters(), **OPTIONS)
    with pytest.raises(anp.ArgumentError, match="precision is for models on the GPU"):
        compile_training(model, optimizer, N, SIZE, precision="tf32")
    weight = model.classifier[6].weight
    kept, weight.data = weight.data, np.ascontiguousarray(weight.data.T).T
    with pytest.raises(anp.DtypeError, match=r"classifier.6.weight must be float32, in C order, writeable, got"):
        compile_training(model, optimizer, N, SIZE)
    weight.data = kept
    with pytest.raises(anp.ArgumentError, match="nothing to train"):
        compile_training(model.freeze(""), optimizer, N, SIZE)


def test_it_prints_its_steps() -> None:
    model = build("paper")
    step = compile_training(model, anp.SGD(model.named_parameters(), **OPTIONS), N, SIZE, label_smoothing=0.1)
    assert isinstance(step, TrainingPlan)
    lines = repr(step).splitlines()
    assert lines[0] == "Training plan on the CPU for up to 5 images of 99x99, float32, label smoothing 0.1"
    assert any("classifier.0" in line and "gemm + bias + relu" in line for line in lines)
    assert "16 parameters" in lines[-1]
