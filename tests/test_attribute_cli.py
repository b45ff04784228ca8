"""`alexnet attribute`: what it draws, says and refuses."""

import json

import numpy as np
import pytest
from command_line import fails, run, run_json
from PIL import Image

import alexnet_np as anp
from alexnet_np.data.garments import garments
from alexnet_np.study.attribution import METHODS, Occlusion, Saliency, attribution
from alexnet_np.study.attribution.overlay import AGAINST, FOR, GAP, LINE, SIDE, overlay, sheet, shown

BOOT = 0
QUICK = ("--window", 56, "--stride", 56, "--samples", 2, "--steps", 2)


@pytest.fixture(scope="module")
def boot():
    (garment,) = [garment for garment in garments() if garment.number == BOOT]
    model = anp.alexnet(None, weights="FASHION_MNIST_V1").eval()
    return model, anp.preprocess(garment.picture, model=model)


def test_all_methods_as_numbers_and_in_json(tmp_path, boot):
    out = tmp_path / "boot.npz"
    found = run_json("attribute", "--garment", BOOT, "-m", "all", "-o", out, *QUICK)
    assert found["target"].startswith("class 9, ankle boot, ")
    assert found["value"] > 0.9
    assert list(found["maps"]) == list(METHODS)
    model, x = boot
    settings = {"occlusion": {"window": 56, "stride": 56}, "smooth_grad": {"samples": 2}}
    settings["integrated_gradients"] = {"steps": 2}
    with np.load(out) as written:
        for method in METHODS:
            expected = attribution(model, x, 9, method, **settings.get(method, {}))
            said = found["maps"][method]
            assert np.allclose(written[method], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
            assert tuple(said["shape"]) == expected.shape
            assert said["max"] == pytest.approx(float(expected.max()), rel=1e-4)
            row, column = said["largest_at"]
            assert np.abs(written[method])[:, row, column].max() == np.abs(written[method]).max()
            assert not said["zero_everywhere"]


@pytest.mark.parametrize("ending", ["png", "jpg", "pdf"])
def test_the_sheet_is_written(tmp_path, ending):
    out = tmp_path / f"boot.{ending}"
    said = run("attribute", "--garment", BOOT, "-m", "saliency", "-m", "grad_cam", "--out", out).stdout
    assert "class 9, ankle boot" in said and f"{out}: saliency, grad_cam" in said
    if ending != "pdf":
        with Image.open(out) as drawn:
            assert drawn.size == (3 * (SIDE + GAP) + GAP, GAP + 2 * LINE + SIDE + 3 * LINE + GAP)


def test_a_class_by_its_name_and_a_unit(tmp_path):
    out = tmp_path / "one.npz"
    by_name = run_json("attribute", "--garment", BOOT, "--target", "Sneaker", "-m", "saliency", "-o", out)
    by_number = run_json("attribute", "--garment", BOOT, "--target", 7, "-m", "saliency", "-o", out)
    assert by_name == by_number and by_name["target"].startswith("class 7, sneaker")
    unit = "--layer", "features.3", "--at", "3,5,5"
    found = run_json("attribute", "--garment", BOOT, *unit, "-m", "guided_backprop", "-o", out)
    assert (found["target"], found["value"]) == ("features.3[3,5,5]", None)
    with np.load(out) as written:
        rows, columns = np.nonzero(written["guided_backprop"][0])
    seen = anp.study.receptive_field(anp.alexnet("d2l", width=1 / 8, seed=0), "features.3", (3, 5, 5), 224)
    assert seen.top <= rows.min() and rows.max() < seen.bottom
    assert seen.left <= columns.min() and columns.max() < seen.right


def test_a_map_of_zeros_is_said_to_be_one(tmp_path):
    """Of a unit that is off: no gradient passes its ReLU."""
    model = anp.alexnet(None, weights="FASHION_MNIST_V1").eval()
    model.features[8].bias.data[:] = -1e9
    weights, out = tmp_path / "off.npz", tmp_path / "off.png"
    anp.weights.write(weights, model)
    unit = "--layer", "features.9", "--at", "0,0,0"
    result = run("attribute", "--garment", BOOT, "-w", weights, *unit, "-m", "saliency", "-o", out)
    assert "0 everywhere" in result.stdout
    assert "saliency: the map is 0 everywhere: no pixel counts for features.9[0,0,0] here" in result.stderr
    assert out.exists()
    found = json.loads(run("attribute", "--garment", BOOT, "-w", weights, *unit, "-o", out, "--json").stdout)
    assert found["maps"]["grad_cam"]["max"] >= 0


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    out = tmp_path / "boot.png"
    broken = tmp_path / "broken.png"
    broken.write_text("not a picture")
    boot = "attribute", "--garment", BOOT, "--out", out
    assert "did you mean saliency" in fails(*boot, "-m", "salency")
    assert "choose one of saliency, guided_backprop" in fails(*boot, "-m", "x")
    assert "no class is called 'boot': did you mean ankle boot?" in fails(*boot, "--target", "boot")
    assert "give a number, 0 to 9" in fails(*boot, "--target", "xyzzy")
    assert "--target 10: there are 10 classes, 0 to 9" in fails(*boot, "--target", 10)
    assert "did you mean features.3" in fails(*boot, "--layer", "feature.3", "--at", "0,0,0")
    assert "outside its shape" in fails(*boot, "--layer", "features.3", "--at", "0,0,99")
    assert "as in 7,5,9" in fails(*boot, "--layer", "features.3", "--at", "a")
    assert "--at and --unit are of a layer" in fails(*boot, "--unit", 3)
    assert "not both" in fails(*boot, "--target", 1, "--layer", "features.3", "--at", "0,0,0")
    assert "leaves out pixels" in fails(*boot, "-m", "occlusion", "--stride", 20)
    assert "choose one of centres, cv2" in fails(*boot, "--placed", "middle")
    assert "did you mean features." in fails(*boot, "--cam-layer", "features.99")
    assert "not an image" in fails("attribute", broken, "--out", out, "--width", 0.1)
    assert "a picture is written as .png" in fails("attribute", "--garment", BOOT, "--out", tmp_path / "boot.gif")
    assert "there is no folder" in fails("attribute", "--garment", BOOT, "--out", tmp_path / "no" / "boot.png")
    (tmp_path / "folder.png").mkdir()
    assert "cannot be written" in fails("attribute", "--garment", BOOT, "--out", tmp_path / "folder.png")
    assert not out.exists()


# What is drawn


def test_colours_are_of_the_numbers():
    """0 leaves the picture grey; the end of the scale has the last colour; below 0 the others' colours."""
    pixels = np.full((2, 3, 3), 100, np.uint8)
    heat = np.array([[0.0, 1.0, -1.0], [0.25, 0.5, -0.5]])
    drawn = overlay(pixels, heat)
    assert tuple(drawn[0, 0]) == (150, 150, 150)
    assert tuple(drawn[0, 1]) == FOR[-1] and tuple(drawn[0, 2]) == AGAINST[-1]
    assert drawn[1, 0, 0] < drawn[1, 1, 0]
    assert drawn[1, 2, 2] > drawn[1, 2, 0]


def test_a_pixel_shows_its_largest_channel(rng):
    values = rng.standard_normal((3, 20, 20))
    one = shown("x", values, Saliency())
    order = np.abs(values).max(0)
    assert one.heat.min() >= 0 and one.heat.max() == 1
    assert one.scale == pytest.approx(np.quantile(order, 0.995))
    assert np.allclose(one.heat, np.minimum(order / one.scale, 1))
    signed = shown("x", np.repeat(values[:1], 3, 0), Occlusion())
    assert np.array_equal(np.sign(signed.heat), np.sign(values[0]))
    assert shown("x", values * 0, Saliency()).scale == 0


def test_a_sheet_of_nothing_says_so(rng):
    pixels = rng.integers(0, 256, (24, 24, 1), np.uint8)
    empty = shown("saliency", np.zeros((1, 24, 24)), Saliency())
    full = shown("saliency", np.ones((1, 24, 24)), Saliency())
    drawn = [np.asarray(sheet(pixels, [one], "t", "p")) for one in (empty, full)]
    assert drawn[0].shape == drawn[1].shape
    corner = GAP + 2 * LINE, 2 * GAP + SIDE  # of the map
    assert len(set(drawn[0][corner[0] + 100, corner[1] + 100])) == 1  # grey
    assert tuple(drawn[1][corner[0] + 100, corner[1] + 100]) == FOR[-1]
