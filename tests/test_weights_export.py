"""`alexnet weights convert`: from every format into every other, array by array, and the exact changes on the way."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import cuda_convnet_files as cc  # noqa: E402
import weight_formats as files  # noqa: E402
from command_line import fails, run, run_json  # noqa: E402

import alexnet_np as anp  # noqa: E402
from alexnet_np.presets import PRESETS  # noqa: E402

WIDTH = 1 / 16
WRITTEN = [".safetensors", ".npz", ".pth", ".onnx", ".caffemodel"]


@pytest.fixture(scope="module")
def model():
    return anp.alexnet("bvlc", width=WIDTH, num_classes=10, seed=3).eval()


@pytest.fixture(scope="module")
def state(model):
    return model.state_dict()


def convert(source, target, *options):
    return run_json("weights", "convert", source, target, *options)


def same(got, want):
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def pictures(n=2, side=227):
    return np.random.default_rng(0).normal(0, 60, (n, 3, side, side)).astype(np.float32)


def close(got, want, tolerance=1e-6):
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


READ = [files.caffemodel, files.guerzhoy, files.matconvnet, files.hdf5]


@pytest.mark.parametrize("ending", WRITTEN)
@pytest.mark.parametrize("write", READ, ids=[write.__name__ for write in READ])
def test_from_every_format_into_every_other(tmp_path, state, write, ending):
    source, target = write(tmp_path / "source", state), tmp_path / f"w{ending}"
    made = convert(source, target, "--preset", "bvlc")
    assert (made["preset"], made["arrays"], made["left"]) == ("bvlc", 16, [])
    assert made["parameters"] == sum(array.size for array in state.values())
    turned = ["features.0.weight: channels from RGB to BGR"] if write is files.matconvnet else []
    assert made["changed"] == turned
    same(anp.alexnet("bvlc", weights=target, width=WIDTH, num_classes=10).state_dict(), state)
    convert(target, tmp_path / "back.npz", "--preset", "bvlc")
    same(dict(np.load(tmp_path / "back.npz")), state)


@pytest.mark.parametrize("preset", PRESETS)
def test_pth_is_loaded_by_torch(tmp_path, preset):
    model = anp.alexnet(preset, width=WIDTH, seed=0)
    anp.weights.write(tmp_path / "w.safetensors", model)
    convert(tmp_path / "w.safetensors", tmp_path / "w.pth")
    loaded = torch.load(tmp_path / "w.pth", weights_only=True)
    same({name: tensor.numpy() for name, tensor in loaded.items()}, model.state_dict())


def test_weights_of_nobody_keep_their_names(tmp_path):
    np.savez(tmp_path / "a.npz", b=np.ones((2, 3), "f4"), a=np.arange(2.0))
    made = convert(tmp_path / "a.npz", tmp_path / "b.safetensors")
    assert made["preset"] is None and made["arrays"] == 2
    got = anp.weights.read(tmp_path / "b.safetensors")
    same({name: got[name] for name in ("b", "a")}, {"b": np.ones((2, 3), "f4"), "a": np.arange(2.0)})
    assert "of no known network" in fails("weights", "convert", tmp_path / "a.npz", tmp_path / "c.onnx")
    assert "of no known network" in fails("weights", "convert", tmp_path / "a.npz", tmp_path / "c.npz", "--dense")


def test_channels_turned_round_are_exact(tmp_path, model):
    anp.weights.write(tmp_path / "bgr.npz", model)
    made = convert(tmp_path / "bgr.npz", tmp_path / "rgb.npz", "--channels", "RGB")
    assert made["changed"] == ["takes RGB instead of BGR"]
    turned, x = anp.alexnet(None, weights=tmp_path / "rgb.npz").eval(), pictures()
    recipe = turned.described().preprocessing
    assert recipe.mode == "RGB" and recipe.mean == PRESETS["bvlc"].preprocessing.mean[::-1]
    np.testing.assert_array_equal(turned.features[0].weight.data, model.features[0].weight.data[:, ::-1])
    close(turned(x[:, ::-1]), model(x))
    convert(tmp_path / "rgb.npz", tmp_path / "back.npz", "--channels", "BGR")
    same(dict(np.load(tmp_path / "back.npz")), model.state_dict())
    assert convert(tmp_path / "rgb.npz", tmp_path / "again.npz", "--channels", "RGB")["changed"] == []
    anp.weights.write(tmp_path / "grey.npz", anp.alexnet("d2l", width=WIDTH))
    said = fails("weights", "convert", tmp_path / "grey.npz", tmp_path / "w.npz", "--channels", "RGB")
    assert "a network of L input cannot take RGB" in said
    said = fails("weights", "convert", tmp_path / "bgr.npz", tmp_path / "w.npz", "--channels", "GRB")
    assert "convert: unknown channels 'GRB': choose one of RGB, BGR" in said


def test_the_mean_goes_inside_where_that_is_exact(tmp_path, model):
    anp.weights.write(tmp_path / "w.npz", model)
    made = convert(tmp_path / "w.npz", tmp_path / "inside.npz", "--mean-inside")
    assert made["changed"] == ["mean 104.007, 116.669, 122.679 and std 1, 1, 1 are in the first convolution"]
    inside, x = anp.alexnet(None, weights=tmp_path / "inside.npz").eval(), pictures()
    mean = np.array(PRESETS["bvlc"].preprocessing.mean, np.float32)[:, None, None]
    close(inside(x + mean), model(x), 1e-5)
    assert inside.described().preprocessing.mean == (0, 0, 0)
    for preset in ("torchvision", "paper", "krizhevsky145"):
        anp.weights.write(tmp_path / "p.npz", anp.alexnet(preset, width=WIDTH))
        said = fails("weights", "convert", tmp_path / "p.npz", tmp_path / "q.npz", "--mean-inside")
        assert "the mean cannot go into features.0: it pads its input" in said and not (tmp_path / "q.npz").exists()


@pytest.mark.parametrize("ending", WRITTEN)
def test_groups_written_dense_and_read_grouped(tmp_path, model, state, ending):
    anp.weights.write(tmp_path / "w.npz", model)
    made = convert(tmp_path / "w.npz", tmp_path / f"dense{ending}", "--dense")
    assert made["changed"] == ["convolutions without groups"]
    shapes = [array.shape for array in anp.weights.read(tmp_path / f"dense{ending}").values() if array.ndim == 4]
    assert shapes[1] == (16, 6, 5, 5)
    again = convert(tmp_path / f"dense{ending}", tmp_path / "back.npz", "--preset", "bvlc")
    assert [line.split(": ")[1] for line in again["changed"]] == ["2 groups out of a dense convolution"] * 3
    same(dict(np.load(tmp_path / "back.npz")), state)


def test_dropout_that_scales_in_testing(tmp_path, state):
    """Caffe's twin of the authors' weights: dense 7 and 8 halved, and the other way; exact, as halves are."""
    anp.weights.write(tmp_path / "w.npz", state)
    for option, factor in (("--trained-dropout", 0.5), ("--dropout", 2)):
        made = convert(tmp_path / "w.npz", tmp_path / "out.npz", option, "testing", "--preset", "bvlc")
        assert len(made["changed"]) == 1 and "behind dropout" in made["changed"][0]
        want = {name: array * np.float32(factor) if name in BEHIND else array for name, array in state.items()}
        same(dict(np.load(tmp_path / "out.npz")), want)
    said = fails("weights", "convert", tmp_path / "w.npz", tmp_path / "out.npz", "--dropout", "never", "-p", "bvlc")
    assert "convert: unknown dropout 'never': choose one of training, testing" in said


BEHIND = ("classifier.3.weight", "classifier.6.weight")


def test_a_file_that_says_how_its_dropout_scales_is_carried_over_once(tmp_path, state):
    (tmp_path / "91.300").write_bytes(cc.cuda_convnet(state))
    for options in ((), ("--trained-dropout", "testing")):
        made = convert(tmp_path / "91.300", tmp_path / "w.npz", *options)
        assert made["preset"] == "krizhevsky145" and len(made["changed"]) == 2
        got = np.load(tmp_path / "w.npz")
        np.testing.assert_array_equal(got["classifier.6.weight"], state["classifier.6.weight"] * np.float32(0.5))
    convert(tmp_path / "w.npz", tmp_path / "back.npz", "--dropout", "testing")
    for got, want in zip(np.load(tmp_path / "back.npz").values(), state.values(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_onnx_of_another_opset(tmp_path, model):
    onnx = pytest.importorskip("onnx")
    anp.weights.write(tmp_path / "w.npz", model)
    convert(tmp_path / "w.npz", tmp_path / "w.onnx", "--opset", "13")
    assert onnx.load(tmp_path / "w.onnx").opset_import[0].version == 13
    assert "opset 12 is not written" in fails(
        "weights", "convert", tmp_path / "w.npz", tmp_path / "v.onnx", "--opset", "12"
    )


def test_what_is_not_taken_is_said(tmp_path, state):
    np.savez(tmp_path / "w.npz", **state, mean=np.zeros((2, 2), "f4"), optimizer=np.zeros(3))
    said = run("weights", "convert", tmp_path / "w.npz", tmp_path / "v.npz", "--preset", "bvlc").stdout
    assert "v.npz: 16 arrays, " in said and "not taken: 'mean' (2, 2), 'optimizer' (3,)" in " ".join(said.split())


def test_paddles_alexnet(tmp_path):
    """torchvision's shapes, dense weights turned, and dropout in front of dense 6 and 7 that scales in testing."""
    state = anp.alexnet("torchvision", width=WIDTH, num_classes=10, seed=3).state_dict()
    source = files.paddle(tmp_path / "alexnet.pdparams", state)
    found = run_json("weights", "inspect", source)
    assert (found["format"], found["preset"], len(found["arrays"])) == ("pickle of Paddle", "torchvision", 16)
    same(anp.alexnet(None, weights=source).state_dict(), state)
    made = convert(source, tmp_path / "w.pth", "--trained-dropout", "testing")
    assert len(made["left"]) == 8 and all("StructuredToParameterName@@" in left for left in made["left"])
    halved = ("classifier.1.weight", "classifier.4.weight")
    want = {name: array * np.float32(0.5) if name in halved else array for name, array in state.items()}
    same(anp.weights.read(tmp_path / "w.pth"), want)
