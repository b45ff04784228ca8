"""What torch's users do with a model: cut it, rebuild its head, walk over it, hook it, compute with its parameters."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet_np as anp
from alexnet_np import layers
from alexnet_np.layers import Conv2d, Identity, Linear, Parameter, ReLU, Sequential
from alexnet_np.study.verify import import_torchvision


@pytest.fixture
def model():
    return anp.alexnet(width=1 / 16, seed=0).eval()


@pytest.fixture
def x(rng):
    return rng.standard_normal((2, 3, 67, 67), dtype=np.float32)


# Layers built by hand


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Linear(300, 200, seed=0), lambda: torch.nn.Linear(300, 200)),
        (Conv2d(8, 64, (5, 3), groups=2, seed=0), lambda: torch.nn.Conv2d(8, 64, (5, 3), groups=2)),
    ],
    ids=["Linear", "Conv2d"],
)
def test_a_layer_starts_as_torchs_does(ours, theirs):
    """Both draw evenly between the same bounds: the extremes and the spread of many numbers tell."""
    peer = theirs()
    for mine, their in zip(ours.parameters(), peer.parameters(), strict=True):
        assert mine.shape == tuple(their.shape)
        bound = 1 / np.sqrt(ours.weight.fan_in)
        assert abs(their).max().item() <= bound and abs(mine.data).max() <= bound
        if mine.size > 1000:
            assert mine.std() == pytest.approx(their.std().item(), rel=0.05)
            assert abs(mine.data).max() == pytest.approx(abs(their).max().item(), rel=0.01)


def test_seeds_of_layers():
    assert np.array_equal(Linear(4, 3, seed=5).weight, Linear(4, 3, seed=5).weight)
    assert not np.array_equal(Linear(4, 3).weight, Linear(4, 3).weight)


# Cutting and rebuilding


def test_a_new_head_in_place_of_the_last_layer(model, x):
    model.classifier[6] = Linear(256, 10)
    assert (model.num_classes, model(x).shape) == (10, (2, 10))
    assert "classifier.6.weight" in model.state_dict()


def test_the_head_cut_off_gives_the_embedding(model, x):
    embedding = model.classifier[:6](model.flatten(model.avgpool(model.features(x))))
    for cut in (
        lambda m: setattr(m, "classifier", layers.Sequential(*list(m.classifier.children())[:-1])),
        lambda m: setattr(m, "classifier", layers.Sequential(list(m.classifier)[:-1])),
        lambda m: m.classifier.__delitem__(-1),
        lambda m: m.classifier.pop(),
        lambda m: m.classifier.__setitem__(6, Identity()),
    ):
        headless = copy.deepcopy(model)
        cut(headless)
        np.testing.assert_array_equal(headless(x), embedding)
        assert headless.num_classes == 256


def test_whole_parts_are_replaced(model, x):
    features = model.avgpool(model.features(x)).reshape(2, -1)
    model.classifier = Identity()
    np.testing.assert_array_equal(model(x), features)
    with pytest.raises(anp.ArgumentError, match="num_classes is of the last dense layer, .* append a Linear"):
        _ = model.num_classes
    model.classifier = Sequential()
    model.classifier.append(Linear(features.shape[1], 4))
    assert model(x).shape == (2, 4)
    with pytest.raises(anp.ArgumentError, match=r"put layers\.Identity\(\) in its place"):
        del model.classifier


def test_replace_head_needs_a_head_and_says_how_to_get_one(model):
    del model.classifier[6]
    with pytest.raises(anp.ArgumentError, match=r"model\.classifier\.append\(layers\.Linear\(256, 7\)\)"):
        model.replace_head(7)
    model.classifier.append(layers.Linear(256, 7))
    assert model.replace_head(3).num_classes == 3


def test_layers_that_come_in_run_on_the_networks_backend(model):
    model.to("numba")
    model.classifier[6] = Linear(256, 10)
    model.classifier.append(Sequential(ReLU(), Linear(10, 4)))
    model.avgpool = Identity()
    assert {layer.backend for layer in model.modules()} == {"numba"}


def test_a_plan_of_a_changed_network(model, rng):
    model.classifier = Sequential(*list(model.classifier)[:-2], Linear(256, 5))
    x = rng.standard_normal((2, 3, 224, 224), dtype=np.float32)
    np.testing.assert_allclose(anp.compile(model, max_batch=2)(x), model(x), atol=1e-4)


# Walking


def test_modules_and_children_are_torchvisions(model):
    theirs = import_torchvision().models.alexnet()
    assert [name for name, _ in model.named_modules()] == [name for name, _ in theirs.named_modules()]
    assert [name for name, _ in model.named_children()] == [name for name, _ in theirs.named_children()]
    assert [type(m).__name__ for m in model.modules()] == [type(m).__name__ for m in theirs.modules()]
    assert list(model.classifier.children()) == list(model.classifier)
    assert dict(model.named_modules())["features.3"] is model.features[3]


def test_counting_freezing_and_modes(model):
    assert model.num_parameters() == sum(p.data.size for p in model.parameters())
    assert model.features.requires_grad_(False) is model.features
    assert model.num_parameters(only_trainable=True) == model.classifier.num_parameters()
    assert model.classifier.train() is model.classifier
    assert [layer.training for layer in model.children()] == [False, False, True]


# Forward, backward, hooks


def test_forward_is_the_call_without_the_layers_own_hooks(model, x):
    model.register_forward_hook(lambda layer, x, y: y + 1)
    np.testing.assert_array_equal(model(x), model.forward(x) + 1)
    np.testing.assert_array_equal(model.features[0].forward(x), model.features[0](x))


def test_a_pre_hook_sees_the_input_and_can_replace_it(model, x):
    expected, seen = model(2 * x), []
    with model.features[0].register_forward_pre_hook(lambda layer, x: 2 * x):
        np.testing.assert_array_equal(model(x), expected)
    with model.register_forward_pre_hook(lambda layer, x: seen.append(x)):
        model(x)
    assert seen[0] is x


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_second_backward_raises_as_torchs_does(model, x, backend):
    model.to(backend)
    logits = model(x)
    model.backward(logits, retain_graph=True)
    once = model.features[0].weight.grad.copy()
    model.backward(logits)
    np.testing.assert_allclose(model.features[0].weight.grad, 2 * once, rtol=1e-4)
    with pytest.raises(anp.AlexNetError, match=r"^Linear\(.*: a second backward, .*retain_graph=True"):
        model.backward(logits)
    y = torch.nn.Linear(2, 1)(torch.ones(1, 2)).sin().sum()
    y.backward()
    with pytest.raises(RuntimeError, match="a second time.*retain_graph=True"):
        y.backward()


def test_what_is_kept_is_dropped_also_where_backward_stops_early(model, x):
    model.freeze("features")
    model(x)
    assert model.backward(np.ones((2, 1000), "float32"), input_grad=False) is None
    with pytest.raises(anp.AlexNetError, match="a second backward"):
        model.features[0].kept()


# A Parameter is an array


def test_numpys_functions_and_operators_take_a_parameter(rng):
    data = rng.standard_normal((3, 4), dtype=np.float32)
    p = Parameter(data.copy(), 4)
    assert (p.shape, p.size, p.ndim, p.dtype, len(p), p.numel()) == ((3, 4), 12, 2, np.float32, 3, 12)
    assert np.asarray(p) is p.data
    assert np.asarray(p, dtype="float64").dtype == "float64"
    assert np.array(p) is not p.data
    for got, want in [
        (p + 1, data + 1), (1 - p, 1 - data), (data * p, data * data), (p @ p.T, data @ data.T), (-p, -data),
        (abs(p), abs(data)), (np.exp(p), np.exp(data)), (p[1], data[1]), (p.mean(), data.mean()), (p > 0, data > 0),
        (np.stack([p, p]), np.stack([data, data])), (np.add.reduce(p), data.sum(0)), (p == p, data == data),
    ]:  # fmt: skip
        assert type(got) in (np.ndarray, np.float32)
        np.testing.assert_array_equal(got, want)
    assert p in {p} and Parameter(data, 4) not in {p}


def test_writing_into_a_parameter_writes_into_its_array():
    p = Parameter(np.ones((2, 2), np.float32), 2)
    data = p.data
    p -= np.float32(0.5)
    p[0] = 3
    assert p.data is data and isinstance(p, Parameter)
    np.testing.assert_array_equal(data, [[3, 3], [0.5, 0.5]])


def test_a_parameter_is_an_ops_argument_and_is_copied_and_pickled(model):
    weight = model.classifier[6].weight
    y, _ = anp.ops.linear.forward(np.ones((1, 256), np.float32), weight)
    np.testing.assert_allclose(y, weight.sum(1)[None], rtol=1e-4)
    for twin in (copy.deepcopy(weight), pickle.loads(pickle.dumps(weight))):
        np.testing.assert_array_equal(twin, weight)
        assert twin.data is not weight.data and twin.fan_in == weight.fan_in
    other = anp.alexnet(width=1 / 16, weights=dict(model.named_parameters()))
    np.testing.assert_array_equal(other.classifier[6].weight, weight)
    assert torch.from_dlpack(weight).shape == weight.shape
    with pytest.raises(AttributeError):
        _ = weight.no_such_thing


# Pictures


def picture(rng, *shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def test_preprocess_takes_arrays_and_batches(rng, tmp_path):
    pixels = picture(rng, 300, 260, 3)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    one = anp.preprocess(image)
    for same in (pixels, torch.from_numpy(pixels), pixels.transpose(2, 0, 1), np.dstack([pixels, pixels[..., :1]])):
        np.testing.assert_array_equal(anp.preprocess(same), one)
    for batch in ([image, pixels, str(tmp_path / "a.png")], np.stack([pixels] * 3), torch.from_numpy(pixels)[None]):
        got = anp.preprocess(batch)
        assert got.shape == (len(batch), 3, 224, 224)
        assert all(np.array_equal(each, one) for each in got)
    grey = pixels[..., 0]
    np.testing.assert_array_equal(anp.preprocess(grey), anp.preprocess(Image.fromarray(grey)))
    np.testing.assert_array_equal(anp.preprocess(grey[..., None]), anp.preprocess(grey))


def test_unprepared_pictures_are_told_the_one_call_that_prepares_them(model, rng, tmp_path):
    pixels = picture(rng, 80, 70, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    for x in (
        Image.open(path),
        path,
        tmp_path / "a.png",
        [path],
        [Image.open(path)] * 2,
        pixels,
        pixels[None],
        [pixels, pixels],
        torch.from_numpy(pixels)[None],
    ):
        with pytest.raises(anp.DtypeError, match=r"give it anp\.preprocess\(x\)(\[None\])?$") as caught:
            model(x)
        call = str(caught.value).rpartition("give it ")[2]
        assert model(eval(call, {"anp": anp, "x": x})).shape[1] == 1000
    d2l = anp.alexnet("d2l", width=1 / 16)
    with pytest.raises(anp.DtypeError, match=r"give it anp\.preprocess\(x, model=model\)\[None\]$"):
        d2l(path)


# Whatever is printed is one line


def test_reprs_of_one_line(model, x):
    handle = model.register_forward_hook(lambda *_: None)
    conv = anp.ops.conv2d.forward(x, np.ones((4, 3, 3, 3), np.float32))[1]
    for thing, begins in [
        (anp.SGD(model.named_parameters(), lr=0.1, momentum=0.9), "SGD(16 parameters, lr=0.1, momentum=0.9, "),
        (handle, "HookHandle(register_forward_hook)"),
        (anp.use_backend("numpy"), "use_backend('numpy')"),
        (anp.no_grad(), "no_grad()"),
        (model.features[0].weight, "Parameter(4, 3, 11, 11) float32"),
        (conv, "conv2d.Cache(x=float32(2, 3, 67, 67), weight=float32(4, 3, 3, 3), has_bias=False, geometry=Geometry("),
    ]:
        assert repr(thing).startswith(begins) and "\n" not in repr(thing) and len(repr(thing)) < 300


def test_switches_are_decorators_too():
    @anp.no_grad()
    @anp.use_backend("numba")
    def chosen():
        return anp.backend.current_backend(np.ones(1))

    assert chosen() == "numba"
    assert anp.backend.current_backend(np.ones(1)) == "numpy"


def test_the_names_at_the_top():
    assert isinstance(anp.alexnet(width=1 / 32), anp.AlexNet)
    assert callable(anp.walk) and callable(anp.verify) and callable(anp.compile_training)
    assert set(anp.__all__) <= set(dir(anp))


def test_python_m_is_the_command():
    done = subprocess.run([sys.executable, "-m", "alexnet_np", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("alexnet-np ")
