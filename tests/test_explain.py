"""The arithmetic behind single numbers: against torch in float64, layer by layer, on every backend."""

import math

import numpy as np
import pytest
import torch

import alexnet_np as anp
from alexnet_np import ops
from alexnet_np.device import array_module, to_cpu
from alexnet_np.layers import Identity, MaxPool2d, Sigmoid, Tanh
from alexnet_np.presets import PRESETS
from alexnet_np.study.explain import ROUNDINGS, arithmetic, explain
from alexnet_np.study.torch_net import torch_module
from alexnet_np.study.units import activations, places

WINOGRAD = 2e-5  # relative: what the numba backend's convolutions are allowed instead


def network(preset="paper", **options):
    return anp.alexnet(preset, **{"width": 1 / 16, "seed": 0} | options).eval()


def picture(model, size=97, seed=0):
    return np.random.default_rng(seed).standard_normal((model.in_channels, size, size)).astype(model.dtype)


def by_torch(place, x):
    """The layer's output for x, in float64, by torch's own module."""
    if place.layer.op is ops.softmax:
        return torch.softmax(torch.from_numpy(x), 0).numpy()
    module = torch_module(place.layer).double()
    state = [torch.from_numpy(to_cpu(p.data)).double() for p in place.layer.parameters()]
    module.load_state_dict(dict(zip(module.state_dict(), state, strict=True)))
    with torch.no_grad():
        return module.eval()(torch.from_numpy(x)[None])[0].numpy()


def some_units(shape, count, seed=0):
    """The corners, where the padding is, and `count` more."""
    rng = np.random.default_rng(seed)
    corners = [tuple(0 for _ in shape), tuple(n - 1 for n in shape)]
    return corners + [tuple(int(rng.integers(n)) for n in shape) for _ in range(count)]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_layer_beside_torch(preset, backend):
    """The value is torch's in float64 for the same input, and the network's own within float32's rounding."""
    model = network(preset).to(backend)
    x = picture(model)
    values = {name: to_cpu(value) for name, value in activations(model, model_array(model, x)).items()}
    for name, place in places(model, x.shape).items():
        given = values[place.source]
        truth = by_torch(place, given.astype(np.float64))
        winograd = backend == "numba" and place.layer.op is ops.conv2d
        for index in some_units(place.shape, 6):
            made = arithmetic(place, given, index)
            assert made.value == pytest.approx(truth[index], rel=1e-12, abs=1e-12 * made.size), (name, index)
            allowed = (WINOGRAD if winograd else ROUNDINGS * 2.0**-24) * made.size
            assert abs(made.value - values[name][index]) <= allowed, (name, index)
        found = explain(model, model_array(model, x), name, index)
        assert found.value == made.value
        assert found.stored == values[name][index]
        assert (found.source, found.type) == (place.source, type(place.layer).__name__)
        assert found.rounding == ROUNDINGS * 2.0**-24 * made.size


def model_array(model, x):
    first = next(model.parameters()).data
    return array_module(first).asarray(x, first.dtype)


def test_the_terms_of_a_convolution_are_its_inputs_and_weights():
    """Group by group, by size, without the padding."""
    model = network("paper", dtype="float64")
    x = picture(model)
    given = activations(model, x)["features.3"]
    weight = model.features[4].weight.data
    F, CG, KH, KW = weight.shape
    found = explain(model, x, "features.4", (F - 1, 0, 5))  # the second group, at the top edge
    assert all(term.value == term.x * term.weight for term in found.terms)
    assert all(term.x == given[term.at] for term in found.terms)
    for term in found.terms:
        c, i, j = term.at
        assert term.weight == weight[F - 1, c - CG, i + 2, j - 5 + 2]  # stride 1, padding 2
    assert len({term.at for term in found.terms}) == len(found.terms) == CG * (KH - 2) * KW
    assert found.padding == CG * 2 * KW
    sizes = [abs(term.value) for term in found.terms]
    assert sizes == sorted(sizes, reverse=True)
    assert found.steps["sum of products"] + found.bias == found.value
    assert found.size == pytest.approx(sum(sizes) + abs(found.bias))


def test_pooling_shows_the_nine_and_the_first_of_equals_wins():
    model = network("torchvision")
    x = picture(model, 99)
    given = activations(model, x)["features.1"]
    y, winners = torch.nn.functional.max_pool2d(torch.from_numpy(given), 3, 2, return_indices=True)
    for index in some_units(y.shape, 20):
        found = explain(model, x, "features.2", index)
        c, i, j = index
        assert len(found.terms) == 9
        assert found.winner == (c, *divmod(int(winners[index]), given.shape[2]))
        assert {term.at for term in found.terms} == {(c, 2 * i + a, 2 * j + b) for a in range(3) for b in range(3)}


