"""A trained network stays what it is: through every file, by every command, without an option repeated."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import alexnet_np as anp
from alexnet_np import ops
from alexnet_np.cli.app import app
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.description import Description, described_in
from alexnet_np.identity import build, identify, labels_of
from alexnet_np.layers import Dropout, Identity, LocalResponseNorm, MaxPool2d, Tanh
from alexnet_np.presets import PRESETS, describe
from alexnet_np.study.torch_net import TorchNet
from alexnet_np.training.config import Config
from alexnet_np.training.loop import Trainer
from alexnet_np.training.trained import open_trained
from alexnet_np.weights import seal
from alexnet_np.weights.formats import safetensors_file

GREY = Preprocessing(resize=80, crop=70, mode="L", scale=255, mean=(0.4,), std=(0.2,))
SAID = Description(
    "paper",
    3,
    1,
    1 / 16,
    activation="tanh",
    pooling="plain",
    lrn=False,
    dropout=0.25,
    classes=("ash", "beech", "larch"),
    preprocessing=GREY,
)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_json(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fails(*arguments):
    result = run(*arguments)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1, result.output
    assert len(result.stderr) < 400, result.stderr
    return result.stderr


def made(said=SAID, seed=3):
    """A network of random weights; what is drawn stays small, so that its logits differ."""
    model = build(said, seed=seed)
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.data[...] = rng.normal(0, 0.1, parameter.shape)
    return model.eval()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pth"])
def test_it_travels_with_every_file_and_through_convert(tmp_path, picture, ending):
    model = made()
    first, second = tmp_path / f"a{ending}", tmp_path / "b.safetensors"
    anp.weights.write(first, model)
    run_json("weights", "convert", first, second)
    run_json("weights", "convert", second, tmp_path / "c.npz")
    x = anp.preprocess(picture, model=model)
    assert x.shape == (1, 70, 70)
    expected = ops.softmax.forward(model(x[None]))[0][0]
    for file in (first, second, tmp_path / "c.npz"):
        again = anp.alexnet(None, weights=file).eval()
        assert again.described() == model.described() == SAID
        assert labels_of(again) == ["ash", "beech", "larch"]
        assert [type(layer) for _, layer in again.leaves()] == [type(layer) for _, layer in model.leaves()]
        np.testing.assert_array_equal(again(x[None]), model(x[None]))
        (found,) = run_json("classify", picture, "--weights", file, "--backend", "numpy")["results"]
        assert {guess["label"]: guess["probability"] for guess in found["top"]} == pytest.approx(
            dict(zip(SAID.classes, expected.tolist(), strict=True)), rel=1e-6
        )
        inspected = run_json("weights", "inspect", file)
        assert inspected["network"]["classes"] == ["ash", "beech", "larch"] and inspected["preset"] == "paper"
    assert set(np.load(tmp_path / "c.npz").files) == set(model.state_dict())  # nothing that others would trip over


def test_what_was_changed_is_in_its_layers():
    layers = [layer for _, layer in made().leaves()]
    assert sum(isinstance(layer, Tanh) for layer in layers) == 7 and sum(isinstance(x, Identity) for x in layers) == 2
    assert not any(isinstance(layer, LocalResponseNorm) for layer in layers)
    assert {layer.kernel_size for layer in layers if isinstance(layer, MaxPool2d)} == {2}
    assert {layer.p for layer in layers if isinstance(layer, Dropout)} == {0.25}


def test_another_network_is_refused_in_one_line(tmp_path):
    anp.weights.write(tmp_path / "a.npz", made())
    with pytest.raises(anp.WeightsError, match=r"preset paper, not d2l, width 0.0625, not 1; leave that open"):
        anp.alexnet("d2l", weights=tmp_path / "a.npz")
    with pytest.raises(anp.WeightsError, match="num_classes 3, not 10"):
        anp.alexnet(None, weights=tmp_path / "a.npz", num_classes=10)
    with pytest.raises(anp.WeightsError, match="FASHION_MNIST_V1: a network of preset d2l, not torchvision") as error:
        anp.alexnet(weights="FASHION_MNIST_V1")
    assert len(str(error.value)) < 250
    assert "preset paper, not d2l" in fails("classify", "x.png", "-w", tmp_path / "a.npz", "-p", "d2l")


def test_a_new_head_has_new_names(tmp_path):
    model = made().replace_head(5)
    anp.weights.write(tmp_path / "a.npz", model)
    again = anp.alexnet(None, weights=tmp_path / "a.npz")
    assert labels_of(again) == [f"class {i}" for i in range(5)]
    assert again.described().preprocessing == GREY


ALIKE = ("paper", "bvlc", "caffenet", "onnx")  # they differ in layers without weights alone


def test_foreign_weights_are_known_by_their_shapes_at_any_width():
    for preset in PRESETS:
        model = anp.alexnet(preset, width=1 / 16, num_classes=7, in_channels=3, seed=1).eval()
        weights = {f"net.{name}": a for name, a in model.state_dict().items()}
        if preset in ALIKE:
            with pytest.raises(anp.WeightsError, match="nothing in it tells paper, bvlc, caffenet and onnx apart"):
                anp.alexnet(None, weights=weights)
            continue
        again = anp.alexnet(None, weights=weights).eval()
        assert (again.preset, again.num_classes, again.in_channels) == (preset, 7, 3)
        x = np.random.default_rng(0).standard_normal((1, 3, 99, 99), dtype=np.float32)
        np.testing.assert_array_equal(again(x), model(x))
    with pytest.raises(anp.WeightsError, match="of no known network, at any width"):
        anp.alexnet(None, weights={"a": np.zeros((2, 3), np.float32), "b": np.zeros((4, 2), np.float32)})


def test_a_network_of_one_channel_gets_grey_pictures(picture):
    model = anp.alexnet("torchvision", in_channels=1, width=1 / 16)
    x = anp.preprocess(picture, model=model)
    assert x.shape == (1, 224, 224)
    grey = anp.preprocess(Image.open(picture).convert("L").convert("RGB"))
    np.testing.assert_allclose(x[0] * (0.229 + 0.224 + 0.225) / 3, (grey[1] * 0.224 + 0.456 - 0.449), atol=0.02)
    with pytest.raises(anp.ArgumentError, match="no preprocessing is known for this network of 4 channels"):
        anp.preprocess(picture, model=anp.alexnet("torchvision", in_channels=4, width=1 / 16))


def test_verify_compares_the_network_that_it_is(picture):
    said = Description("torchvision", 4, 3, 1 / 16, activation="tanh")
    model = made(said)
    x = np.random.default_rng(0).standard_normal((1, 3, 99, 99), dtype=np.float32)
    assert TorchNet(model, "float32").peer.startswith("torch ")
    np.testing.assert_allclose(TorchNet(model, "float32")(x), model(x), rtol=2e-4, atol=1e-5)


HOSTILE = [
    "[]",
    "{",
    json.dumps({"network": 3}),
    json.dumps({"network": {}}),
    json.dumps({"network": {**SAID.to_json(), "width": 1e9}}),
    json.dumps({"network": {**SAID.to_json(), "width": "1/8"}}),
    json.dumps({"network": {**SAID.to_json(), "num_classes": 10**12, "classes": None}}),
    json.dumps({"network": {**SAID.to_json(), "preset": "../x"}}),
    json.dumps({"network": {**SAID.to_json(), "activation": "exec"}}),
    json.dumps({"network": {**SAID.to_json(), "classes": ["a"]}}),
    json.dumps({"network": {**SAID.to_json(), "more": 1}}),
    json.dumps({"network": {**SAID.to_json(), "preprocessing": {**GREY._asdict(), "crop": -1}}}),
    json.dumps({"network": {**SAID.to_json(), "pooling": "overlapping", "preset": "torchvision"}}),
    json.dumps({"network": SAID.to_json(), "sha256": "0"}),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_file_says_is_not_believed_blindly(tmp_path, text):
    path = tmp_path / "a.safetensors"
    safetensors_file.write(path, {name: np.asarray(a) for name, a in made().state_dict().items()}, {seal.KEY: text})
    with pytest.raises(anp.WeightsError, match=r"a\.safetensors: (damaged|says that it is of)"):
        anp.alexnet(None, weights=path)


def test_many_names_do_not_fit_into_a_zip_file(tmp_path):
    names = tuple(f"a class with a very long name, number {i}" for i in range(2000))
    model = made(dataclasses.replace(describe("torchvision", 2000, width=1 / 32), classes=names))
    with pytest.raises(anp.WeightsError, match="room for 65535: write .safetensors"):
        anp.weights.write(tmp_path / "a.npz", model)
    anp.weights.write(tmp_path / "a.safetensors", model)
    assert identify(tmp_path / "a.safetensors").classes == names
    with safetensors_file.source_of(tmp_path / "a.safetensors") as source:
        assert described_in(safetensors_file.read(source).metadata) == model.described()


TINY = Config(
    dataset="synthetic",
    limit=20,
    image_size=67,
    width=1 / 32,
    batch_size=8,
    epochs=1,
    activation="sigmoid",
    dropout=0.3,
    preset="torchvision",
    backend="numpy",
    lr=0.02,
)


def test_equal_runs_end_in_equal_files(tmp_path):
    for name in "ab":
        Trainer(TINY, tmp_path / name).fit()
    written = [(tmp_path / name / "weights.safetensors").read_bytes() for name in "ab"]
    assert written[0] == written[1]
    assert b"images_per_second" not in written[0][:9000]


def test_a_run_is_opened_as_what_it_is(tmp_path, picture):
    trainer = Trainer(TINY, tmp_path / "run")
    trainer.fit()
    x = anp.preprocess(picture, model=trainer.run.model)
    assert x.shape == (1, 67, 67)
    with anp.no_grad():
        expected = ops.softmax.forward(trainer.run.model.eval()(x[None]))[0][0]
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    for weights in (tmp_path / "run", tmp_path / "run" / "weights.safetensors", newest):
        trained = open_trained(weights)
        assert trained.config == TINY and trained.classes == trainer.run.task.classes
        (found,) = run_json("classify", picture, "--weights", weights, "--top", 10)["results"]
        assert [g["label"] for g in found["top"]] == [trained.classes[i] for i in np.argsort(-expected, kind="stable")]
        assert found["top"][0]["probability"] == pytest.approx(float(expected.max()), rel=1e-5)
        run_json("embed", picture, "--weights", weights, "--out", tmp_path / "e.npy")
        run_json("walk", picture, "--weights", weights)
        assert run_json("evaluate", weights)["top1"] == trainer.last["accuracy"]
    run_json("weights", "convert", tmp_path / "run", tmp_path / "h.npz")
    assert identify(tmp_path / "h.npz") == identify(tmp_path / "run")
    assert "no run of `alexnet train`" in fails("evaluate", tmp_path / "run" / "checkpoints")


def test_finetune_takes_the_network_of_its_weights(tmp_path):
    for k, name in enumerate(("dark", "light")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 60, (90, 80, 3)) + 180 * k
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / name / f"{i}.png")
    anp.weights.write(tmp_path / "a.npz", made())
    short = ["--epochs", 1, "--backend", "numpy", "--batch-size", 4]
    result = run("finetune", tmp_path / "data", "--out", tmp_path / "run", "--weights", tmp_path / "a.npz", *short)
    assert result.exit_code == 0, result.output
    said = identify(tmp_path / "run")
    assert said.classes == ("dark", "light") and said.preprocessing == GREY
    assert (said.preset, said.width, said.activation, said.pooling, said.lrn) == (
        "paper",
        1 / 16,
        "tanh",
        "plain",
        False,
    )
    for weights in ("random", tmp_path / "run"):
        more = ["--width", 1 / 32] if weights == "random" else []
        out = tmp_path / f"from-{weights if weights == 'random' else 'run'}"
        result = run("finetune", tmp_path / "data", "--out", out, "--weights", weights, *more, *short)
        assert result.exit_code == 0, result.output
    assert identify(tmp_path / "from-random") == describe_finetuned(1 / 32)
    error = fails("train", "--out", tmp_path / "t", "--dataset", "synthetic", "--weights", tmp_path / "a.npz")
    assert "a network of preset paper, not d2l" in error


def describe_finetuned(width):
    said = describe("torchvision", 2, width=width)
    return Description(**{**vars(said), "classes": ("dark", "light"), "dropout": 0.5})
