"""Attribution beside Captum in float64, on every preset; and what Captum does not say, by other means."""

import threading
import warnings

import captum.attr
import numpy as np
import pytest
import torch
from small_networks import narrow, random_input, relative

import alexnet_np as anp
from alexnet_np import random
from alexnet_np.presets import PRESETS
from alexnet_np.study.attribution import METHODS, ZeroMapWarning, attribution, methods
from alexnet_np.study.receptive_field import receptive_fields, unit_centres
from alexnet_np.study.torch_net import TorchNet
from alexnet_np.study.units import activations, places

CLOSE, CLOSE_OCCLUSION = 1e-10, 1e-6  # of the largest number; Captum counts windows in float32
UNITS = {"a class": None, "a map's unit": (3, 2), "a hidden dense unit": (1,)}
MANY_PASSES = ("occlusion", "smooth_grad", "integrated_gradients")
SIZE = (83, 97)


def last_relu_before_pool(model):
    """LeNet has a sigmoid there, and its pooling takes the mean."""
    leaves = list(model.leaves())
    kinds = [type(layer).__name__ for _, layer in leaves]
    pool = max(i for i, kind in enumerate(kinds) if kind in ("MaxPool2d", "AvgPool2d"))
    return leaves[max(i for i in range(pool) if kinds[i] in ("ReLU", "Sigmoid"))][0]


def peer(model, last=None):
    """The layers up to and with `last` as torch's modules."""
    modules = TorchNet(model, "float64").modules
    names = list(modules)
    return torch.nn.Sequential(*(modules[name] for name in names[: names.index(last or names[-1]) + 1])), modules


def by_captum(model, x, method, layer, at, monkeypatch):
    """Captum's answer for unit `at` of `layer`; its noise is ours."""
    net, modules = peer(model, layer)
    given = torch.tensor(x, requires_grad=True)
    target = [at] * len(x) if len(at) > 1 else [at[0]] * len(x)
    match method:
        case "saliency":
            made = captum.attr.Saliency(net).attribute(given, target)
        case "guided_backprop":
            made = captum.attr.GuidedBackprop(net).attribute(given, target)
        case "deconvnet":
            made = captum.attr.Deconvolution(net).attribute(given, target)
        case "integrated_gradients":
            monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # it rounds the rule's weights to float32
            torch.set_default_dtype(torch.float64)
            try:
                made = captum.attr.IntegratedGradients(net).attribute(given, 0.0, target, n_steps=50)
            finally:
                torch.set_default_dtype(torch.float32)
        case "occlusion":
            shape = (x.shape[1], 15, 15), (x.shape[1], 8, 8)
            made = captum.attr.Occlusion(net).attribute(given, *shape, 0.0, target, perturbations_per_eval=16)
        case "grad_cam":
            module = modules[last_relu_before_pool(model)]
            made = captum.attr.LayerGradCam(net, module).attribute(given, target, relu_attributions=True)
        case "smooth_grad":
            noise = [
                torch.tensor(0.15 * (one.max() - one.min()) * random.generator(0, n).standard_normal((50, *one.shape)))
                for n, one in enumerate(x)
            ]
            monkeypatch.setattr(torch, "normal", lambda mean, deviation: torch.cat(noise))
            tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(net))
            made = tunnel.attribute(given, nt_type="smoothgrad", nt_samples=50, stdevs=1.0, target=target, abs=False)
    return made.detach().numpy()


def check_beside_captum(model, x, method, layer, at, monkeypatch):
    names = [name for name, _ in model.leaves()]
    target = at[0] if layer == names[-1] else (layer, at)
    settings = {"placed": "units"} if method == "grad_cam" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum's on hooks, ours on maps of zeros
        ours = attribution(model, x, target, method, **settings)
        theirs = by_captum(model, x, method, layer, at, monkeypatch)
    assert ours.shape == theirs.shape and ours.dtype == np.float64
    assert np.abs(theirs).max() > 0
    close = CLOSE_OCCLUSION if method == "occlusion" else CLOSE
    assert np.abs(ours - theirs).max() <= close * np.abs(theirs).max()