def test_padding_of_a_pooling_and_NaN():
    model = network("torchvision")
    model.features.layers[2] = MaxPool2d(3, 2, padding=1)
    x = picture(model, 99)
    x[0, 0, 0] = np.nan
    found = explain(model, x, "features.2", (0, 0, 0))
    assert (len(found.terms), found.padding) == (4, 5)
    assert math.isnan(found.value)
    assert math.isnan(found.stored)


def test_the_neighbours_of_a_normalisation():
    model = network("paper")
    x = picture(model)
    given = activations(model, x)["features.1"].astype(np.float64)
    found = explain(model, x, "features.2", (1, 4, 5))
    seen = range(min(4, len(given) // 2))  # 1 - 2 ... 1 + 2, cut off at 0 and where the tower ends
    assert {term.at for term in found.terms} == {(c, 4, 5) for c in seen}
    squares = sum(given[c, 4, 5] ** 2 for c in seen)
    assert found.steps["sum of squares"] == pytest.approx(squares)
    assert found.steps["base"] == pytest.approx(2 + 1e-4 * squares)
    assert found.value == pytest.approx(given[1, 4, 5] / (2 + 1e-4 * squares) ** 0.75)


def test_the_neighbours_of_a_normalisation_within_a_map():
    model = network("krizhevsky145")
    x = picture(model)
    given = activations(model, x)["features.6"].astype(np.float64)
    found = explain(model, x, "features.7", (1, 0, 2))
    squares = (given[1, :3, :5] ** 2).sum()
    assert len(found.terms) == 15  # rows 0 ... 2 of 5, columns 0 ... 4
    assert found.value == pytest.approx(given[1, 0, 2] / (1 + 1e-3 / 25 * squares) ** 0.75)


def test_softmax_has_its_denominator():
    model = network("d2l")
    x = picture(model)
    logits = model(x[None])[0].astype(np.float64)
    found = explain(model, x, "softmax", 3)
    exponentials = np.exp(logits - logits.max())
    assert found.steps["denominator"] == pytest.approx(exponentials.sum())
    assert found.value == pytest.approx(exponentials[3] / exponentials.sum())
    assert len(found.terms) == 10


@pytest.mark.parametrize(
    ("layer", "function"), [(Tanh, math.tanh), (Sigmoid, lambda x: 1 / (1 + math.exp(-x))), (Identity, float)]
)
def test_layers_put_in_the_place_of_others(layer, function):
    model = network("d2l")
    model.features.layers[1] = layer()
    x = picture(model)
    found = explain(model, x, "features.1", (2, 3, 4))
    (term,) = found.terms
    assert term.at == (2, 3, 4)
    assert found.value == function(term.x)
    assert found.difference <= found.rounding


def test_dropout_does_nothing_though_the_model_trains():
    model = network("torchvision").train()
    x = picture(model)
    calls = model.classifier[0].calls
    found = explain(model, x, "classifier.0", 7)
    assert found.value == found.stored == found.terms[0].x
    assert model.training
    assert model.classifier[0].calls == calls
    assert not model.classifier[0].hooked


def test_flattening_only_numbers_anew():
    model = network("torchvision")
    found = explain(model, picture(model), "flatten", 6 * 36 + 2 * 6 + 5)
    assert [term.at for term in found.terms] == [(6, 2, 5)]
    assert found.source == "avgpool"


@pytest.mark.parametrize(
    ("layer", "index", "message"),
    [
        ("features.33", (0, 0, 0), "no layer is called 'features.33': did you mean features.3"),
        ("features.3", (0, 0, 99), "outside its shape 12x11x11"),
        ("logits", 3, "no layer is called 'logits'"),
    ],
)
def test_what_is_wrong_is_said(layer, index, message):
    model = network("torchvision")
    with pytest.raises(anp.ArgumentError, match=message):
        explain(model, picture(model), layer, index)


def test_several_pictures_are_refused():
    model = network("torchvision")
    with pytest.raises(anp.ShapeError, match=r"one image at a time: .* got shape \(2, 3, 97, 97\)"):
        explain(model, np.zeros((2, 3, 97, 97), "float32"), "features.0", (0, 0, 0))
