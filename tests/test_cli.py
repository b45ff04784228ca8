"""The command line inside this process: what each command says, in words and in JSON, and how it ends."""

import hashlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import fails, run, run_json
from PIL import Image

import alexnet_np as anp
from alexnet_np.weights import registry

CAT = Path(anp.__file__).parent / "assets" / "cat.jpg"


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    """No published weights on this machine, and no network to get them from."""
    monkeypatch.setenv("ALEXNET_NP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    nowhere = registry.ENTRIES["IMAGENET1K_V1"]._replace(url="http://127.0.0.1:9/refused.pth")
    monkeypatch.setitem(registry.ENTRIES, "IMAGENET1K_V1", nowhere)


@pytest.fixture(scope="module")
def model():
    return anp.alexnet("torchvision", width=1 / 16, num_classes=1000, seed=5).eval()


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    """A file of a narrow network: its own shapes tell the command how narrow."""
    path = tmp_path_factory.mktemp("weights") / "narrow.npz"
    np.savez(path, **model.state_dict())
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """Three good images, a bad one, and a file that is none."""
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    for name in "a.jpg", "b[1].jpg", "inner/c.JPG":
        shutil.copy(CAT, folder / name)
    (folder / "bad.jpg").write_bytes(CAT.read_bytes()[:2000])
    (folder / "notes.txt").write_text("not an image")
    return folder


# The application


# classify


def test_classify_gives_the_most_probable_labels(model, weights):
    found = run_json("classify", CAT, "--weights", weights)
    assert found["failures"] == []
    assert found["model"]["weights"] == weights
    assert found["model"]["parameters"] == sum(p.data.size for p in model.parameters())
    (result,) = found["results"]
    assert result["file"] == str(CAT)
    probabilities = anp.ops.softmax.forward(model(anp.preprocess(CAT)[None]))[0][0]
    order = np.argsort(-probabilities)[:5]
    assert [guess["index"] for guess in result["top"]] == order.tolist()
    assert [guess["label"] for guess in result["top"]] == [anp.categories[i] for i in order]
    assert [guess["probability"] for guess in result["top"]] == pytest.approx(probabilities[order].tolist())


def test_classify_in_words(weights, folder):
    lines = run("classify", folder / "b[1].jpg", "-w", weights, "-k", 3).stdout.splitlines()
    assert lines[0] == str(folder / "b[1].jpg")  # brackets are no markup
    assert len(lines) == 4
    assert "%" in lines[1]
    (line,) = run("classify", CAT, "-w", weights, "--top", 1).stdout.splitlines()
    assert line.endswith(str(CAT))


def test_classify_goes_on_past_bad_files_and_lists_them(weights, folder):
    result = run("classify", folder, "nowhere.jpg", folder / "notes.txt", "-w", weights, "-k", 1, "--json", code=1)
    found = json.loads(result.stdout)
    assert [Path(r["file"]).name for r in found["results"]] == ["a.jpg", "b[1].jpg", "c.JPG"]
    failures = {Path(failure["file"]).name: failure["error"] for failure in found["failures"]}
    assert set(failures) == {"nowhere.jpg", "bad.jpg", "notes.txt"}
    assert failures["nowhere.jpg"] == "no such file or folder"
    assert len(result.stderr.splitlines()) == 3
    assert all(line.startswith("alexnet: ") for line in result.stderr.splitlines())


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_the_batch_size_changes_nothing_but_memory(weights, folder, batch_size):
    whole = run_json("classify", folder, "-w", weights, code=1)
    found = run_json("classify", folder, "-w", weights, "--batch-size", batch_size, code=1)
    assert found["failures"] == whole["failures"]
    for ours, theirs in zip(found["results"], whole["results"], strict=True):
        assert [g["index"] for g in ours["top"]] == [g["index"] for g in theirs["top"]]


def test_a_file_named_twice_has_two_rows(weights):
    """A row for each argument, in order."""
    first, second = run_json("classify", CAT, CAT, "-w", weights)["results"]
    assert first == second


def test_classify_reads_standard_input(weights):
    named = run_json("classify", CAT, "-w", weights)["results"][0]
    piped = run_json("classify", "-", "-w", weights, input=CAT.read_bytes())["results"][0]
    assert piped == named | {"file": "-"}
    assert run("classify", "-", "-w", weights, input=CAT.read_bytes()).stdout.startswith("standard input\n")


def test_classify_without_trained_weights_says_how_to_get_them():
    said = fails("classify", CAT)
    assert "alexnet weights download IMAGENET1K_V1" in said
    assert "--weights random" in said
    assert "no published weights for 'paper'" in fails("classify", CAT, "--preset", "paper")


def test_random_weights_are_called_so():
    result = run("classify", CAT, "--weights", "random", "--preset", "d2l", "--seed", 3)
    assert result.stderr == "alexnet: weights random, seed 3: what comes out means nothing\n"
    assert any(label in result.stdout for label in ("sneaker", "ankle boot", "t-shirt"))


def test_unnamed_classes_are_numbered(tmp_path):
    model = anp.alexnet("paper", width=1 / 32, num_classes=3, seed=0)
    np.savez(tmp_path / "three.npz", **model.state_dict())
    found = run_json("classify", CAT, "--preset", "paper", "--weights", tmp_path / "three.npz")
    assert sorted(guess["label"] for guess in found["results"][0]["top"]) == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "nowhere.pth"], "nowhere.pth: neither a run's folder nor a file nor one of the published"),
        (["--weights", str(CAT)], "is not a weight file"),
        (["--preset", "vgg"], "unknown preset 'vgg'"),
        (["--weights", "random", "--backend", "tpu"], "unknown backend 'tpu'"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    assert message in fails("classify", CAT, *options)


def test_a_width_for_weights_of_their_own_width_is_refused(weights):
    assert "a network of width 0.0625, not 0.5" in fails("walk", "--width", 0.5, "--weights", weights)


def test_weights_that_do_not_fit_are_one_line(weights, tmp_path):
    assert "weights of torchvision, width 0.0625, 1000 classes, 3 channels, not of paper" in fails(
        "classify", CAT, "-p", "paper", "-w", weights
    )
    np.savez(tmp_path / "other.npz", something=np.zeros(3, "float32"))
    assert "of no known network, at any width" in fails("classify", CAT, "-w", tmp_path / "other.npz")


def test_published_weights_on_this_machine_are_used(weights, monkeypatch):
    publish(weights, monkeypatch)
    found = run_json("classify", CAT)
    assert found["model"]["weights"] == "IMAGENET1K_V1"
    assert found["results"] == run_json("classify", CAT, "-w", weights)["results"]


# embed


@pytest.mark.parametrize("preset", ["torchvision", "paper", "d2l"])
def test_embed_gives_the_last_hidden_layer(preset, tmp_path):
    model = anp.alexnet(preset, width=1 / 32, seed=0).eval()
    np.savez(tmp_path / "w.npz", **model.state_dict())
    options = "-p", preset, "--backend", "numpy"
    run("embed", CAT, "-o", tmp_path / "out.npz", "-w", tmp_path / "w.npz", *options)
    with np.load(tmp_path / "out.npz") as saved:
        assert saved["files"].tolist() == [str(CAT)]
        found = saved["embeddings"]
    kept = []
    last_relu = 5 if preset == "torchvision" else 4
    model.classifier[last_relu].register_forward_hook(lambda layer, x, y: kept.append(y))
    model(anp.preprocess(CAT, preset=preset)[None])
    assert found.shape == (1, 128)
    np.testing.assert_array_equal(found, kept[0])


def test_embed_writes_names_beside_an_npy(weights, folder, tmp_path):
    out = tmp_path / "vectors.npy"
    result = run("embed", folder, "-w", weights, "--out", out, code=1)
    names = (tmp_path / "vectors.npy.txt").read_text().splitlines()
    assert [Path(name).name for name in names] == ["a.jpg", "b[1].jpg", "c.JPG"]
    assert np.load(out).shape == (3, 256)
    assert result.stdout == f"{out}: 3 vectors of 256 numbers\n"
    assert "bad.jpg" in result.stderr


def test_embed_writes_parquet(weights, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    run("embed", folder / "a.jpg", folder / "inner", "-w", weights, "--out", tmp_path / "v.parquet")
    table = parquet.read_table(tmp_path / "v.parquet")
    assert [Path(name).name for name in table["file"].to_pylist()] == ["a.jpg", "c.JPG"]
    assert np.array(table["embedding"].to_pylist()).shape == (2, 256)


def test_embed_in_json(weights, folder, tmp_path):
    found = run_json("embed", folder, "-w", weights, "-o", tmp_path / "v.npz", code=1)
    assert found["out"] == str(tmp_path / "v.npz")
    assert len(found["files"]) == 3
    assert [Path(failure["file"]).name for failure in found["failures"]] == ["bad.jpg"]


def test_json_says_who_computed(weights, folder, tmp_path):
    for backend, engine in ("numpy", "arrays"), ("numba", "plan"):
        for command in ("classify", folder), ("embed", folder, "-o", tmp_path / "v.npz"):
            found = run_json(*command, "-w", weights, "--backend", backend, code=1)
            assert (found["engine"]["engine"], found["engine"]["backend"]) == (engine, backend)
            assert found["model"]["backend"] == backend
    assert "choose one of auto, numpy" in fails("classify", CAT, "-w", weights, "--backend", "fast")


def test_embed_writes_nothing_where_nothing_could_be_read(weights, folder, tmp_path):
    result = run("embed", folder / "bad.jpg", "-w", weights, "--out", tmp_path / "v.npz", code=1)
    assert result.stdout == ""
    assert not (tmp_path / "v.npz").exists()


def test_embed_refuses_an_output_before_it_computes(tmp_path, monkeypatch):
    assert "written as .npy, .npz, .parquet" in fails("embed", CAT, "--out", tmp_path / "v.csv")
    assert "create it first" in fails("embed", CAT, "--out", tmp_path / "nowhere" / "v.npz")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install pyarrow" in fails("embed", CAT, "--out", tmp_path / "v.parquet")


# summary, walk, verify


def test_summary_of_a_file(weights):
    assert run_json("summary", "--weights", weights)["layers"][-1]["output_shape"] == [1, 1000]


def test_walk(model, weights):
    found = run_json("walk", CAT, "--weights", weights)
    steps = {step["name"]: step for step in found["steps"]}
    y = model.features[:2](anp.preprocess(CAT)[None])
    assert steps["features.1"]["shape"] == list(y.shape)
    assert steps["features.1"]["zeros"] == pytest.approx(np.mean(y == 0))
    assert steps["features.1"]["mean"] == pytest.approx(y.mean(), rel=1e-5)
    assert found["steps"] == run_json("walk", "--weights", weights)["steps"]  # the cat is what it walks by default
    said = run("walk", "--weights", weights).stdout
    assert "1×4×55×55" in said
    assert f"{np.mean(y == 0):.0%}" in said
    assert "no such file" in fails("walk", "nowhere.jpg", "--width", 0.1)


# weights


def publish(path, monkeypatch):
    """Make the file at `path` the published one, and put it into torch's cache."""
    data = Path(path).read_bytes()
    entry = registry.ENTRIES["IMAGENET1K_V1"]
    entry = entry._replace(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(registry.ENTRIES, "IMAGENET1K_V1", entry)
    target = registry.torch_hub() / entry.file
    target.parent.mkdir(parents=True)
    target.write_bytes(data)
    return target


def test_weights_list(weights, monkeypatch):
    assert run_json("weights", "list")["weights"][0]["path"] is None
    assert "IMAGENET1K_V1" in run("weights", "list").stdout
    target = publish(weights, monkeypatch)
    assert run_json("weights", "list")["weights"][0]["path"] == str(target)
    assert str(target) in run("weights", "list").stdout


def test_weights_download(weights, monkeypatch, tmp_path):
    said = fails("weights", "download", "IMAGENET1K_V1")
    assert "cannot download http://127.0.0.1:9/refused.pth" in said
    assert str(tmp_path / "home") in said
    assert "no published weights are called 'VGG'" in fails("weights", "download", "VGG")
    target = publish(weights, monkeypatch)
    assert run("weights", "download").stdout == f"{target}\n"
    assert run_json("weights", "download")["path"] == str(target)


def test_weights_convert_and_inspect(model, weights, tmp_path):
    target = tmp_path / "copy.npz"
    assert run_json("weights", "convert", weights, target)["arrays"] == 16
    np.testing.assert_array_equal(anp.weights.read(target)["features.0.bias"], model.features[0].bias.data)
    found = run_json("weights", "inspect", target)
    assert found["parameters"] == sum(p.data.size for p in model.parameters())
    first = {"name": "features.0.weight", "shape": [4, 3, 11, 11], "dtype": "float32", "parameters": 1452}
    assert found["arrays"][0] == first
    assert "4×3×11×11" in run("weights", "inspect", target).stdout
    assert "written as" in fails("weights", "convert", weights, tmp_path / "copy.bin")
    assert "is not a weight file" in fails("weights", "inspect", CAT)


def test_weights_inspect_finds_nan_on_request(tmp_path):
    np.savez(tmp_path / "nan.npz", w=np.array([1, np.nan], "float32"))
    run("weights", "inspect", tmp_path / "nan.npz")
    assert "not finite: 'w' (1 NaN" in fails("weights", "inspect", tmp_path / "nan.npz", "--finite")


# demo


@pytest.fixture
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Where demo writes its picture."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("in_a_folder_of_its_own")
def test_demo_in_json(model, weights):
    found = run_json("demo", "--weights", weights)
    assert found["model"]["random_weights"] is False
    assert [layer["name"] for layer in found["layers"]] == [name for name, _ in model.leaves()]
    assert all(layer["seconds"] > 0 for layer in found["layers"])
    assert found["layers"][0]["shape"] == [1, 4, 55, 55]
    assert found["torch"]["relative_error"] < 1e-5
    assert found["torch"]["same_top5"] is True
    assert found["top"] == run_json("classify", CAT, "-w", weights, "--backend", "numpy")["results"][0]["top"]
    assert found["garments"]["picture"] == "garments.png"


@pytest.mark.usefixtures("in_a_folder_of_its_own")
def test_demo_on_another_image_and_preset(tmp_path):
    model = anp.alexnet("d2l", width=1 / 16, seed=0)
    np.savez(tmp_path / "w.npz", **model.state_dict())
    said = run("demo", "--image", CAT, "--preset", "d2l", "--weights", tmp_path / "w.npz").stdout
    assert "1×6×54×54" in said
    assert "the same top 5" in said
    assert "no such file" in fails("demo", "--image", "nowhere.jpg")


@pytest.mark.usefixtures("in_a_folder_of_its_own")
def test_demo_without_torch_says_so(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    said = run("demo", "--weights", weights).stdout
    assert "Not compared with torchvision: torch cannot be imported" in said
    assert "pip install torch" in said
    assert run_json("demo", "--weights", weights)["torch"]["peer"] is None


def test_demo_shows_everything_where_its_picture_cannot_be_written(weights, tmp_path, monkeypatch):
    def full(path, *arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Image.Image, "save", full)
    result = run("demo", "--weights", weights, "--out", tmp_path / "shown.png", code=1)
    assert "images/s" in result.stdout and result.stdout.count("✓") > 10
    assert "shown.png shows them" not in result.stdout
    assert result.stderr.endswith("shown.png: cannot be written: Read-only file system; name another file\n")
    assert run_json("demo", "--weights", weights, "--out", tmp_path / "a.png", code=1)["garments"]["picture"] is None


@pytest.mark.parametrize(("ending", "starts"), [("jpg", b"\xff\xd8"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")])
def test_the_ending_decides_the_pictures_format(weights, tmp_path, ending, starts):
    run("demo", "--weights", weights, "--out", tmp_path / f"shown.{ending}")
    assert (tmp_path / f"shown.{ending}").read_bytes().startswith(starts)


def test_demo_shows_the_garments(weights, tmp_path):
    out = tmp_path / "shown.png"
    found = run_json("demo", "--weights", weights, "--out", out)["garments"]
    images = found["images"]
    right = [image["top"][0]["label"] == image["label"] for image in images]
    assert (len(images), sum(right), found["picture"]) == (20, found["right"], str(out))
    with Image.open(out) as picture:
        assert picture.format == "PNG" and picture.width > 10 * 128
    said = run("demo", "--weights", weights, "--out", out).stdout
    assert said.count("✓") == sum(right) and said.count("✗") == 20 - sum(right)
    assert f"{sum(right)} of 20 test images of Fashion-MNIST" in said
    assert str(out) in said
    assert max(map(len, said.splitlines())) <= max(120, len(str(out)) + 20)
    nowhere = tmp_path / "nowhere" / "shown.png"
    assert "create it first" in fails("demo", "--weights", weights, "--out", nowhere)