def telling(model, x):
    """A class whose Grad-CAM is not 0, as it is for about every other one in a random network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZeroMapWarning)
        return next(c for c in range(model.num_classes) if attribution(model, x, c, "grad_cam").any())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_class_beside_captum(preset, method, monkeypatch):
    model = narrow(preset, width=1 / 8, dtype="float64")
    x = random_input(model, 1 if method in ("occlusion", "smooth_grad") else 2, *SIZE)
    *_, (last, _) = model.leaves()
    check_beside_captum(model, x, method, last, (telling(model, x),), monkeypatch)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "grad_cam"])
@pytest.mark.parametrize("preset", ["torchvision", "paper"])
def test_a_unit_of_a_map_beside_captum(preset, method, monkeypatch):
    model = narrow(preset, dtype="float64")
    layer = "features.8" if preset == "torchvision" else "features.10"
    check_beside_captum(model, random_input(model, 1, *SIZE), method, layer, (3, 2, 4), monkeypatch)


@pytest.mark.parametrize("method", METHODS)
def test_a_unit_of_a_hidden_dense_layer_beside_captum(method, monkeypatch):
    model = narrow(dtype="float64")
    at = (int(np.argmax(activations(model.eval(), random_input(model, 1, *SIZE))["classifier.4"])),)
    check_beside_captum(model, random_input(model, 1, *SIZE), method, "classifier.4", at, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_whole_network_beside_captum(preset, method, monkeypatch):
    model = anp.alexnet(preset, seed=0, dtype="float64")
    x = random_input(model, 1, PRESETS[preset].preprocessing.crop if method not in MANY_PASSES else 97)
    *_, (last, _) = model.leaves()
    check_beside_captum(model, x, method, last, (3,), monkeypatch)


@pytest.mark.parametrize("method", METHODS)
def test_on_every_backend(method, backend):
    """float32 on the backend beside float64 by the array operations."""
    exact, x = narrow(dtype="float64"), random_input(narrow(), 1, 67)
    model = narrow().to(backend)
    expected = attribution(exact, x.astype(np.float64), 3, method)
    found = attribution(model, anp.device.beside(x, next(model.parameters()).data), 3, method)
    assert found.dtype == np.float32
    assert relative(anp.device.to_cpu(found), expected) < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_images_together_are_images_by_themselves(method):
    model = narrow(dtype="float64")
    x = random_input(model, 3, 67)
    settings = (
        {"stride": 15} if method == "occlusion" else {"samples": 3, "noise": 0.0} if method == "smooth_grad" else {}
    )
    together = attribution(model, x, [3, 1, 2], method, **settings)
    alone = [attribution(model, one, target, method, **settings) for one, target in zip(x, (3, 1, 2), strict=True)]
    assert np.allclose(together, alone, rtol=1e-9, atol=1e-12 * np.abs(together).max())


def test_the_model_stays_as_it_was():
    """Its mode, gradients, and what its forward has kept; hooks are called, with what they put in the place of y."""
    model = narrow(dtype="float64").train()
    for layer in model.modules():
        layer.p = 0.0  # so that a forward in training is one in testing
    x = random_input(model, 2, 67)
    dlogits = np.ones_like(model(x))
    expected = model.backward(dlogits, retain_graph=True)
    kept = {name: p.grad.copy() for name, p in model.named_parameters()}
    for method in METHODS:
        attribution(model, x, 3, method)
    assert model.training and all(layer.training for layer in model.modules())
    assert all(np.array_equal(p.grad, kept[name]) for name, p in model.named_parameters())
    model.zero_grad()
    assert np.array_equal(model.backward(dlogits), expected)
    assert all(np.array_equal(p.grad, kept[name]) for name, p in model.named_parameters())
    assert all(p.requires_grad for p in model.parameters())
    plain = attribution(model, x, 3, "occlusion")
    with model.features[1].register_forward_hook(lambda layer, x, y: y**2):
        assert not np.allclose(attribution(model, x, 3, "occlusion"), plain, rtol=0.1, atol=0)


def test_threads_at_once():
    model = narrow()
    x = random_input(model, 4, 67)
    expected = [attribution(model, x, n, "guided_backprop") for n in range(4)]
    found = [None] * 4

    def work(n):
        for _ in range(5):
            found[n] = attribution(model, x, n, "guided_backprop")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_without_a_target_it_is_the_most_probable_class():
    model = narrow(dtype="float64").eval()
    x = random_input(model, 3, 67)
    classes = model(x).argmax(1)
    assert np.array_equal(attribution(model, x), attribution(model, x, classes, "saliency"))


def test_integrated_gradients_sum_up_to_what_the_image_changes():
    model = narrow(dtype="float64").eval()
    x = random_input(model, 1, 67)
    change = (model(x) - model(np.full_like(x, 0.5)))[0, 3]
    made = attribution(model, x, 3, "integrated_gradients", steps=300, baseline=0.5)
    assert made.sum() == pytest.approx(change, rel=1e-2)


def test_occlusion_one_window_at_a_time():
    """By a loop that knows nothing of batches: f(x) - f(occluded), clipped at the edge, averaged where they overlap."""
    model = narrow(dtype="float64").eval()
    x = random_input(model, 1, 67, 70)
    total, count = np.zeros((67, 70)), np.zeros((67, 70))
    for top in range(0, 67 - 20 + 11, 12):
        for left in range(0, 70 - 20 + 11, 12):
            occluded = x.copy()
            occluded[:, :, top : top + 20, left : left + 20] = 0.25
            total[top : top + 20, left : left + 20] += (model(x) - model(occluded))[0, 3]
            count[top : top + 20, left : left + 20] += 1
    made = attribution(model, x, 3, "occlusion", window=20, stride=12, baseline=0.25)
    assert count.min() > 0
    assert np.allclose(made, np.broadcast_to(total / count, made.shape), rtol=1e-9, atol=1e-16)


def test_noise_is_the_same_whatever_the_batch(monkeypatch):
    model, x = narrow(dtype="float64"), random_input(narrow(dtype="float64"), 1, 67)
    expected = attribution(model, x, 3, "smooth_grad", samples=9)
    monkeypatch.setattr(methods, "BATCH", 4)
    assert np.allclose(attribution(model, x, 3, "smooth_grad", samples=9), expected, rtol=1e-9)
    assert not np.allclose(attribution(model, x, 3, "smooth_grad", samples=9, seed=1), expected, rtol=1e-3)


def test_no_more_than_a_batch_at_a_time(monkeypatch):
    """Memory is that of BATCH images, however many are given or needed; `tick` counts all of them."""
    model, x = narrow(dtype="float64"), random_input(narrow(dtype="float64"), 3, 67)
    monkeypatch.setattr(methods, "BATCH", 2)
    seen = []
    model.features[0].register_forward_pre_hook(lambda layer, x: seen.append(len(x)))
    for method, kind in METHODS.items():
        seen.clear()
        ticks = []
        attribution(model, x, 3, method, tick=ticks.append)
        assert max(seen) <= 2
        assert sum(ticks) == 3 * kind().passes(x.shape[1:]) == sum(seen)


# Where Grad-CAM's numbers lie


@pytest.mark.parametrize("preset", PRESETS)
def test_centres_are_the_middles_of_whole_fields(preset):
    """Of units whose fields the edge does not clip; the rest go on as far apart."""
    model = narrow(preset)
    side = PRESETS[preset].preprocessing.crop
    every, name = places(model, (model.in_channels, side, side)), last_relu_before_pool(model)
    rows, columns = unit_centres(every, name)
    spans = receptive_fields(model, (side, side))[name].rows
    whole = max(bottom - top for top, bottom in spans)
    middles = [(i, (top + bottom - 1) / 2) for i, (top, bottom) in enumerate(spans) if bottom - top == whole]
    assert len(middles) >= 3
    assert all(rows[i] == middle for i, middle in middles)
    assert np.array_equal(rows, columns)
    assert np.allclose(np.diff(rows), 2 if preset == "lenet5" else 16)


def test_grad_cam_is_placed_by_the_centres_of_its_units():
    model = narrow(dtype="float64")
    x = random_input(model, 1, 224)
    units = attribution(model, x, 3, "grad_cam", placed="units")
    placed = attribution(model, x, 3, "grad_cam")
    at = np.arange(15, 208, 16)
    assert units.shape == (1, 1, 13, 13) and placed.shape == (1, 1, 224, 224)
    assert np.allclose(placed[0, 0][np.ix_(at, at)], units[0, 0], rtol=1e-12)
    assert np.allclose(placed[0, 0, 23, 15], units[0, 0, :2, 0].mean())  # halfway between two
    assert np.allclose(placed[0, 0, :15, 15], units[0, 0, 0, 0])  # beyond the outermost


def test_grad_cam_stretched_as_cv2_does():
    cv2 = pytest.importorskip("cv2")
    model = narrow(dtype="float64")
    x = random_input(model, 1, *SIZE)
    units = attribution(model, x, 3, "grad_cam", placed="units")
    stretched = attribution(model, x, 3, "grad_cam", placed="cv2")
    expected = cv2.resize(units[0, 0], SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.allclose(stretched[0, 0], expected, rtol=1e-6, atol=1e-9 * expected.max())
    theirs = torch.nn.functional.interpolate(torch.tensor(units), SIZE, mode="bilinear", align_corners=False)
    assert np.allclose(stretched, theirs.numpy(), rtol=1e-12)


def test_grad_cam_of_another_layer_and_of_units_before_the_last_pooling():
    model = narrow(dtype="float64")
    x = random_input(model, 1, 97)
    shapes = {name: place.shape for name, place in places(model, x.shape[1:]).items()}
    made = attribution(model, x, 3, "grad_cam", layer="features.6", placed="units")
    assert made.shape[2:] == shapes["features.6"][1:]
    made = attribution(model, x, ("features.8", (0, 2, 2)), "grad_cam", placed="units")
    assert made.shape[2:] == shapes["features.4"][1:]  # the last ReLU before the last pooling before it
    with pytest.raises(anp.ArgumentError, match="grad_cam: features.11 is no layer of maps before features.8"):
        attribution(model, x, ("features.8", (0, 2, 2)), "grad_cam", layer="features.11")
    with pytest.raises(anp.ArgumentError, match="no ReLU and pooling lie before features.1; name the layer"):
        attribution(model, x, ("features.1", (0, 2, 2)), "grad_cam")


# Traps


def test_unpooling_adds_up_where_windows_share_their_winner():
    """3/2 windows overlap: a pixel that wins four of them gets the gradients of all four."""
    model = narrow(dtype="float64")
    pool = model.features[2]
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 2, 2] = 1.0
    assert pool(x).shape == (1, 1, 2, 2)
    assert pool.backward(np.ones((1, 1, 2, 2)))[0, 0, 2, 2] == 4


def test_guided_backprop_may_be_negative_at_the_input_and_nowhere_between():
    model = narrow(dtype="float64")
    x = random_input(model, 1, 97)
    seen = []
    model.features[1].register_full_backward_hook(lambda layer, dx, dy: seen.append(dx.min()))
    for method in ("guided_backprop", "deconvnet"):
        assert attribution(model, x, 3, method).min() < 0
    assert min(seen) == 0


def test_a_map_of_zeros_is_said_to_be_one():
    model = narrow(dtype="float64")
    x = random_input(model, 2, 97)
    model.features[10].bias.data[:] = -1e9  # nothing passes the last ReLU of the maps
    with pytest.warns(ZeroMapWarning, match=r"saliency: the map of image [01] is 0 everywhere: no pixel counts for"):
        attribution(model, x, 3, "saliency")
    with pytest.warns(ZeroMapWarning, match=r"for features.11\[0,1,1\] here"):
        attribution(model, x[0], ("features.11", (0, 1, 1)), "integrated_gradients")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribution(model, x, 3, "deconvnet")  # whose mask is dropped


def test_an_input_without_a_batch_axis():
    model = narrow(dtype="float64")
    x = random_input(model, 1, 67)
    for method in ("saliency", "grad_cam"):
        assert np.array_equal(attribution(model, x[0], 3, method), attribution(model, x, 3, method)[0])


@pytest.mark.parametrize("name", ["Grad-CAM", "gradcam", "GRAD_CAM", "grad cam"])
def test_a_method_however_it_is_written(name):
    model = narrow(dtype="float64")
    x = random_input(model, 1, 67)
    assert np.array_equal(attribution(model, x, 3, name), attribution(model, x, 3, "grad_cam"))


@pytest.mark.parametrize(
    ("target", "method", "settings", "message"),
    [
        (3, "salience", {}, "unknown method 'salience': did you mean saliency?"),
        (3, "x", {}, "unknown method 'x': choose one of saliency, guided_backprop, deconvnet, grad_cam, "),
        (3, None, {}, "unknown method None"),
        (3, "saliency", {"window": 3}, "saliency has no setting 'window'; it takes none"),
        (3, "occlusion", {"windows": 3}, "'windows'; it takes window, stride, baseline"),
        (3, "occlusion", {"window": 0}, "occlusion: window must be at least 1"),
        (3, "occlusion", {"window": 4, "stride": 5}, "leaves out pixels"),
        (3, "occlusion", {"window": 68}, "a window of 68 is larger than the 67x67 image"),
        (3, "smooth_grad", {"samples": 0}, "samples must be at least 1"),
        (3, "smooth_grad", {"noise": -1}, "noise must be a number of at least 0"),
        (3, "integrated_gradients", {"steps": 1.5}, "steps must be an int"),
        (3, "grad_cam", {"placed": "middle"}, "unknown placed 'middle': choose one of centres, cv2, units"),
        (3, "grad_cam", {"layer": "feature.11"}, "did you mean features.11"),
        (1000, "saliency", {}, "classifier.6: unit 1000 is outside its shape 1000"),
        (-1, "saliency", {}, "outside"),
        ("cat", "saliency", {}, "whole numbers"),
        ([1, 2], "saliency", {}, "2 classes for 1 images"),
        (("feature.3", (0, 0, 0)), "saliency", {}, "no layer is called 'feature.3': did you mean features.3"),
        (("features.3", (0, 99, 0)), "saliency", {}, "outside its shape"),
        (("features.3",), "saliency", {}, r"a unit is \(layer, index\)"),
    ],
)
def test_what_is_wrong_is_said(target, method, settings, message):
    model = narrow()
    with pytest.raises(anp.AlexNetError, match=message):
        attribution(model, random_input(model, 1, 67), target, method, **settings)


def test_an_input_that_the_model_does_not_take():
    model = narrow()
    with pytest.raises(anp.ShapeError, match="too small"):
        attribution(model, np.zeros((3, 20, 20), np.float32), 3, "saliency")
    with pytest.raises(anp.DtypeError):
        attribution(model, np.zeros((3, 67, 67), np.uint8), 3, "saliency")
    with pytest.raises(anp.ArgumentError, match="model must be a network"):
        attribution(None, np.zeros((3, 67, 67)), 3, "saliency")
