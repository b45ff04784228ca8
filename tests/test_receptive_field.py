"""What units see, against the gradients of a network of ones: a pixel is seen if and only if its gradient is not 0."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import alexnet_np as anp
from alexnet_np import ops
from alexnet_np.layers import Conv2d, MaxPool2d
from alexnet_np.presets import PRESETS
from alexnet_np.study.receptive_field import receptive_field, receptive_fields
from alexnet_np.study.units import places

CASES = [(preset, size) for preset in PRESETS for size in ((28, 23, 34) if preset == "lenet5" else (224, 180, 97))]


def ones(layer):
    """The layer as a sum of all that it looks at, of one map, by torch; None for a function of each unit by itself."""
    F = torch.nn.functional
    arguments = layer.arguments()
    match layer.op:
        case ops.conv2d:
            KH, KW = layer.weight.shape[2:]
            given = arguments["stride"], arguments["dilation"]
            stride, dilation = (value if isinstance(value, tuple) else (value, value) for value in given)
            top, bottom, left, right = ops.conv2d.find_padding(arguments["padding"], (KH, KW), stride, dilation)
            kernel = torch.ones(1, 1, KH, KW)
            pad = (left, right, top, bottom)
            return lambda x: F.conv2d(F.pad(x, pad), kernel, stride=stride, dilation=dilation)
        case ops.max_pool2d:
            keep = {name: arguments[name] for name in ("kernel_size", "stride", "padding", "ceil_mode")}
            assert arguments["dilation"] == 1
            return lambda x: F.avg_pool2d(x, **keep)
        case ops.avg_pool2d:
            return lambda x: F.avg_pool2d(x, **arguments)
        case ops.adaptive_avg_pool2d:
            return lambda x: F.adaptive_avg_pool2d(x, arguments["output_size"])
        case ops.local_response_norm if arguments.get("region") == "within":
            window = ops.local_response_norm.find_geometry(**arguments)
            around = (window.low, window.high) * 2
            return lambda x: F.avg_pool2d(F.pad(x, around), window.low + 1 + window.high, 1)
        case ops.linear:
            return lambda x: x.sum(1, keepdim=True)
        case ops.flatten:
            return lambda x: x.flatten(1)
    return None


def boxes(gradients):
    """(top, bottom, left, right) of what is not 0 in each of (N,H,W)."""
    found = []
    for gradient in gradients.numpy():
        rows, columns = np.nonzero(gradient.any(1))[0], np.nonzero(gradient.any(0))[0]
        found.append((rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    return found


def wrong_units(model, size, every):
    """How many units of a map, in all layers, and how many of them were given another field than their gradient's.

    The diagonal of each map has all its rows and all its columns; with `every`, the rest of it too.
    """
    fields = receptive_fields(model, (size, size))
    wrong = units = 0
    functions = []
    for name, place in places(model, (model.in_channels, size, size)).items():
        function = ones(place.layer)
        if function is None:
            assert fields[name][1:] == fields[place.source][1:]
            continue
        functions.append(function)
        _, H, W = place.shape if len(place.shape) == 3 else (1, 1, 1)
        asked = [(i, j) for i in range(H) for j in range(W) if every or i == j]
        for part in (asked[start : start + 128] for start in range(0, len(asked), 128)):
            x = y = torch.ones(len(part), 1, size, size, requires_grad=True)
            for function in functions:
                y = function(y)
            y = y.reshape(len(part), -1)[torch.arange(len(part)), [i * W + j for i, j in part]]
            y.sum().backward()
            indices = [(0, *at) if len(place.shape) == 3 else (0,) for at in part]
            for index, box in zip(indices, boxes(x.grad[:, 0]), strict=True):
                units += 1
                wrong += tuple(fields[name].of(index)) != box
    return units, wrong


@pytest.mark.parametrize(("preset", "size"), CASES)
def test_none_is_wrong_in_any_row_or_column(preset, size):
    units, wrong = wrong_units(anp.alexnet(preset, width=1 / 64, seed=0), size, every=False)
    assert units > 50
    assert wrong == 0


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "size"), CASES)
def test_none_of_all_units_is_wrong(preset, size):
    units, wrong = wrong_units(anp.alexnet(preset, width=1 / 64, seed=0), size, every=True)
    assert units > 500
    assert wrong == 0


@pytest.mark.parametrize("pixels", [(20, 30), (31, 17)])
def test_dilation_strides_beyond_the_kernel_and_uneven_padding(pixels):
    """Windows with holes, windows that leave pixels out, and some that lie in the padding altogether."""
    conv = Conv2d(1, 1, kernel_size=2, stride=3, padding=((4, 0), (1, 2)), dilation=2)
    layers = {"conv": conv, "pool": MaxPool2d(3, 2, padding=1, ceil_mode=True)}
    model = SimpleNamespace(in_channels=1, leaves=layers.items)
    fields = receptive_fields(model, pixels)
    x = y = torch.ones(1, 1, *pixels, requires_grad=True)
    empty = 0
    for name, place in list(places(model, (1, *pixels)).items())[:2]:
        y = ones(place.layer)(y)
        assert y.shape[1:] == place.shape
        for i, j in np.ndindex(*place.shape[1:]):
            (gradient,) = torch.autograd.grad(y[0, 0, i, j], x, retain_graph=True)
            seen = fields[name].of((0, i, j))
            if gradient.any():
                assert tuple(seen) == boxes(gradient[0])[0]
            else:
                assert 0 in seen.size
                empty += 1
    assert empty > 0


@pytest.fixture(scope="module")
def model():
    return anp.alexnet("torchvision", width=1 / 64, seed=0)


def test_by_the_published_sizes(model):
    """In the middle of the picture they are those of the closed form."""
    assert receptive_field(model, "features.0", (0, 20, 30), 224) == (78, 89, 118, 129)
    assert receptive_field(model, "features.3", (0, 13, 13), 224).size == (51, 51)
    assert receptive_field(model, "features.10", (0, 6, 6), 224).size == (163, 163)


def test_a_flattened_unit_sees_what_it_saw_in_its_map(model):
    C, H, W = places(model, (3, 224, 224))["avgpool"].shape
    for c, i, j in (0, 0, 0), (C - 1, 2, 5), (1, 5, 3):
        seen = receptive_field(model, "avgpool", (c, i, j), 224)
        assert receptive_field(model, "flatten", (c * H + i) * W + j, 224) == seen
        assert receptive_field(model, "classifier.0", (c * H + i) * W + j, 224) == seen


def test_a_dense_unit_sees_what_all_before_it_see():
    """d2l's last pooling leaves the last five rows and columns out."""
    model = anp.alexnet("d2l", width=1 / 64, seed=0)
    assert receptive_field(model, "classifier.6", 3, 224) == (0, 219, 0, 219)
    assert receptive_field(model, "softmax", 9, 224) == (0, 219, 0, 219)


