"""`alexnet explain`: in words, in JSON, and what it says to a wrong question."""

import json

import numpy as np
import pytest
from command_line import fails, run

import alexnet_np as anp
from alexnet_np.data.garments import garments

SMALL = ("--weights", "random", "--width", "0.0625")


def test_in_words():
    shown = run("explain", "--layer", "features.3", "--at", "7,5,9", "--terms", 3, *SMALL).stdout
    assert "features.3[7,5,9] · Conv2d" in shown
    assert "rows 22–72, columns 54–104 of the 224×224 input: 51×51 pixels" in shown
    assert shown.count("[") == 4  # the number and its three largest terms
    assert "97 others" in shown
    for word in "bias", "sum of products", "in float64", "the network has", "apart":
        assert word in shown


def test_in_json_all_is_there():
    """Beside the network by itself: the carried one on a carried garment."""
    found = json.loads(
        run("explain", "--garment", 0, "--layer", "classifier.6", "--unit", 9, "--terms", 5, "--json").stdout
    )
    model = anp.alexnet("d2l", weights="FASHION_MNIST_V1", width=1 / 8).eval()
    (boot,) = [garment for garment in garments() if garment.number == 0]
    logits = model(anp.preprocess(boot.picture, preset="d2l")[None])[0]
    assert found["stored"] == logits[9] == logits.max()
    assert abs(found["value"] - found["stored"]) == found["difference"] <= found["rounding"]
    assert len(found["terms"]) == 5
    assert found["other_terms"] == 512 - 5
    parts = [term["value"] for term in found["terms"]] + [found["sum_of_other_terms"], found["bias"]]
    assert np.sum(parts) == pytest.approx(found["value"], rel=1e-12)
    assert found["receptive_field"] == {"top": 0, "bottom": 219, "left": 0, "right": 219}
    assert found["model"]["weights"] == "FASHION_MNIST_V1"


def test_all_terms():
    found = json.loads(run("explain", "--layer", "features.0", "--at", "0,7,9", "--terms", 0, *SMALL, "--json").stdout)
    assert len(found["terms"]) == 3 * 11 * 11
    assert found["other_terms"] == 0


@pytest.mark.parametrize(
    ("layer", "at", "words"),
    [
        ("features.2", "0,7,9", ("the largest of 9 pixels", "the largest\n")),
        ("features.1", "0,7,9", ("y = max(0, x)",)),
        ("avgpool", "0,3,3", ("the mean of 1 pixels",)),
        ("classifier.0", "77", ("dropout does nothing",)),
        ("softmax", "281", ("exp(x − largest)", "tabby", "denominator")),
    ],
)
def test_every_kind_of_layer(layer, at, words):
    which = "--at" if "," in at else "--unit"
    shown = run("explain", "--layer", layer, which, at, *SMALL).stdout.replace(" \n", "\n")
    for word in words:
        assert word in shown.replace("  ", "") if "\n" in word else word in shown


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("not a picture")
    assert "did you mean features.3" in fails("explain", "--layer", "feature.3", "--at", "0,0,0", *SMALL)
    assert "outside its shape 12x27x27" in fails("explain", "--layer", "features.3", "--at", "12,0,0", *SMALL)
    assert "--at MAP,ROW,COLUMN" in fails("explain", "--layer", "features.3", *SMALL)
    assert "got '1;2'" in fails("explain", "--layer", "features.3", "--at", "1;2", *SMALL)
    assert "not an image" in fails("explain", str(broken), "--unit", 3, *SMALL)
    assert "0 (ankle boot)" in fails("explain", "--garment", 5, "--unit", 3)
    assert "not both" in fails("explain", str(broken), "--garment", 0, "--unit", 3)
