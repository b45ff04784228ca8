"""Files for other programs, each run by the program that it is for: torch, ONNX Runtime, OpenVINO, OpenCV's Caffe."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_weights_finding import Net  # noqa: E402

import alexnet_np as anp  # noqa: E402
from alexnet_np.errors import ArgumentError, MissingPackageError, WeightsError  # noqa: E402
from alexnet_np.layers import AvgPool2d  # noqa: E402
from alexnet_np.outline import steps_of  # noqa: E402
from alexnet_np.presets import PRESETS  # noqa: E402
from alexnet_np.weights import transforms  # noqa: E402
from alexnet_np.weights.steps import Network, square, step  # noqa: E402

WIDTH = 1 / 16


@pytest.fixture(scope="module", params=PRESETS)
def model(request):
    return anp.alexnet(request.param, width=WIDTH, num_classes=7, seed=1).eval()


def pictures(model, n=2):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, model.in_channels, model.input_size, model.input_size)).astype(np.float32)


def close(got, want, tolerance=1e-5):
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


# .pth


def test_torch_loads_what_is_written(tmp_path):
    arrays = {
        "f4": np.arange(6, dtype="f4").reshape(2, 3),
        "f8": np.arange(3.0),
        "f2": np.ones(3, "f2"),
        "i8": np.array([-(1 << 60), 3]),
        "flags": np.array([True, False]),
        "scalar": np.array(2.5, "f4"),
        "empty": np.empty((0, 4), "f4"),
        "turned": np.arange(6.0, dtype="f4").reshape(2, 3).T,
        "big": np.arange(3, dtype=">f4"),
    }
    anp.weights.write(tmp_path / "w.pth", arrays)
    for options in ({}, {"mmap": True}):
        loaded = torch.load(tmp_path / "w.pth", weights_only=True, **options)
        assert list(loaded) == list(arrays)
        for name, array in arrays.items():
            assert tuple(loaded[name].shape) == array.shape and loaded[name].is_contiguous()
            np.testing.assert_array_equal(loaded[name].numpy(), array)
    got = anp.weights.read(tmp_path / "w.pth")
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)
    with pytest.raises(WeightsError, match="'w' has dtype uint16, which torch has no storage for"):
        anp.weights.write(tmp_path / "w.pth", {"w": np.ones(3, np.uint16)})


def test_torchvisions_shape_is_loaded_strictly(tmp_path):
    ours = anp.alexnet(width=1 / 32, num_classes=10, seed=4)
    anp.weights.write(tmp_path / "w.pth", ours)
    theirs = Net()
    theirs.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True), strict=True)
    x = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype("f4")
    close(ours.eval()(x), theirs.eval()(torch.from_numpy(x)).detach().numpy())


def test_storages_are_aligned(tmp_path):
    import zipfile

    anp.weights.write(tmp_path / "w.pth", {f"{'n' * i}": np.ones(i) for i in range(1, 9)})
    raw = (tmp_path / "w.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        for member in archive.infolist():
            name, extra = np.frombuffer(raw, "<u2", 2, member.header_offset + 26)
            assert (member.header_offset + 30 + int(name) + int(extra)) % 64 == 0


def test_writing_never_imports_torch(tmp_path):
    code = f"""
import sys, numpy, alexnet_np as anp
anp.weights.write({str(tmp_path / "w.pth")!r}, {{"w": numpy.ones(3)}})
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# .onnx


def run_onnx(path, x):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})[0]


def test_onnx_runtime_gives_the_same_logits(tmp_path, model):
    onnx = pytest.importorskip("onnx")
    for opset in (13, 17, 20):
        anp.weights.write(tmp_path / "w.onnx", model, opset=opset)
        made = onnx.load(tmp_path / "w.onnx")
        onnx.checker.check_model(made, full_check=True)
        assert made.opset_import[0].version == opset
    for n in (1, 3):  # the batch is free
        x = pictures(model, n)
        close(run_onnx(tmp_path / "w.onnx", x), model(x))


