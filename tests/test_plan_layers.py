"""Plans of networks that nobody published: layers of every kind in every order, beside the model in float64.

On the CPU, and with the GPU's kernels under the shim. Outputs are asked for by name, at random, too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from cuda_shim.machines import machine_called

import alexnet_np as anp
from alexnet_np import layers as L
from alexnet_np.kernels.gemm_numba import WIDTH
from alexnet_np.models import AlexNet
from alexnet_np.plan import layout
from alexnet_np.plan.cpu_steps import Dense

CLOSE = 1e-4  # of the largest value of an output, which Winograd's may be off by
CLASSES = 5
SEEDS = {"cpu": range(60), "shim": range(60, 85), "slow": range(100, 500)}

Shape = tuple[int, ...]
Rng = np.random.Generator

NORMS = [
    {"size": 5, "alpha": 1e-4, "k": 2.0, "convention": "paper"},
    {"size": 5, "alpha": 1.0},
    {"size": 4, "alpha": 0.7},
    {"size": 4, "alpha": 0.7, "convention": "onnx"},
    {"size": 3, "alpha": 0.5, "beta": 0.6},
    {"size": 40, "alpha": 1.0, "convention": "krizhevsky"},
    {"size": 5, "alpha": 1.0, "region": "within"},
    {"size": 4, "alpha": 0.7, "beta": 0.6, "region": "within"},
]
CONVOLUTIONS = [(1, 1, 0), (2, 2, 0), (3, 1, 1), (3, 2, 0), (5, 1, 2), (11, 4, 2), (3, 1, ((0, 2), (3, 1)))]
POOLINGS = [(3, 2, 0), (2, 2, 0), (3, 2, 1), (3, 1, 1), ((3, 2), (1, 3), (1, 0))]
ANYWHERE = [L.ReLU, L.ReLU, L.Tanh, L.Sigmoid, L.Dropout, L.Identity]


def pick(rng: Rng, choices: Sequence[Any]) -> Any:
    return choices[rng.integers(len(choices))]


def convolution(rng: Rng, C: int) -> L.Layer:
    groups = pick(rng, [g for g in (1, 1, 1, 2, 3) if C % g == 0])
    F = groups * pick(rng, [1, 3, 8, 16, 24])
    kernel, stride, padding = pick(rng, CONVOLUTIONS)
    dilation = pick(rng, [1, 1, 1, 2])
    return L.Conv2d(C, F, kernel, stride, padding, dilation, groups, bias=pick(rng, [True, False]))


def pooling(rng: Rng, C: int) -> L.Layer:
    return L.MaxPool2d(*pick(rng, POOLINGS), dilation=pick(rng, [1, 1, 1, 2]), ceil_mode=pick(rng, [True, False]))


def averaging(rng: Rng, C: int) -> L.Layer:
    if pick(rng, [True, False]):
        return L.AdaptiveAvgPool2d(pick(rng, [1, 3, (4, 6), (None, 2)]))
    rule = {"count_include_pad": pick(rng, [True, False]), "divisor_override": pick(rng, [None, None, 5])}
    return L.AvgPool2d(*pick(rng, POOLINGS), ceil_mode=pick(rng, [True, False]), **rule)


def normalising(rng: Rng, C: int) -> L.Layer:
    return L.LocalResponseNorm(**pick(rng, NORMS))


def anywhere(rng: Rng, C: int) -> L.Layer:
    return pick(rng, ANYWHERE)()


def network(rng: Rng) -> tuple[AlexNet, tuple[int, int]]:
    """One that begins with a convolution and ends in a dense layer, and a size of image that it takes."""
    size = (int(rng.integers(11, 31)), int(rng.integers(11, 31)))
    shape: Shape = (pick(rng, [1, 2, 3, 6, 18]), *size)
    features: list[L.Layer] = []
    kinds = [convolution, convolution, pooling, averaging, normalising, anywhere, anywhere, anywhere]
    for kind in (convolution, *(pick(rng, kinds) for _ in range(rng.integers(9)))):
        layer = kind(rng, shape[0])
        try:
            leaving = layer.output_shape((1, *shape))[1:]
        except anp.ShapeError:  # nothing would be left
            if features:
                continue
            layer = L.Conv2d(shape[0], 4, 1)
            leaving = (4, *size)
        features.append(layer)
        shape = leaving
    average = pick(rng, [L.Identity(), L.AdaptiveAvgPool2d(2)])
    width = int(np.prod(average.output_shape((1, *shape))[1:]))
    classifier: list[L.Layer] = []
    for units in rng.choice([0, 0, 7, 40], rng.integers(6)):
        classifier.append(L.Linear(width, int(units), bias=pick(rng, [True, False])) if units else anywhere(rng, width))
        width = int(units) or width
    return named(features, average, [*classifier, L.Linear(width, CLASSES)]), size


def outputs_of(model: AlexNet, rng: Rng) -> list[str]:
    names = ["logits", *(name for name, _ in model.leaves())]
    return [names[i] for i in rng.permutation(len(names))[: rng.integers(1, 6)]]


def named(features: list[L.Layer], average: L.Layer, classifier: list[L.Layer]) -> AlexNet:
    """The network, its weights such that values neither vanish nor grow."""
    model = AlexNet("mine", features, average, classifier, seed=0).eval()
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        values = rng.standard_normal(parameter.shape) * (1.4 / np.sqrt(parameter.fan_in))
        parameter.data = values.astype(np.float32)
    return model


def everything(model: AlexNet, x: np.ndarray) -> dict[str, np.ndarray]:
    """What leaves each layer, by the array operations in float64."""
    double, found = copy.deepcopy(model).astype("float64"), {}
    for name, layer in double.leaves():
        layer.register_forward_hook(lambda _, before, y, name=name: found.__setitem__(name, y))
    with np.errstate(all="ignore"):
        found["logits"] = double(x.astype(np.float64))
    return found


def check(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], plan: Any) -> None:
    for name, array in found.items():
        assert array.shape == expected[name].shape
        assert array.dtype == np.float32
        error = np.abs(array - expected[name]).max() / max(np.abs(expected[name]).max(), 1e-6)
        assert error < CLOSE, f"{name} is off by {error:.1e} in\n{plan!r}"


def images(N: int, C: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(N).standard_normal((N, C, *size), dtype=np.float32)


def check_on_the_cpu(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, size = network(rng)
    outputs = outputs_of(model, rng)
    plain = anp.compile(model, max_batch=3, size=size, exact=pick(rng, [True, False]))
    several = anp.compile(model, max_batch=3, outputs=outputs, size=size)
    for N in (3, 1):
        x = images(N, model.in_channels, size)
        expected = everything(model, x)
        check({"logits": plain(x)}, expected, plain)
        found = several(x)
        assert list(found) == outputs
        check(found, expected, several)


def check_on_the_gpu(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, size = network(rng)
    outputs = outputs_of(model, rng)
    x = images(2, model.in_channels, size)
    expected = everything(model, x)
    with machine_called("shim") as machine:
        plan = anp.compile(machine.move(model), max_batch=2, outputs=outputs, size=size)
        for _ in range(2):  # launch by launch, then as a graph
            found = plan(machine.place(x))
            assert list(found) == outputs
            check({name: machine.fetch(array) for name, array in found.items()}, expected, plan)


@pytest.mark.parametrize("seed", SEEDS["cpu"])
def test_any_network_on_the_cpu(seed: int) -> None:
    check_on_the_cpu(seed)


@pytest.mark.parametrize("seed", SEEDS["shim"])
def test_any_network_on_the_gpu(seed: int) -> None:
    check_on_the_gpu(seed)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_on_the_cpu, check_on_the_gpu])
def test_many_networks(check: Callable[[int], None]) -> None:
    for seed in SEEDS["slow"]:
        check(seed)


ORDERS = {
    "krizhevsky145's": lambda: [L.LocalResponseNorm(5), L.MaxPool2d(3, 2), L.ReLU()],
    "CaffeNet's": lambda: [L.ReLU(), L.MaxPool2d(3, 2, ceil_mode=True), L.LocalResponseNorm(5, convention="caffe")],
    "LeNet's": lambda: [L.Sigmoid(), L.AvgPool2d(2, ceil_mode=True)],
    "averages": lambda: [L.AvgPool2d(3, 2, 1, count_include_pad=False), L.Tanh(), L.AdaptiveAvgPool2d(7)],
}


@pytest.mark.parametrize("order", ORDERS)
def test_orders_of_the_published_networks(order: str) -> None:
    middle = ORDERS[order]()
    features = [L.Conv2d(3, 24, 11, stride=4, padding=2), *middle, L.Conv2d(24, 24, 5, padding=2), *ORDERS[order]()]
    model = named(features, L.AdaptiveAvgPool2d(2), [L.Dropout(), L.Linear(96, 20), L.Tanh(), L.Linear(20, CLASSES)])
    plan = anp.compile(model, max_batch=2, size=99)
    x = images(2, 3, (99, 99))
    check({"logits": plan(x)}, everything(model, x), plan)


def test_a_convolution_with_a_stride_that_comes_later_is_not_folded() -> None:
    features = [L.Conv2d(3, 16, 3), L.Conv2d(16, 16, 11, stride=4, padding=5)]
    model = named(features, L.AdaptiveAvgPool2d(2), [L.Linear(64, CLASSES)])
    plan = anp.compile(model, max_batch=2, size=40)
    assert "depth" not in repr(plan)
    x = images(2, 3, (40, 40))
    check({"logits": plan(x)}, everything(model, x), plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": [L.Conv2d(3, 4, 3), L.Layer()]}, r"no plan for features.1 \(Layer\(\)\); call the model itself"),
        ({"features": [L.Conv2d(3, 4, 3), L.Linear(18, 2)]}, "no plan for features.1 .* on images; put Flatten"),
        ({"features": [L.Conv2d(3, 4, 3), L.Flatten(2)]}, "no plan for features.1 .*: only whole images are flattened"),
    ],
)
def test_what_no_plan_can_place_is_named(change: dict, message: str) -> None:
    model = named(change["features"], L.AdaptiveAvgPool2d(1), [L.Linear(4, CLASSES)])
    with pytest.raises(anp.ArgumentError, match=message):
        anp.compile(model, max_batch=1, size=20)


def test_outputs_are_the_layers_own_and_nothing_after_the_last_is_computed() -> None:
    model = anp.alexnet(width=0.1, num_classes=10, seed=0).eval()
    plan = anp.compile(model, max_batch=2, outputs=("classifier.5", "features"))
    x = images(2, 3, (224, 224))
    found, expected = plan(x), everything(model, x)
    check(found, expected | {"features": expected["features.12"]}, plan)
    assert "classifier.6" not in repr(plan)
    assert list(anp.compile(model, outputs="avgpool", max_batch=1)(x[:1])) == ["avgpool"]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (("classifier.7",), "no layer is called 'classifier.7'; outputs are 'logits' or layers: features.0, "),
        ((), "outputs is empty"),
        ((3,), "outputs must be a str, got 3"),
    ],
)
def test_wrong_outputs_are_named(outputs: Any, message: str) -> None:
    with pytest.raises(anp.ArgumentError, match=message):
        anp.compile(anp.alexnet(width=0.05, seed=0), outputs=outputs)


def test_the_walk_takes_in_a_relu_unless_what_lies_before_it_is_wanted() -> None:
    model = anp.alexnet(width=0.05, seed=0)
    fused = {place.name for place in layout.walk(model, (224, 224)) if place.relu}
    assert fused == {
        "features.0",
        "features.3",
        "features.6",
        "features.8",
        "features.10",
        "classifier.1",
        "classifier.4",
    }
    places = {place.name: place for place in layout.walk(model, (224, 224), ("features.0", "classifier.5"))}
    assert not places["features.0"].relu
    assert places["features.0"].wanted == ("features.0",)
    assert places["classifier.4"].wanted == ("classifier.5",)
    assert "classifier.6" not in places


def test_a_plan_that_forgets_drops_the_models_weights_as_they_are_packed():
    models = [anp.alexnet("torchvision", width=1 / 16, num_classes=10, seed=0).eval() for _ in range(2)]
    kept, forgetful = (
        anp.compile(model, 2, forget=forget) for model, forget in zip(models, (False, True), strict=True)
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 224, 224), dtype=np.float32)
    np.testing.assert_array_equal(kept(x), forgetful(x))
    for p, whole in zip(models[1].parameters(), models[0].parameters(), strict=True):
        assert p.shape == whole.shape and max(p.data.strides) == 0
    for act in (forgetful.refresh, lambda: copy.copy(forgetful)):
        with pytest.raises(anp.ArgumentError, match="its model's weights are dropped; compile without forget"):
            act()


@pytest.mark.parametrize("rows", [64, 288, 300])  # two panels; nine, which are more than one piece; none whole
@pytest.mark.parametrize("dense", ["float32", "int16"])
def test_dense_weights_are_packed_where_they_lie(rows, dense):
    models = [anp.alexnet("lenet5", seed=0).eval() for _ in range(2)]
    for model in models:
        model.classifier[0] = anp.layers.Linear(model.classifier[0].weight.shape[1], rows, seed=1)
        model.classifier[2] = anp.layers.Linear(rows, 84, seed=2)
    own = models[1].classifier[0].weight.data
    kept, forgetful = (
        anp.compile(m, 2, forget=forget, dense=dense) for m, forget in zip(models, (False, True), strict=True)
    )
    x = np.random.default_rng(0).standard_normal((2, 1, 28, 28), dtype=np.float32)
    np.testing.assert_array_equal(kept(x), forgetful(x))
    packed = forgetful._program.of(Dense)[0].weights
    assert np.shares_memory(packed, own) == (dense == "float32" and rows % WIDTH == 0)


def test_plans_that_run_at_once_share_the_cache():
    model = anp.alexnet("torchvision", width=1 / 4, num_classes=10, seed=0).eval()
    alone, half = (anp.compile(model, 64, at_once=n) for n in (1, 2))
    assert all(a > b for a, b in zip(alone._program.passes, half._program.passes, strict=True) if a > 1 and a < 64)
    assert alone._program.passes != half._program.passes
    x = np.random.default_rng(0).standard_normal((5, 3, 224, 224), dtype=np.float32)
    np.testing.assert_allclose(alone(x), half(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(anp.ArgumentError, match="at_once"):
        anp.compile(model, at_once=0)
