"""One record a preset: what follows from it, beside what was published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import alexnet_np as anp
from alexnet_np.data.augment import IMAGENET_COLOUR, RandomCrop
from alexnet_np.data.labels import FASHION_MNIST
from alexnet_np.errors import ArgumentError, WeightsError
from alexnet_np.identification import judge
from alexnet_np.identity import labels_of
from alexnet_np.layers import LocalResponseNorm, MaxPool2d
from alexnet_np.networks import Layers, Width, paper
from alexnet_np.presets import PRESETS, describe, preset_of_weights, published
from alexnet_np.weights import memory, registry

# The weights of every layer but the last, as FACTS and the papers have them.
SHAPES = {
    "torchvision": [(64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)],
    "paper": [(96, 3, 11, 11), (256, 48, 5, 5), (384, 256, 3, 3), (384, 192, 3, 3), (256, 192, 3, 3)],
    "d2l": [(96, 1, 11, 11), (256, 96, 5, 5), (384, 256, 3, 3), (384, 384, 3, 3), (256, 384, 3, 3)],
}
SHAPES["lenet5"] = [(6, 1, 5, 5), (16, 6, 5, 5)]
HIDDEN = {"torchvision": [(4096, 9216), (4096, 4096)], "d2l": [(4096, 6400), (4096, 4096)]}
HIDDEN |= {"paper": HIDDEN["torchvision"], "lenet5": [(120, 400), (84, 120)]}
TWO_TOWERS = ("paper", "krizhevsky145", "bvlc", "caffenet", "onnx")  # one network by their shapes
SAME_NAMES = ("paper", "bvlc", "caffenet", "onnx")  # and of these by their parameters' names too
for _preset in TWO_TOWERS[1:]:
    SHAPES[_preset], HIDDEN[_preset] = SHAPES["paper"], HIDDEN["paper"]


@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_follow_from_the_layer_list(preset: str) -> None:
    known = PRESETS[preset]
    assert known.weight_shapes == [*SHAPES[preset], *HIDDEN[preset], (known.classes, HIDDEN[preset][-1][0])]
    assert PRESETS[preset].weight_shapes is not known.weight_shapes  # a list of the caller's own


def possible(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """The presets that weights of these shapes may be of, and their sizes."""
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    return {name: tuple(sizes) for name, sizes in judge(memory.contents_of(arrays)).possible.items()}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_known_by_their_shapes(preset: str) -> None:
    model, expected = anp.alexnet(preset, num_classes=10), SAME_NAMES if preset in SAME_NAMES else (preset,)
    shapes = {f"x.{name}": parameter.shape for name, parameter in reversed(list(model.named_parameters()))}
    (bias, weight), units = list(shapes)[:2], HIDDEN[preset][-1][0]
    for classes in (10, 1000, 4096):
        last = {weight: (classes, units), bias: (classes,)}
        assert possible(shapes | last) == dict.fromkeys(expected, (classes, model.in_channels, 1))
    for name, shape in shapes.items():
        if len(shape) > 1:
            assert not possible(shapes | {name: (3, 3)})
    assert not possible({"a": (2, 3), "b": (3,)})


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("width", [1.0, 0.25])
def test_sizes_of_a_file(preset: str, width: float) -> None:
    model = anp.alexnet(preset, width=width, num_classes=7, in_channels=2, seed=0)
    found = possible({f"y.{name}": parameter.shape for name, parameter in model.named_parameters()})
    assert set(found) == (set(SAME_NAMES) if preset in SAME_NAMES else {preset})
    assert set(found.values()) == {(7, 2, width)}
    assert describe(preset, *found[preset]).preprocessing is None  # nobody knows what two channels are


def test_every_published_file_belongs_to_one_preset() -> None:
    claimed = [name for known in PRESETS.values() for name in known.weights]
    assert sorted(claimed) == sorted(registry.ENTRIES)
    assert preset_of_weights("DEFAULT") == preset_of_weights("IMAGENET1K_V1") == "torchvision"
    assert preset_of_weights("FASHION_MNIST_V1") == "d2l"
    with pytest.raises(WeightsError, match="no published weights are called 'x': choose one of IMAGENET1K_V1"):
        preset_of_weights("x")
    assert [p for p in PRESETS if published(p)] == ["torchvision"]  # FASHION_MNIST_V1 is narrow


def test_labels() -> None:
    assert labels_of(anp.alexnet("d2l", width=1 / 32)) == FASHION_MNIST
    assert labels_of(anp.alexnet("paper", width=1 / 32)) == list(anp.categories)
    assert labels_of(anp.alexnet("d2l", width=1 / 32, num_classes=3)) == ["class 0", "class 1", "class 2"]
    for preset in PRESETS.values():
        assert len(preset.labels()) == preset.classes


def test_what_the_lists_say_of_pooling_and_normalisation() -> None:
    lrn = PRESETS["paper"].lrn
    assert lrn is not None
    constants = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0, "convention": "paper"}
    assert lrn.arguments() == constants | {"region": "across", "groups": 2}
    assert PRESETS["torchvision"].lrn is None
    assert [name for name, known in PRESETS.items() if known.ceil_pooling] == [*TWO_TOWERS[1:]]


# parameters and multiply-accumulates, from the tables of the sources that each record names
COUNTS = {
    "torchvision": (61_100_840, 714_188_480),
    "paper": (60_965_224, 724_406_816),
    "krizhevsky145": (60_965_224, 724_406_816),
    "bvlc": (60_965_224, 724_406_816),
    "caffenet": (60_965_224, 724_406_816),
    "onnx": (60_965_224, 654_560_384),
    "d2l": (46_764_746, 938_146_176),
    "lenet5": (61_706, 416_520),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_and_macs(preset: str) -> None:
    model = anp.alexnet(preset, seed=0)
    assert sum(p.data.size for p in model.parameters()) == COUNTS[preset][0]
    assert model.macs((1, *PRESETS[preset].preprocessing.shape)) == COUNTS[preset][1]


# What each kind of layer gives, (F,H,W) or features: the layers of FACTS in their order.
ORDERS = {
    "krizhevsky145": "Conv2d LocalResponseNorm MaxPool2d ReLU Conv2d ReLU LocalResponseNorm LocalResponseNorm "
    "MaxPool2d",
    "bvlc": "Conv2d ReLU LocalResponseNorm MaxPool2d Conv2d ReLU LocalResponseNorm MaxPool2d Conv2d",
    "caffenet": "Conv2d ReLU MaxPool2d LocalResponseNorm Conv2d ReLU MaxPool2d LocalResponseNorm Conv2d",
    "onnx": "Conv2d ReLU LocalResponseNorm MaxPool2d Conv2d ReLU LocalResponseNorm MaxPool2d Conv2d",
}
POOLED = dict.fromkeys(ORDERS, (55, 27, 27, 13)) | {"onnx": (54, 26, 26, 12)}


@pytest.mark.parametrize("preset", ORDERS)
def test_the_order_and_the_sizes_of_the_first_layers(preset: str) -> None:
    model, shape, pooled = anp.alexnet(preset, width=1 / 16, seed=0), (1, *PRESETS[preset].preprocessing.shape), []
    assert [type(layer).__name__ for layer in model.features][:9] == ORDERS[preset].split()[:9]
    for layer in model.features:
        before, shape = shape, layer.output_shape(shape)
        if isinstance(layer, MaxPool2d):
            pooled += [before[2], shape[2]]
    assert tuple(pooled[:4]) == POOLED[preset]
    assert shape[2:] == (6, 6)


def test_caffes_input_is_warped_bgr() -> None:
    picture = Image.new("RGB", (300, 200), (10, 20, 30))
    x = anp.preprocess(picture, preset="bvlc")
    assert x.shape == (3, 227, 227)
    np.testing.assert_allclose(x[:, 5, 5], [30 - 104.00699, 20 - 116.66877, 10 - 122.67891], rtol=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_recipe_gives_the_input_the_network_takes(preset: str) -> None:
    model = anp.alexnet(preset, width=1 / 32, seed=0)
    x = anp.preprocess(Image.new("RGB", (300, 260), (200, 100, 50)), preset=preset)
    assert x.shape == PRESETS[preset].preprocessing.shape
    assert model(x[None]).shape == (1, PRESETS[preset].classes)
    assert PRESETS[preset].sources


def test_an_unknown_preset_names_the_choices() -> None:
    for call in (lambda: anp.alexnet("vgg"), lambda: anp.preprocess(Image.new("RGB", (9, 9)), preset="vgg")):
        with pytest.raises(ArgumentError, match="unknown preset 'vgg': choose one of torchvision, paper, "):
            call()


def test_colour_noise_follows_the_channels_order() -> None:
    """A network that takes BGR sees the very shift, backwards."""
    rgb = PRESETS["paper"].preprocessing._replace(crop=8, mean=(0, 0, 0))
    pixels, u = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8), np.full(7, 0.3)
    found = []
    for recipe in (rgb, rgb._replace(mode="BGR")):
        out = np.empty(recipe.shape, np.float32)
        RandomCrop(recipe, colour=IMAGENET_COLOUR)(pixels, u, out)
        found.append(out)
    np.testing.assert_array_equal(found[1], found[0][::-1])


def caffes_dialect(C: int, classes: int, w: Width) -> Layers:
    """The paper's list with Caffe's normalisation and counting, as `bvlc` has them."""
    features, avgpool, classifier = paper(C, classes, w)
    for i, layer in enumerate(features):
        if isinstance(layer, LocalResponseNorm):
            features[i] = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0, convention="caffe")
        if isinstance(layer, MaxPool2d):
            features[i] = MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
    return features, avgpool, classifier


def test_a_list_and_a_record_are_all_that_a_further_network_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    mean = (104.00699, 116.66877, 122.67891)  # of BGR: caffe's ilsvrc_2012_mean.npy
    recipe = PRESETS["paper"].preprocessing._replace(mode="BGR", crop=227, mean=mean, warp=True)
    added = replace(PRESETS["paper"], network=caffes_dialect, preprocessing=recipe)
    monkeypatch.setitem(PRESETS, "caffe's", added)
    assert added.ceil_pooling and added.lrn is not None and added.lrn.convention == "caffe"
    assert added.weight_shapes == PRESETS["paper"].weight_shapes
    x = anp.preprocess(Image.new("RGB", (300, 100), (255, 128, 0)), preset="caffe's")
    assert x.shape == (3, 227, 227)
    np.testing.assert_allclose(x[:, 5, 7], [0 - mean[0], 128 - mean[1], 255 - mean[2]], rtol=1e-6)
    model = anp.alexnet("caffe's", width=1 / 32, seed=0)
    assert model(x[None]).shape == (1, 1000)
    with pytest.raises(ArgumentError, match="choose one of torchvision, .*, lenet5, caffe's"):
        anp.alexnet("vgg")