def test_openvino_gives_the_same_logits(tmp_path, model):
    openvino = pytest.importorskip("openvino")
    anp.weights.write(tmp_path / "w.onnx", model)
    compiled = openvino.Core().compile_model(str(tmp_path / "w.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    x = pictures(model)
    close(compiled([x])[0], model(x), 3e-5)


@pytest.mark.parametrize("opset", range(13, 21))
def test_every_opset_runs(tmp_path, opset):
    model = anp.alexnet("paper", width=1 / 48, num_classes=3, seed=0).eval()
    anp.weights.write(tmp_path / "w.onnx", model, opset=opset)
    x = pictures(model, 1)
    close(run_onnx(tmp_path / "w.onnx", x), model(x))


def test_weights_of_a_written_graph_are_read_back(tmp_path, model):
    pytest.importorskip("onnx")
    anp.weights.write(tmp_path / "w.onnx", model)
    got = anp.weights.read(tmp_path / "w.onnx")
    assert list(got) == list(model.state_dict())
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(got[name], array)


def layers(*steps, C=6, size=9, **arrays):
    """A small network of these steps, between two convolutions 1x1 that change nothing."""
    arrays = {f"{name}.weight": np.eye(C, dtype="f4").reshape(C, C, 1, 1) for name in "ab"} | arrays
    first, last = (step("conv", name, stride=(1, 1), padding=square(0), groups=1) for name in "ab")
    return Network("test", (first, *steps, last, step("flatten", "f")), arrays, (C, size, size), {})


LRN = {"alpha": 0.9, "beta": 0.75, "k": 2.0}
DIALECTS = ("torch", "onnx", "caffe", "krizhevsky", "paper", "tensorflow", "matconvnet", "matlab")


def normed(x, size, convention, region, groups):
    """An independent formula in float64, place by place."""
    divided = convention not in ("paper", "tensorflow", "matconvnet")
    low = size // 2 if convention in ("torch", "krizhevsky", "paper", "tensorflow") else (size - 1) // 2
    high = (
        size // 2 if convention in ("onnx", "caffe", "matlab", "matconvnet", "paper", "tensorflow") else (size - 1) // 2
    )
    y, (N, C, H, W) = np.empty(x.shape), x.shape
    window = size if region == "across" else size * size
    for n, c, i, j in itertools.product(range(N), range(C), range(H), range(W)):
        if region == "across":
            first = c // (C // groups) * (C // groups)
            seen = x[n, max(c - low, first) : min(c + high + 1, first + C // groups), i, j]
        else:
            seen = x[n, c, max(0, i - low) : i + high + 1, max(0, j - low) : j + high + 1]
        total = LRN["k"] + LRN["alpha"] / (window if divided else 1) * (seen.astype(float) ** 2).sum()
        y[n, c, i, j] = x[n, c, i, j] / total ** LRN["beta"]
    return y


@pytest.mark.parametrize("region, groups", [("across", 1), ("across", 2), ("within", 1)])
@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("convention", DIALECTS)
def test_lrn_of_every_dialect_as_onnx(tmp_path, convention, size, region, groups):
    pytest.importorskip("onnx")
    if (convention in ("caffe", "tensorflow") and size % 2 == 0) or (convention == "caffe" and region == "within"):
        pytest.skip("which this dialect cannot say")
    lrn = step("lrn", "n", size=size, **LRN, convention=convention, region=region, groups=groups)
    anp.weights.write(tmp_path / "w.onnx", layers(lrn))
    x = np.random.default_rng(0).standard_normal((2, 6, 9, 9)).astype("f4")
    want = normed(x, size, convention, region, groups)
    close(run_onnx(tmp_path / "w.onnx", x), want.reshape(2, -1))


@pytest.mark.parametrize("output", [(3, 3), (4, 2), 9, (None, 5)])
def test_adaptive_pooling_as_onnx(tmp_path, output):
    pytest.importorskip("onnx")
    anp.weights.write(tmp_path / "w.onnx", layers(step("adaptive", "a", output_size=output)))
    x = np.random.default_rng(0).standard_normal((2, 6, 9, 9)).astype("f4")
    want = torch.nn.AdaptiveAvgPool2d(output)(torch.from_numpy(x)).numpy()
    close(run_onnx(tmp_path / "w.onnx", x), want.reshape(2, -1))


@pytest.mark.parametrize("size", [8, 9, 10])
@pytest.mark.parametrize("padding, ceil", [(0, False), (0, True), (1, False), (1, True)])
@pytest.mark.parametrize("kind", ["onnx", "caffemodel"])
def test_pooling_by_floor_and_by_ceil(tmp_path, kind, padding, ceil, size):
    pool = step("max_pool", "p", kernel=(3, 3), stride=(2, 2), padding=square(padding), ceil=ceil)
    anp.weights.write(tmp_path / f"w.{kind}", layers(pool, size=size))
    x = np.random.default_rng(0).standard_normal((1, 6, size, size)).astype("f4")
    want = torch.nn.functional.max_pool2d(torch.from_numpy(x), 3, 2, padding, ceil_mode=ceil).numpy()
    got = run_onnx(tmp_path / "w.onnx", x) if kind == "onnx" else run_caffe(tmp_path / "w.caffemodel", x)
    np.testing.assert_array_equal(got.reshape(want.shape), want)


AVERAGES = {
    "as it is": {},
    "pixels only": {"count_include_pad": False},
    "another divisor": {"divisor_override": 5},
    "pixels only, and a divisor": {"count_include_pad": False, "divisor_override": -7},
}


@pytest.mark.parametrize("size", [8, 9, 10])
@pytest.mark.parametrize("padding, ceil", [(0, False), (0, True), (1, False), (1, True)])
@pytest.mark.parametrize("rule", AVERAGES)
def test_average_pooling_by_every_rule_as_onnx(tmp_path, rule, padding, ceil, size):
    made = AvgPool2d(3, 2, padding, ceil, **AVERAGES[rule])
    anp.weights.write(tmp_path / "w.onnx", layers(*steps_of([("p", made)]), size=size))
    x = np.random.default_rng(0).standard_normal((1, 6, size, size)).astype("f4")
    want = torch.nn.functional.avg_pool2d(torch.from_numpy(x), 3, 2, padding, ceil, **AVERAGES[rule]).numpy()
    close(run_onnx(tmp_path / "w.onnx", x).reshape(want.shape), want, 1e-6)


def test_average_pooling_is_read_from_onnx_with_its_rule(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = anp.alexnet("lenet5", num_classes=7, seed=1)
    anp.weights.write(tmp_path / "w.onnx", model)
    assert [n.op_type for n in onnx.load(tmp_path / "w.onnx").graph.node].count("AveragePool") == 2
    with anp.weights.reading.opened(str(tmp_path / "w.onnx")) as found:
        steps = [each for each in found.steps if each.kind == "avg_pool"]
    assert [each.settings["kernel"] for each in steps] == [(2, 2), (2, 2)]
    again = anp.alexnet(None, weights=tmp_path / "w.onnx")
    assert again.preset == "lenet5" and list(again.state_dict()) == list(model.state_dict())


def test_activations_and_what_cannot_be_written(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    x = np.random.default_rng(0).standard_normal((2, 6, 9, 9)).astype("f4")
    for kind, function in (("tanh", np.tanh), ("sigmoid", lambda x: 1 / (1 + np.exp(-x)))):
        anp.weights.write(tmp_path / "w.onnx", layers(step(kind, "a")))
        close(run_onnx(tmp_path / "w.onnx", x), function(x).reshape(2, -1))
    with pytest.raises(WeightsError, match="opset 12 is not written: choose one from 13 to 20"):
        anp.weights.write(tmp_path / "w.onnx", layers(), opset=12)
    with pytest.raises(WeightsError, match="mystery cannot be written as ONNX"):
        anp.weights.write(tmp_path / "w.onnx", layers(step("mystery", "m")))
    with pytest.raises(WeightsError, match="w.onnx: cannot be written"):
        anp.weights.write(tmp_path / "nowhere" / "w.onnx", layers())
    model = anp.alexnet("d2l", width=1 / 48)
    model.input_size = None
    with pytest.raises(WeightsError, match="give size="):
        anp.weights.write(tmp_path / "w.onnx", model)
    model.features[3].dilation = 2
    with pytest.raises(ArgumentError, match="has no counterpart"):
        anp.weights.write(tmp_path / "w.onnx", model, size=224)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match="pip install onnx"):
        anp.weights.write(tmp_path / "w.onnx", layers())


# .caffemodel


def run_caffe(path, x):
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("this OpenCV has no reader for Caffe's files")
    net = cv2.dnn.readNetFromCaffe(str(path.with_suffix(".prototxt")), str(path))
    net.setInput(x)
    return net.forward()


@pytest.mark.parametrize("preset", PRESETS)
def test_opencv_gives_the_same_logits(tmp_path, preset):
    pytest.importorskip("google.protobuf")
    model = anp.alexnet(preset, width=WIDTH, num_classes=7, seed=1).eval()
    for _, layer in model.leaves():
        if type(layer).__name__ == "LocalResponseNorm":
            layer.k = 1.0  # OpenCV does not read it
    anp.weights.write(tmp_path / "w.caffemodel", model)
    x = pictures(model, 1)
    close(run_caffe(tmp_path / "w.caffemodel", x), model(x))


def test_a_written_caffemodel_is_read_back_into_its_preset(tmp_path, model):
    pytest.importorskip("google.protobuf")
    anp.weights.write(tmp_path / "w.caffemodel", model)
    got = anp.weights.read(tmp_path / "w.caffemodel")
    for array, want in zip(got.values(), model.state_dict().values(), strict=True):
        np.testing.assert_array_equal(array, want)
    loaded = anp.alexnet(model.preset, weights=tmp_path / "w.caffemodel", width=WIDTH, num_classes=7)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], array)


@pytest.mark.parametrize("region, groups", [("across", 1), ("across", 2), ("within", 1)])
@pytest.mark.parametrize("convention", ["torch", "krizhevsky", "paper", "matconvnet"])
def test_lrn_as_caffe(tmp_path, convention, region, groups, monkeypatch):
    monkeypatch.setitem(LRN, "k", 1.0)
    lrn = step("lrn", "n", size=5, **LRN, convention=convention, region=region, groups=groups)
    anp.weights.write(tmp_path / "w.caffemodel", layers(lrn))
    x = np.random.default_rng(0).standard_normal((1, 6, 9, 9)).astype("f4")
    close(run_caffe(tmp_path / "w.caffemodel", x).ravel(), normed(x, 5, convention, region, groups).ravel())


REFUSED = {
    "odd windows only": step("lrn", "n", size=4, **LRN, convention="torch", region="across", groups=1),
    "always has k 1": step("lrn", "n", size=5, **LRN, convention="torch", region="within", groups=1),
    "windows differ in size": step("adaptive", "a", output_size=(4, 4)),
    "no layer for mystery": step("mystery", "m"),
    "padding included": step(
        "avg_pool", "p", kernel=(3, 3), stride=(2, 2), padding=square(1), ceil=True, include_pad=False
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_caffe_cannot_compute_is_refused(tmp_path, words):
    with pytest.raises(WeightsError, match=words):
        anp.weights.write(tmp_path / "w.caffemodel", layers(REFUSED[words]))
    assert not list(tmp_path.iterdir())


# The same network in another form.


def logits(network, tmp_path, x):
    anp.weights.write(tmp_path / "changed.onnx", network)
    return run_onnx(tmp_path / "changed.onnx", x)


def test_channels_turned_round(tmp_path):
    model = anp.alexnet(width=1 / 32, num_classes=5, seed=0).eval()
    x = pictures(model)
    turned = transforms.turned_channels(model.as_network())
    close(logits(turned, tmp_path, np.ascontiguousarray(x[:, ::-1])), model(x), 1e-6)
    twice = transforms.turned_channels(turned)
    np.testing.assert_array_equal(twice.arrays["features.0.weight"], model.state_dict()["features.0.weight"])


def test_the_mean_goes_into_the_first_bias_where_nothing_is_padded(tmp_path):
    model = anp.alexnet("d2l", width=1 / 32, in_channels=3, num_classes=5, seed=0).eval()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    x = pictures(model)
    shape = (1, 3, 1, 1)
    want = model((x - np.float32(mean).reshape(shape)) / np.float32(std).reshape(shape))
    close(logits(transforms.with_mean_inside(model.as_network(), mean, std), tmp_path, x), want)
    with pytest.raises(WeightsError, match="the zeros outside of the image stand for the mean"):
        transforms.with_mean_inside(anp.alexnet("paper", width=1 / 32).as_network(), mean)
    with pytest.raises(WeightsError, match="a mean of 1 channels"):
        transforms.with_mean_inside(model.as_network(), (1.0,), (1.0,))


def test_groups_as_dense_convolutions_and_back(tmp_path):
    model = anp.alexnet("paper", width=1 / 32, num_classes=5, seed=0).eval()
    network, x = model.as_network(), pictures(model)
    dense = transforms.without_groups(network)
    assert {each.settings["groups"] for each in dense.steps if each.kind == "conv"} == {1}
    close(logits(dense, tmp_path, x), model(x), 1e-6)
    for weights in (dense.arrays, {name.replace(".", "-"): array for name, array in dense.arrays.items()}):
        back = anp.alexnet("paper", weights=weights, width=1 / 32, num_classes=5)
        for name, array in network.arrays.items():
            np.testing.assert_array_equal(back.state_dict()[name], array)
    dense.arrays["features.4.weight"][0, -1] = 1
    with pytest.raises(WeightsError, match="'features.4.weight' looks across the 2 groups: 25 numbers that are not"):
        anp.alexnet("paper", weights=dense.arrays, width=1 / 32, num_classes=5)


def test_dropout_for_programs_that_scale_in_testing():
    network = anp.alexnet("paper", width=1 / 32, num_classes=5, seed=0).as_network()
    carried = transforms.for_testing_scale(network)
    for name, array in network.arrays.items():
        factor = 2 if name in ("classifier.3.weight", "classifier.6.weight") else 1
        np.testing.assert_array_equal(carried.arrays[name], array * np.float32(factor))
    from alexnet_np.weights.fitting import kept

    assert kept(carried.steps) == {"classifier.3": 0.5, "classifier.6": 0.5}  # what loading it would multiply by
