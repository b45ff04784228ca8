"""`alexnet compare`: its tables on screens of any width, JSON, pictures, and its mistakes."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from command_line import fails, run, run_json  # noqa: E402
from PIL import Image  # noqa: E402
from pseudo_terminal import screen  # noqa: E402

import alexnet_np as anp  # noqa: E402

NARROW = ("--width", "0.0625")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "caffes.npz"
    anp.weights.write(path, anp.alexnet("bvlc", width=1 / 16, seed=5).state_dict())  # which does not say whose it is
    return path


def test_two_presets():
    found = run_json("compare", "bvlc", "caffenet", *NARROW)
    assert found["a"] == "bvlc, weights random, seed 0" and found["b"] == "caffenet, the other one's weights"
    assert found["parting"] == "features.2" and [layer["parts"] for layer in found["layers"][:3]] == [False] * 3
    assert found["layers"][0]["a"]["shape"] == [1, 3, 227, 227]
    assert found["differences"] == ["behind layer 1 it has ReLU, norm, pool, not ReLU, pool, norm"]
    assert [(effect["number"], effect["words"]) for effect in found["effects"]] == [(6, "pool before LRN")]
    said = run("compare", "bvlc", "caffenet", *NARROW).stdout
    assert "They part at features.2: " in said and "A beside B: behind layer 1 it has ReLU, norm, pool" in said
    assert "They never part." in run("compare", "bvlc", "bvlc", *NARROW).stdout
    said = run("compare", "torchvision", "d2l", *NARROW).stdout
    assert "They part at input: 1\u00d73\u00d7224\u00d7224 and 1\u00d71\u00d7224\u00d7224." in said


def test_the_nine_differences_of_one():
    found = run_json("compare", "bvlc", *NARROW)
    assert {effect["number"] for effect in found["effects"]} == set(range(1, 10))
    assert "weights of the other rule" in run("compare", "bvlc", *NARROW).stdout


def test_weights_whose_network_is_named(weights):
    assert "name the preset" in fails("compare", weights, "onnx")
    found = run_json("compare", f"bvlc={weights}", "onnx")
    assert found["a"] == f"bvlc, weights {weights}" and found["parting"] == "input"
    assert run_json("compare", f"bvlc={weights}", "bvlc")["parting"] is None
    assert run_json("compare", "bvlc", f"bvlc={weights}")["parting"] is None


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_longer_than_the_screen(monkeypatch, width):
    for arguments in (("bvlc", "krizhevsky145"), ("bvlc",)):
        lines, code = screen(monkeypatch, width, "compare", *arguments, *NARROW)
        assert code == 0 and max(map(len, lines)) <= width
        words = " ".join(" ".join(lines).split())
        assert "the tower" in words or "tower" in words
        if len(arguments) == 2:
            assert any("classifier.6" in line and "1\u00d71000" in line for line in lines)
            assert "alone" in words and ("std, A and B" in words) == (width > 60)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "jpg"])
def test_it_is_drawn(tmp_path, ending):
    pytest.importorskip("matplotlib")
    for arguments in (("bvlc", "krizhevsky145"), ("bvlc",)):
        out = tmp_path / f"{len(arguments)}.{ending}"
        assert run("compare", *arguments, *NARROW, "--out", out).stdout.endswith(f"{out}\n")
        if ending in ("png", "jpg"):
            with Image.open(out) as picture:
                assert min(picture.size) > 300 and len(set(picture.convert("L").tobytes())) > 10
        else:
            assert out.read_bytes()[:5] in (b"<?xml", b"%PDF-")


def test_mistakes(tmp_path):
    said = fails("compare", "bvlc", "caffe")
    assert "caffe: neither a run's folder nor a file nor one of the published weights" in said
    assert "bvlc=: name the file, as in bvlc=weights.npz" in fails("compare", "bvlc=", "onnx")
    assert "nowhere.jpg: no such file" in fails("compare", "bvlc", "onnx", "--image", "nowhere.jpg", *NARROW)
    out = tmp_path / "a.txt"
    assert "a picture is written as .png" in fails("compare", "bvlc", "onnx", "--out", out, *NARROW)