def test_a_picture_that_is_not_square(model):
    assert receptive_field(model, "features.0", (0, 0, 40), (97, 180)) == (0, 9, 158, 169)


@pytest.mark.parametrize(
    ("layer", "index", "size", "message"),
    [
        ("feature.3", (0, 0, 0), 224, "no layer is called 'feature.3': did you mean features.3"),
        ("nonsense!", (0, 0, 0), 224, "did you mean features.0, features.1"),
        ("features.3", (0, 27, 0), 224, "features.3: map,row,column 0,27,0 is outside its shape 3x27x27"),
        ("features.3", (0, -1, 0), 224, "outside"),
        ("features.3", 5, 224, "features.3 has the shape 3x27x27: an index is map,row,column, got 1 numbers"),
        ("classifier.6", (1, 2, 3), 224, "classifier.6 has the shape 1000: an index is unit, got 3 numbers"),
        ("classifier.6", 1000, 224, "outside"),
        ("classifier.6", 1.5, 224, "whole numbers"),
        ("features.3", (0, 0, 0), 20, "larger than the input"),
        ("features.3", (0, 0, 0), "large", "size"),
    ],
)
def test_what_is_wrong_is_said(model, layer, index, size, message):
    with pytest.raises(anp.AlexNetError, match=message):
        anp.study.receptive_field(model, layer, index, size)
