"""A layer's weights as numbers and as a picture, beside the weights themselves."""

import numpy as np
import pytest
from command_line import fails, run, run_json
from PIL import Image

import alexnet_np as anp
from alexnet_np.study import filters


@pytest.fixture(scope="module")
def model():
    return anp.alexnet("torchvision", width=1 / 8, num_classes=5, seed=0)


def test_statistics_are_those_of_the_weights(model):
    weight = model.features[3].weight.data
    found = filters.statistics(model, "features.3")
    assert (found.type, found.shape) == ("Conv2d", weight.shape)
    for name, want in (
        ("mean", weight.mean()),
        ("std", weight.std()),
        ("least", weight.min()),
        ("largest", weight.max()),
    ):
        assert getattr(found, name) == pytest.approx(float(want), rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(found.norms, np.linalg.norm(weight.reshape(len(weight), -1), axis=1), rtol=1e-5)
    assert found.zeros == 0 and found.silent == []


def test_filters_that_say_nothing_are_named():
    model = anp.alexnet("torchvision", width=1 / 8, num_classes=5, seed=0)
    model.features[3].weight.data[[2, 5]] = 0
    model.features[3].weight.data[5, 0, 0, 0] = 1e-9
    found = filters.statistics(model, "features.3")
    assert found.silent == [2, 5] and found.zeros == pytest.approx(2 / len(found.norms), rel=0.01)
    model.classifier[6].weight.data[...] = 0
    assert filters.statistics(model, "classifier.6").silent == list(range(5))


def test_the_first_layers_colours_are_its_channels(rng):
    weight = rng.standard_normal((7, 3, 4, 5)).astype(np.float32)
    weight[1] = 0
    drawn = filters.colours(weight, None)
    columns = (drawn.shape[1] - 1) // 6
    for i, each in enumerate(weight):
        y, x = i // columns * 5 + 1, i % columns * 6 + 1
        want = 0.5 + each.transpose(1, 2, 0) / (2 * (abs(each).max() or 1))
        np.testing.assert_allclose(drawn[y : y + 4, x : x + 5], want, rtol=1e-5)
    blue_first = filters.colours(weight, anp.alexnet("caffenet", width=1 / 16, seed=0).described().preprocessing)
    np.testing.assert_array_equal(blue_first, np.where(drawn == 1, 1, drawn[..., ::-1]))


def test_a_row_a_filter_a_tile_a_channel(rng):
    weight = rng.standard_normal((60, 30, 3, 2)).astype(np.float32)
    drawn = filters.tiles(weight)
    assert drawn.shape == (filters.FILTERS * 4 + 1, filters.CHANNELS * 3 + 1)
    rows, columns = np.arange(48) * 60 // 48, np.arange(24) * 30 // 24
    for i, j in ((0, 0), (47, 23), (13, 7)):
        np.testing.assert_array_equal(drawn[i * 4 + 1 : i * 4 + 4, j * 3 + 1 : j * 3 + 3], weight[rows[i], columns[j]])
    assert np.isnan(drawn[0]).all() and np.isnan(drawn[:, 0]).all()


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        ("features.0", "all 8 filters"),
        ("features.3", "all 24 filters (rows) of all 8 channels (columns)"),
        ("features.6", "all 48 filters (rows) of all 24 channels"),
        ("classifier.1", "256 of 512 units (rows) of 512 of 1152 inputs (columns)"),
    ],
)
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_command_draws_any_layer(tmp_path, layer, shown, ending):
    out = tmp_path / f"f.{ending}"
    said = run("filters", "-l", layer, "-o", out, "--width", "0.125").stdout
    assert shown in said and "norms" in said
    if ending == "png":
        with Image.open(out) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 50
    else:
        assert out.read_text().startswith("<?xml")


def test_json_and_mistakes():
    found = run_json("filters", "-w", "FASHION_MNIST_V1", "-l", "classifier.6")
    assert found["shape"] == [10, 512] and len(found["norms"]) == 10 and found["out"] is None
    assert "features.1 is a ReLU and has no weights; choose one of features.0" in fails("filters", "-l", "features.1")
    assert "did you mean features." in fails("filters", "-l", "feature.3")
    assert "x.txt" in fails("filters", "-o", "x.txt")
