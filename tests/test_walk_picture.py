"""`alexnet walk --out`: which blocks and maps it shows, its picture, and what it refuses."""

import numpy as np
import pytest
from command_line import fails, run, run_json
from PIL import Image
from small_networks import narrow, random_input

from alexnet_np.presets import PRESETS
from alexnet_np.study.units import activations
from alexnet_np.study.walk_picture import blocks


@pytest.mark.parametrize("preset", PRESETS)
def test_a_block_is_a_weighted_layer_with_what_follows_it(preset):
    model = narrow(preset).eval()
    x = random_input(model, 1, model.input_size)[0]
    found = blocks(model, activations(model, x))
    assert len(found) == sum(name.endswith("weight") for name, _ in model.named_parameters())
    assert np.array_equal(found[-1].values, model(x[None])[0])
    assert np.array_equal(found[0].values, model.features[: int(found[1].name.split()[0].split(".")[1])](x[None])[0])


def test_the_strongest_are_those_of_the_largest_mean():
    model = narrow().eval()
    model.features[0].bias.data[:] = [3, 0, 9, -100]
    (first, *_) = blocks(model, activations(model, random_input(model, 1)[0]))
    assert first.name == "features.0 to features.2" and first.strongest == [2, 0, 1, 3]
    assert not first.values[3].any()


@pytest.mark.parametrize("ending", ["png", pytest.param("svg", marks=pytest.mark.slow)])
def test_it_is_drawn(tmp_path, ending):
    out = tmp_path / f"walk.{ending}"
    weights = "-w", "FASHION_MNIST_V1"
    assert f"{out}: the strongest maps of each block" in run("walk", *weights, "--out", out).stdout
    assert out.stat().st_size > 10_000
    found = run_json("walk", *weights, "--out", out)
    assert list(found["strongest"])[0] == "features.0 to features.2" and len(found["strongest"]) == 8
    if ending == "png":
        with Image.open(out) as drawn:
            assert len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) > 200


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    assert "a picture is written as .png" in fails("walk", "--width", 0.1, "--out", tmp_path / "walk.gif")
    assert "there is no folder" in fails("walk", "--width", 0.1, "--out", tmp_path / "no" / "walk.png")
    (tmp_path / "folder.png").mkdir()
    assert "cannot be written" in fails("walk", "--width", 0.1, "--out", tmp_path / "folder.png")
