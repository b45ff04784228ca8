"""The explorer's page as a file: what is in it, how arrays are packed, and what the command says to a wrong question.

What it does in a browser is tested in test_explorer_browser.py.
"""

import base64
import gzip
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import fails, run

import alexnet_np as anp
from alexnet_np.data.preprocess import normalise, read_pixels
from alexnet_np.layers import AdaptiveAvgPool2d, Identity, Sigmoid, Tanh
from alexnet_np.presets import PRESETS
from alexnet_np.study.attribution import METHODS
from alexnet_np.study.attribution.overlay import shown
from alexnet_np.study.explorer import SCRIPTS, Subject, asset, render, sha256
from alexnet_np.study.explorer.attributions import QUICK, WORDS, check_methods
from alexnet_np.study.explorer.layers import describe_layers, largest_of_each
from alexnet_np.study.explorer.tensors import Tensors, encode
from alexnet_np.study.units import activations, places

CAT = Path(anp.__file__).parent / "assets" / "cat.jpg"
DOCS = Path(__file__).parent.parent / "docs"
SMALL = ("--weights", "random", "--width", "0.0625")


def unpacked(text, dtype):
    """What the page's script makes of it."""
    dtype = np.dtype(f"<{dtype}")
    shuffled = np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8)
    return shuffled.reshape(dtype.itemsize, -1).T.copy().view(dtype).ravel()


def subject(model, **options):
    recipe = PRESETS[model.preset].preprocessing
    said = {"labels": [], "picture": "a cat", "weights": "random", "random": True, "backend": "numpy"}
    labels = [f"class {i}" for i in range(model.num_classes)]
    return Subject(
        model=model, pixels=read_pixels(str(CAT), recipe), recipe=recipe, **(said | {"labels": labels} | options)
    )


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "u2", "u4"])
def test_arrays_are_packed_to_the_bit(rng, dtype):
    array = rng.integers(0, 256, (7, 5, np.dtype(dtype).itemsize), np.uint8).view(dtype)[..., 0]
    assert np.array_equal(unpacked(encode(array), dtype).view(np.uint8), array.ravel().view(np.uint8))


def test_an_array_that_comes_again_is_kept_once(rng):
    tensors = Tensors()
    a, b = rng.random((3, 4), np.float32), rng.random((3, 4), np.float32)
    assert tensors.add(a) == tensors.add(a.copy()) != tensors.add(b)
    assert [(t.id, t.type) for t in tensors.encoded()] == [("t0", "f4"), ("t1", "f4")]


def parts(page):
    """The page's description of its networks, and its arrays by name."""
    nets = json.loads(re.search(r'<script type="application/json" id="page">(.*?)</script>', page, re.DOTALL)[1])
    arrays = re.findall(r'<script type="text/plain" id="(\w+)" data-type="(\w+)">([^<]*)</script>', page)
    return nets, {name: unpacked(text, dtype) for name, dtype, text in arrays}


