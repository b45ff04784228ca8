"""Two towers beside the grouped network that they are: forward, every gradient, and what crosses between them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from oracles import refused

import alexnet_np as anp
from alexnet_np import layers as L
from alexnet_np.errors import AlexNetError, ArgumentError
from alexnet_np.models import AlexNet

WIDTH, CLASSES, SIDE = 1 / 16, 7, 96
TWO_TOWERS = ("paper", "krizhevsky145")


def pair(preset: str = "krizhevsky145", **options: Any) -> tuple[AlexNet, AlexNet]:
    """The grouped network and the same in two towers."""
    given = {"width": WIDTH, "num_classes": CLASSES, "seed": 1, "dtype": "float64"} | options
    return anp.alexnet(preset, **given), anp.alexnet(preset, **given, towers=2)


def inputs(model: AlexNet, N: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, dy = 60 * rng.standard_normal((N, 3, SIDE, SIDE)), rng.standard_normal((N, model.num_classes))
    return x.astype(model.dtype), dy.astype(model.dtype)


def close(have: Any, want: Any, share: float) -> None:
    np.testing.assert_allclose(have, want, rtol=0, atol=share * np.abs(want).max())


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("backend", "dtype", "share"), [("numpy", "float64", 1e-12), ("numba", "float32", 1e-4)])
@pytest.mark.parametrize("preset", TWO_TOWERS)
def test_forward_and_every_gradient_are_the_grouped_networks(
    preset: str, backend: str, dtype: str, share: float, training: bool
) -> None:
    whole, towers = (model.train(training) for model in pair(preset, backend=backend, dtype=dtype))
    x, dy = inputs(whole)
    for _ in range(2):  # dropout's masks go on alike, gradients add up
        close(towers(x), whole(x), share)
        close(towers.backward(dy), whole.backward(dy), share)
    for (name, have), (same, want) in zip(towers.named_parameters(), whole.named_parameters(), strict=True):
        assert name == same
        close(have.grad, want.grad, share)


def test_what_crosses_is_what_figure_2_draws() -> None:
    model = anp.alexnet("krizhevsky145", towers=2, seed=0).eval()
    assert model.exchanged_bytes == 0
    x = np.zeros((1, 3, 224, 224), np.float32)
    logits = model(x)
    assert model.exchanged_bytes == 58_624 * 4 == 234_496
    model.backward(np.ones_like(logits), input_grad=False)
    assert model.exchanged_bytes == 2 * 234_496  # the same back
    model(x)
    assert model.exchanged_bytes == 234_496


def test_it_counts_by_image_and_by_byte() -> None:
    _, model = pair("paper", dtype="float32")
    maps, units = 16, 256  # of conv 2, and of a dense layer
    for N in (0, 1, 3):
        model(inputs(model, N)[0])
        sides = [shape[-1] for shape in shapes(model)]
        values = maps * sides[0] ** 2 + maps * 6 * 6 + units + units // 2
        assert model.exchanged_bytes == 4 * N * values
    assert pair("paper")[0].exchanged_bytes == 0


def shapes(model: AlexNet) -> list[tuple[int, ...]]:
    """What enters conv 3."""
    return [model.features[:8].output_shape((1, 3, SIDE, SIDE))]


def test_each_tower_has_half_the_filters_and_its_own_maps() -> None:
    """A tower whose weights are all 0 hands on its biases alone; before conv 3 the other one notices nothing."""
    _, model = pair("paper", backend="numpy")
    x, seen = inputs(model)[0], {}
    model.features[7].register_forward_hook(lambda layer, x, y: seen.__setitem__("pool2", y))
    model.eval()(x)
    before = seen["pool2"].copy()
    for layer in (model.features[0], model.features[4]):
        layer.weight.data[len(layer.weight.data) // 2 :] = 0
    model(x)
    np.testing.assert_array_equal(seen["pool2"][:, :8], before[:, :8])
    assert not np.array_equal(seen["pool2"][:, 8:], before[:, 8:])


def test_weights_are_the_grouped_networks_own() -> None:
    whole, towers = pair()
    assert list(whole.state_dict()) == list(towers.state_dict())
    towers.load_state_dict(whole.state_dict())
    x, dy = inputs(whole)
    close(towers.eval()(x), whole.eval()(x), 1e-12)
    close(towers.astype("float32")(x.astype(np.float32)), whole(x), 1e-4)
    again = anp.alexnet("krizhevsky145", weights=towers.state_dict(), width=WIDTH, num_classes=CLASSES, towers=2)
    assert again.towers == 2


@pytest.mark.parametrize("where", ["features.2", "features.4", "features", "classifier.0", "classifier"])
def test_hooks_see_both_towers_and_may_change_them(where: str) -> None:
    found = []
    for model in pair("paper"):
        seen: list[Any] = []
        model.eval()
        part = dict(model.named_modules())[where]
        part.register_forward_pre_hook(lambda layer, x: 0.5 * x)
        part.register_forward_hook(lambda layer, x, y, seen=seen: seen.extend((x, y)) or 2 * y)
        part.register_full_backward_hook(lambda layer, dx, dy, seen=seen: seen.extend((dx, dy)) or 3 * dx)
        x, dy = inputs(model)
        y = model(x)
        found.append([y, model.backward(dy), *seen, *(p.grad for p in model.parameters())])
    for have, want in zip(*found, strict=True):
        assert have.shape == want.shape
        close(have, want, 1e-12)


def test_frozen_parameters_and_no_gradient_of_the_image() -> None:
    found = []
    for model in pair("paper"):
        model.eval().freeze("features")
        x, dy = inputs(model)
        model(x)
        assert model.backward(dy, input_grad=False) is None
        assert all((p.grad is None) == name.startswith("features") for name, p in model.named_parameters())
        found.append([p.grad for p in model.classifier.parameters()])
        model(x)
        model.requires_grad_(False)
        found[-1].append(model.backward(dy))
    for have, want in zip(*found, strict=True):
        close(have, want, 1e-12)


def test_training_goes_as_the_grouped_networks() -> None:
    found = []
    for model in pair("krizhevsky145"):
        optimizer = anp.SGD(model.named_parameters(), lr=0.01, momentum=0.9)
        x, dy = inputs(model)
        for _ in range(3):
            model.zero_grad()
            model(x / 60)
            model.backward(dy, input_grad=False)
            optimizer.step()
        found.append(model.state_dict())
    for name, want in found[0].items():
        close(found[1][name], want, 1e-10)


def test_plans_and_summaries_are_the_grouped_networks() -> None:
    whole, towers = (model.eval() for model in pair("paper", dtype="float32"))
    x, _ = inputs(whole)
    plan = anp.compile(towers, max_batch=2, size=SIDE)
    close(plan(x), whole(x), 1e-4)
    assert str(anp.summary(towers)) == str(anp.summary(whole))
    with refused(ArgumentError, "verify: torch has no towers to compare with; set model.towers = 1"):
        anp.verify(towers, x)


def test_backward_twice_copies_and_pickles() -> None:
    _, model = pair("paper")
    x, dy = inputs(model)
    with refused(AlexNetError, "backward needs a forward first"):
        model.backward(dy)
    want = model.eval()(x)
    first = model.backward(dy, retain_graph=True)
    np.testing.assert_array_equal(model.backward(dy), first)
    with refused(AlexNetError, "a second backward"):
        model.backward(dy)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other(x), want)
        np.testing.assert_array_equal(other.backward(dy), first)
    with anp.no_grad():
        model(x)
    with refused(AlexNetError, "backward needs a forward first"):
        model.backward(dy)


def test_switched_on_and_off_and_a_new_head() -> None:
    whole, model = pair("paper")
    x, dy = inputs(whole)
    model.eval().towers = 1
    close(model(x), whole.eval()(x), 0)
    assert model.exchanged_bytes == 0
    model.towers = 2
    model.replace_head(5, seed=3)
    whole.replace_head(5, seed=3)
    close(model(x), whole(x), 1e-12)
    close(model.backward(dy[:, :5]), whole.backward(dy[:, :5]), 1e-12)


def test_networks_that_have_no_two_towers() -> None:
    for preset in ("torchvision", "d2l", "lenet5"):
        with refused(ArgumentError, "towers=2: no convolution has two groups, so there are no two towers"):
            anp.alexnet(preset, width=1 / 32, towers=2)
    for preset in ("bvlc", "caffenet", "onnx"):
        with refused(ArgumentError, "looks over all maps, across the towers; give it groups=2"):
            anp.alexnet(preset, width=1 / 32, towers=2)
    for wrong in (0, 3, "2", 2.0, True):
        with pytest.raises(ArgumentError, match="towers must be"):
            anp.alexnet("paper", width=1 / 32, towers=wrong)  # type: ignore[arg-type]
    model = anp.alexnet("paper", width=1 / 32, towers=2)
    model.features[1] = Shuffle()
    with refused(ArgumentError, "Shuffle.* is no layer that can be divided"):
        model(np.zeros((1, 3, 224, 224), np.float32))
    model.features[1] = L.ReLU()
    model.features[-1:] = [L.MaxPool2d(3, 2), L.Conv2d(8, 9, 1), L.Conv2d(9, 8, 1)]
    with refused(ArgumentError, "has 9 outputs, which two towers cannot share"):
        model(np.zeros((1, 3, 224, 224), np.float32))


class Shuffle(L.Layer):
    """Somebody's own."""
