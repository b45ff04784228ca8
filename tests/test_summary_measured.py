"""What the summary says of receptive fields and memory, beside exact fields and real arrays; its screens."""

import numpy as np
import pytest
from command_line import fails, run, run_json
from small_networks import narrow

import alexnet_np as anp
from alexnet_np.cli import show
from alexnet_np.presets import PRESETS
from alexnet_np.study.memory import measured
from alexnet_np.study.receptive_field import Sight, receptive_fields, sights

# Of torchvision's conv 1, pool 1, conv 2 ... pool 5 at 224 pixels: size, stride, start.
BOOK = [(11, 4, -2), (19, 8, -2), (51, 8, -18), (67, 16, -18), (99, 16, -34), (131, 16, -50), (163, 16, -66)]
BOOK += [(195, 32, -66)]
PYTHON = 4096  # bytes: what Python itself takes between two looks


@pytest.fixture(scope="module")
def model():
    return narrow()


def test_receptive_fields_are_those_of_the_books(model):
    found = [row.sees for row in anp.summary(model).layers if row.type in ("Conv2d", "MaxPool2d")]
    assert found == [Sight((size,) * 2, (stride,) * 2, (start,) * 2) for size, stride, start in BOOK]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [(224, 224), (180, 149)])
def test_away_from_the_border_they_are_the_exact_ones(preset, size):
    """Where a field lies within the picture, it is what walking back layer by layer finds."""
    model, checked = narrow(preset), 0
    fields = receptive_fields(model, size)
    for name, sight in sights(model, size).items():
        exact = fields[name]
        if sight is None:
            assert len(exact.shape) == 1 or name == "avgpool"
            continue
        for axis, spans in enumerate((exact.rows, exact.columns)):
            for i, span in enumerate(spans):
                start = sight.start[axis] + i * sight.stride[axis]
                if start >= 0 and start + sight.size[axis] <= size[axis]:
                    assert span == (start, start + sight.size[axis]), (name, axis, i)
                    checked += 1
    assert checked > 100


def test_memory_is_that_of_the_arrays(model):
    """Activations are y and what is kept beside x; gradients dx and those of the parameters, each to the byte."""
    shape = (2, 3, 67, 67)
    kept, given = {}, {}
    for name, layer in model.leaves():
        handle = layer.register_forward_hook(lambda layer, x, y, name=name: kept.update({name: (x, y)}))
        given[name] = handle
    model.train()(np.zeros(shape, "float32"))
    for handle in given.values():
        handle.remove()
    found = {row.name: row for row in anp.summary(model, shape, memory=True).layers}
    for name in kept:
        (x, y), row = kept[name], found[name]
        if row.type == "Flatten":
            assert row.memory[:2] == (0, 0)
            continue
        more = {"Dropout": y.size, "MaxPool2d": y.size}.get(row.type, 0)  # a mask's or a switch's byte for each
        assert row.memory.activation == y.nbytes + more, name
        assert row.memory.gradient == x.nbytes + 4 * row.parameters, name
        if row.type == "ReLU":
            assert row.memory.workspace == pytest.approx(y.size, abs=PYTHON)  # one bool each, in backward
        if row.type == "Conv2d":
            assert row.memory.workspace > x.nbytes  # columns
    total = anp.summary(model, shape, memory=True).memory
    assert total.activation == sum(row.memory.activation for row in found.values())


def test_frozen_parameters_have_no_gradient():
    model = narrow()
    model.freeze("features")
    found = measured(model, (1, 3, 67, 67))
    assert found["features.3"].gradient == 4 * 4 * 7 * 7  # dx alone: C, H and W of its input, in 4 bytes


def test_the_model_stays_as_it_was():
    model, seen = narrow().eval(), []
    model.features[0].register_forward_hook(lambda *given: seen.append(given))
    with anp.no_grad():
        assert anp.summary(model, (1, 3, 67, 67), memory=True).memory.gradient > 4 * model.num_parameters()
    assert not seen and not model.training and all(p.grad is None for p in model.parameters())
    with pytest.raises(anp.AlexNetError, match="forward first"):
        model.backward(np.ones((1, 1000), "float32"))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_measured(preset):
    made = anp.summary(narrow(preset, dtype="float64"), memory=True)
    assert all(row.memory is not None for row in made.layers)
    assert made.memory.gradient >= 8 * made.parameters
    assert len({len(line) for line in str(made).splitlines()}) == 1
    assert "workspace" in made._repr_html_()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("more", [[], ["--memory"], ["--compare", "paper"], ["--compare", "paper", "--memory"]])
def test_columns_go_by_importance_and_no_number_is_cut(width, more, monkeypatch):
    monkeypatch.setattr(show, "WIDTH", width)
    said = run("summary", "--width", 0.25, *more).stdout
    lines = said.splitlines()
    assert max(map(len, lines)) <= width and "…" not in said
    for kept in ("features.12", "1×64×6×6"):
        assert kept in said
    if width == 120 and not more:
        assert lines[0].split() == ["layer", "type", "output", "parameters", "MACs", "sees", "stride", "start"]
    if width == 60 and "--compare" not in more:
        assert "parameters" in lines[0] and "2,360,320" in said and "stride" not in lines[0]


def test_json_has_every_column():
    found = run_json("summary", "--width", 0.1, "--memory", "--size", 97)
    assert found["layers"][3]["receptive_field"] == {"size": [51, 51], "stride": [8, 8], "start": [-18, -18]}
    assert found["layers"][0]["memory"].keys() == {"activation", "gradient", "workspace"}
    assert found["memory"]["activation"] == sum(layer["memory"]["activation"] for layer in found["layers"])
    assert run_json("summary", "--width", 0.1)["memory"] is None


def test_two_networks_side_by_side():
    found = run_json("summary", "--width", 0.25, "--compare", "paper")
    assert (found["a"]["preset"], found["b"]["preset"]) == ("torchvision", "paper")
    assert ["features.3", "features.4"] in found["pairs"] and [None, "features.2"] in found["pairs"]
    said = run("summary", "--width", 0.25, "--compare", "paper").stdout
    assert f"{found['a']['parameters']:,}" in said and f"{found['b']['macs']:,}" in said


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    assert "neither a run's folder nor a file" in fails("summary", "--width", 0.1, "--compare", "papper")
    assert "the smallest input is 63x63" in fails("summary", "--width", 0.1, "--memory", "--size", 20)
    with pytest.raises(anp.ArgumentError, match="memory must be True or False"):
        anp.summary(narrow(), memory="yes")