def test_the_page_holds_the_network_and_lets_nothing_else_in():
    model = anp.alexnet("paper", width=1 / 16, seed=0).eval()
    page = render([subject(model, picture="</script><b>a cat</b>")])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    script, style = "\n".join(asset(f"{name}.js") for name in SCRIPTS), asset("page.css")
    sources = ["default-src 'none'", f"script-src '{sha256(script)}'", f"style-src '{sha256(style)}'"]
    assert policy.split("; ")[:3] == sources
    assert f"<script>{script}</script>" in page
    assert f"<style>{style}</style>" in page
    assert set(re.findall(r"https?://[^\s'\"`]*", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "<b>a cat" not in page
    (net,), arrays = parts(page)
    assert net["picture"] == "</script><b>a cat</b>"
    assert net["parameters"] == sum(p.data.size for p in model.parameters())
    by_name = {layer["name"]: layer for layer in net["layers"]}
    conv = by_name["features.4"]
    assert np.array_equal(arrays[conv["weight"]].reshape(conv["kernel"]), model.features[4].weight.data)
    labels = "input conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 avgpool "
    labels += "flatten fc6 relu6 drop6 fc7 relu7 drop7 fc8 softmax"
    assert [layer["label"] for layer in net["layers"]] == labels.split()
    assert [layer["same"] for layer in net["layers"][-9:]] == [
        True,
        False,
        False,
        True,
        False,
        False,
        True,
        False,
        False,
    ]


def described(model, x):
    values, tensors = activations(model, x), Tensors()
    layers = {layer["name"]: layer for layer in describe_layers(model, values, {}, tensors)}
    return layers, values, {t.id: unpacked(t.text, t.type) for t in tensors.encoded()}


def test_of_a_dense_layer_the_largest_products_the_rest_and_some_rows(rng):
    model = anp.alexnet("d2l", width=1 / 16, seed=0).eval()
    layers, values, arrays = described(model, rng.random((1, 224, 224), np.float32))
    for name, place in places(model, (1, 224, 224)).items():
        if layers[name]["kind"] != "dense":
            continue
        layer, x = layers[name], values[place.source].astype(np.float64)
        weight = place.layer.weight.data
        products = weight.astype(np.float64) * x
        count = layer["largest"]["count"]
        at = arrays[layer["largest"]["at"]].reshape(-1, count)
        found = np.take_along_axis(products, at.astype(int), 1)
        expected = -np.sort(-np.abs(products), 1)[:, :count]
        assert np.allclose(np.abs(found), expected, rtol=1e-12)
        kept = arrays[layer["largest"]["weight"]].reshape(-1, count)
        assert np.array_equal(kept, np.take_along_axis(weight, at.astype(int), 1))
        assert np.allclose(found.sum(1) + arrays[layer["rest"]], products.sum(1), atol=1e-12)
        assert np.allclose(arrays[layer["sizes"]], np.abs(products).sum(1), rtol=1e-6)
        units = layer["whole"]["units"]
        assert units == np.argsort(-values[name], kind="stable")[: len(units)].tolist()
        assert len(units) == (5 if name == "classifier.6" else 8)
        assert np.array_equal(arrays[layer["whole"]["weight"]].reshape(len(units), -1), weight[units])


def test_statistics_are_of_the_numbers_and_dead_maps_are_counted():
    model = anp.alexnet("d2l", width=1 / 16, seed=0).eval()
    model.features[0].bias.data[2] = -1e6
    layers, values, _ = described(model, np.ones((1, 97, 97), np.float32))
    relu = values["features.1"]
    assert layers["features.1"]["dead"] == (relu == 0).all((1, 2)).sum() > 0
    assert layers["features.1"]["zeros"] == pytest.approx((relu == 0).mean())
    assert layers["features.1"]["mean"] == pytest.approx(relu.mean(), rel=1e-5)
    assert layers["features.0"]["min"] == values["features.0"].min()


def test_layers_that_were_put_in_the_place_of_others():
    model = anp.alexnet("paper", width=1 / 16, seed=0).eval()
    model.features.layers[1], model.features.layers[2], model.features.layers[5] = Tanh(), Identity(), Sigmoid()
    layers, *_ = described(model, np.ones((3, 97, 97), np.float32))
    assert [layers[f"features.{i}"]["kind"] for i in (1, 2, 5)] == ["tanh", "same", "sigmoid"]
    assert layers["features.1"]["values"]


def test_float64_is_refused():
    with pytest.raises(anp.DtypeError, match="shows float32 networks"):
        render([subject(anp.alexnet("d2l", width=1 / 16, seed=0, dtype="float64"))])


def test_without_jinja2_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(anp.AlexNetError, match="pip install jinja2"):
        render([subject(anp.alexnet("d2l", width=1 / 16, seed=0))])


@pytest.mark.parametrize(("rows", "n", "count"), [(5, 3000, 20), (3, 64, 20), (4, 33, 20), (2, 7, 7), (3, 700, 1)])
def test_the_largest_of_each_row(rng, rows, n, count):
    sizes = np.abs(rng.standard_normal((rows, n)))
    sizes[:, :: max(2, n // 50)] = 0.0
    sizes[0, : n // 2] = 1.5  # alike
    found = largest_of_each(sizes, count)
    assert all(len(set(row)) == count for row in found.tolist())
    assert np.array_equal(np.take_along_axis(sizes, found, 1), -np.sort(-sizes, 1)[:, :count])


# What lies over the picture


def test_attribution_over_the_picture_is_that_of_the_study():
    model = anp.alexnet("d2l", weights="FASHION_MNIST_V1", width=1 / 8).eval()
    made = subject(model, attributions=check_methods(["all"]))
    (net,), arrays = parts(render([made]))
    x = normalise(made.pixels, made.recipe, np.empty((1, 224, 224), np.float32))
    number = int(model(x[None]).argmax())
    assert [one["method"] for one in net["attributions"]] == ["grad_cam", *(m for m in METHODS if m != "grad_cam")]
    assert set(WORDS) == set(METHODS)
    for one in net["attributions"]:
        values = anp.study.attribution(model, x, number, one["method"])
        expected = shown("", values, METHODS[one["method"]]())
        steps = (arrays[one["values"]].astype(float) - 128) / 124
        assert (one["class"], one["signed"]) == (number, one["method"] == "occlusion")
        assert one["limit"] == pytest.approx(expected.scale, rel=1e-3)
        assert np.abs(steps.reshape(224, 224) - expected.heat).max() < 0.51 / 31 + 1e-3


def test_which_methods_lie_over_the_picture(tmp_path):
    out = tmp_path / "page.html"
    for asked, expected in ([], QUICK), (["none"], ()), (["occlusion", "saliency"], ("occlusion", "saliency")):
        run("explore", "--garment", 0, "--out", out, *(word for name in asked for word in ("--attribution", name)))
        assert tuple(one["method"] for one in parts(out.read_text("utf-8"))[0][0]["attributions"]) == expected
    assert "choose one of saliency" in fails("explore", "--garment", 0, "--attribution", "x", "--out", out)


def test_a_network_without_pooling_has_no_grad_cam_over_its_picture():
    model = anp.alexnet("d2l", width=1 / 16, seed=0).eval()
    model.features.layers = [Identity() if type(layer).__name__ == "MaxPool2d" else layer for layer in model.features]
    model.avgpool = AdaptiveAvgPool2d((5, 5))
    (net,), _ = parts(render([subject(model)]))
    assert [one["method"] for one in net["attributions"]] == ["saliency", "guided_backprop", "deconvnet"]


# alexnet explore


def test_the_carried_network_s_page_is_small(tmp_path):
    out = tmp_path / "boot.html"
    assert "ankle boot" in run("explore", "--garment", 0, "--out", out).stdout
    assert out.stat().st_size < 1e6
    (net,), _ = parts(out.read_text(encoding="utf-8"))
    assert (net["weights"], net["random"], net["labels"][9]) == ("FASHION_MNIST_V1", False, "ankle boot")
    assert all(layer["seconds"] > 0 for layer in net["layers"][1:-1])


@pytest.mark.parametrize(
    ("other", "presets"),
    [(str(CAT), ["torchvision", "torchvision"]), ("paper", ["torchvision", "paper"]), ("FILE", ["torchvision"] * 2)],
)
def test_two_are_compared(tmp_path, monkeypatch, other, presets):
    monkeypatch.setenv("ALEXNET_NP_HOME", str(tmp_path / "home"))
    if other == "FILE":
        other = tmp_path / "w.npz"
        np.savez(other, **anp.alexnet("torchvision", width=1 / 16, seed=7).state_dict())
    out = tmp_path / "both.html"
    found = json.loads(run("explore", "--compare", other, "--out", out, *SMALL, "--json").stdout)
    assert [s["preset"] for s in parts(out.read_text(encoding="utf-8"))[0]] == presets
    assert found["bytes"] == out.stat().st_size


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("not a picture")
    out = tmp_path / "page.html"
    assert "not an image" in fails("explore", broken, "--out", out, *SMALL)
    assert "no such file" in fails("explore", tmp_path / "none.jpg", "--out", out, *SMALL)
    assert "not an image" in fails("explore", "--compare", broken, "--out", out, *SMALL)
    assert "there is no folder" in fails("explore", "--out", tmp_path / "nowhere" / "page.html", *SMALL)
    (tmp_path / "folder.html").mkdir()
    assert "cannot be written" in fails("explore", "--out", tmp_path / "folder.html", *SMALL)
    assert "nor a preset (torchvision" in fails("explore", "--compare", "papper", "--out", out, *SMALL)
    assert "0 (ankle boot)" in fails("explore", "--garment", 5, "--out", out)
    assert not out.exists()


def test_the_page_that_the_readme_links_is_made_by_these_scripts():
    """After a change to the page: alexnet explore --garment 0 --out docs/explorer.html"""
    page = (DOCS / "explorer.html").read_text(encoding="utf-8")
    for name in SCRIPTS:
        assert asset(f"{name}.js") in page, name
    assert asset("page.css") in page
