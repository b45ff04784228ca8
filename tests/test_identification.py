"""Which network a file is, and by which evidence: of every format, as the program that writes it would have it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import cuda_convnet_files as cc  # noqa: E402
import weight_formats as files  # noqa: E402
from command_line import fails, run, run_json  # noqa: E402

import alexnet_np as anp  # noqa: E402
from alexnet_np import identification  # noqa: E402
from alexnet_np.errors import WeightsError  # noqa: E402
from alexnet_np.identity import identify  # noqa: E402
from alexnet_np.presets import PRESETS  # noqa: E402
from alexnet_np.weights import transforms  # noqa: E402
from alexnet_np.weights.comparing import differences  # noqa: E402
from alexnet_np.weights.steps import step  # noqa: E402

WIDTH = 1 / 16
ALIKE = ("paper", "krizhevsky145", "bvlc", "caffenet", "onnx")  # of the same shapes


@pytest.fixture(scope="module")
def state():
    return anp.alexnet("bvlc", width=WIDTH, num_classes=10, seed=3).state_dict()


def cuda_convnet(path, state):
    path.write_bytes(cc.cuda_convnet(state))
    return path


def caffenet(path, state):
    return files.caffemodel(path, state, 2, order=files.CAFFENET)


# how it is written -> what it is, and the words of the evidence
FILES = [
    (files.caffemodel, "bvlc", "not caffenet: behind layer 1 it has ReLU, norm, pool, not ReLU, pool, norm"),
    (caffenet, "caffenet", "not bvlc: behind layer 1 it has ReLU, pool, norm, not ReLU, norm, pool"),
    (files.onnx_file, "onnx", "not bvlc: layer 1: maps of 26x26, not 27x27, from 54x54"),
    (files.matconvnet, "bvlc", "input: 3x227x227: bvlc"),
    (cuda_convnet, "krizhevsky145", "not paper: behind layer 1 it has norm, ReLU, pool, not ReLU, norm, pool"),
    (files.guerzhoy, "bvlc", "structure: .npy of lists of two, as Guerzhoy's bvlc_alexnet.npy: bvlc"),
    (files.caffe_tensorflow, ["bvlc", "caffenet"], "names: conv1 to fc8 are Caffe's: bvlc or caffenet"),
    (files.hdf5, ["bvlc", "caffenet"], "nothing in it tells bvlc and caffenet apart"),
]


@pytest.mark.parametrize(("write", "expected", "words"), FILES, ids=[row[0].__name__ for row in FILES])
def test_which_network_a_file_is_and_by_which_evidence(tmp_path, state, write, expected, words):
    path = write(tmp_path / "caffenet-paper-bvlc", state)  # what it is called says nothing
    found = run_json("weights", "inspect", path)
    assert any(line.startswith(words) for line in found["why"]), found["why"]
    if isinstance(expected, list):
        assert found["preset"] is None and found["candidates"] == expected
        with pytest.raises(WeightsError, match="nothing in it tells bvlc and caffenet apart"):
            anp.alexnet(None, weights=path)
    else:
        assert found["preset"] == expected and found["candidates"] == [expected]
        model = anp.alexnet(None, weights=path)
        assert (model.preset, model.num_classes, model.in_channels) == (expected, 10, 3)
        assert found["network"]["width"] == WIDTH
        assert found["input"]["mode"] == PRESETS[expected].preprocessing.mode
    said = run("weights", "inspect", path).stdout
    assert all(" ".join(line.split()) in " ".join(said.split()) for line in found["why"])


@pytest.mark.parametrize("write", [row[0] for row in FILES if isinstance(row[1], str) and row[0] is not files.guerzhoy])
@pytest.mark.parametrize("preset", ALIKE)
def test_the_wrong_preset_is_refused(tmp_path, state, write, preset):
    path, own = write(tmp_path / "w", state), next(row[1] for row in FILES if row[0] is write)
    if preset == own:
        anp.alexnet(preset, weights=path, width=WIDTH, num_classes=10)
        return
    for width in (WIDTH, None):
        with pytest.raises(
            WeightsError,
            match=f"not of {preset}, but of {own}|another network than {preset}, of the|of {own}, .*, not of {preset}:",
        ):
            anp.alexnet(preset, weights=path, width=width, num_classes=10)
    assert len(anp.weights.read(path)) == 16  # the numbers alone are given


def test_an_error_says_whose_weights_they_are(tmp_path, state):
    """Not which of sixteen arrays have other shapes."""
    caffes = files.caffemodel(tmp_path / "c", state)
    with pytest.raises(WeightsError, match=r"c: weights of bvlc, width 0\.0625, .*, not of width 1: leave the width o"):
        anp.alexnet("bvlc", weights=caffes)
    with pytest.raises(
        WeightsError, match=r"c: weights of bvlc, width 0\.0625, .*, not of torchvision: leave the pres"
    ):
        anp.alexnet("torchvision", weights=caffes, num_classes=10, in_channels=3)
    known_by_names = files.hdf5(tmp_path / "h", state)
    assert anp.alexnet("caffenet", weights=known_by_names, width=WIDTH).num_classes == 10
    for width in (WIDTH, None):
        with pytest.raises(WeightsError, match="h: weights of bvlc, .* or caffenet, .*, not of krizhevsky145"):
            anp.alexnet("krizhevsky145", weights=known_by_names, width=width)
    lacking = {name: array for name, array in state.items() if name != "features.0.bias"}
    with pytest.raises(WeightsError, match="the weights do not fit the model; missing: 'features.0.bias'$"):
        anp.alexnet("bvlc", weights=lacking, width=WIDTH, num_classes=10)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("ending", [".pth", ".npz", ".safetensors", ".onnx", ".caffemodel"])
def test_what_was_written_here_is_known_again(tmp_path, preset, ending):
    model = anp.alexnet(preset, width=1 / 32, num_classes=5, seed=0)
    path = tmp_path / f"w{ending}"
    anp.weights.write(path, model)
    said = identify(path)
    assert said.preset == preset and (said.num_classes, said.width) == (5, 1 / 32)
    again = anp.alexnet(None, weights=path).state_dict()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(again[name], array)


def test_dense_weights_of_a_grouped_network_load_into_it(tmp_path, state):
    model = anp.alexnet("bvlc", width=WIDTH, num_classes=10, seed=3)
    dense = transforms.without_groups(model.as_network()).arrays
    anp.weights.write(tmp_path / "w.npz", dense)
    found = run_json("weights", "inspect", tmp_path / "w.npz")
    assert found["preset"] is None and "without groups paper, bvlc, caffenet or onnx would" in found["why"][-1]
    said = run("weights", "inspect", tmp_path / "w.npz").stdout
    assert "Network: paper, bvlc, caffenet or onnx: name it when you load it" in said
    for width in (WIDTH, None):
        again = anp.alexnet("bvlc", weights=tmp_path / "w.npz", width=width, num_classes=10).state_dict()
        for name, array in state.items():
            np.testing.assert_array_equal(again[name], array)


def test_layers_that_no_preset_has_are_said(tmp_path, state):
    order = [name for name in files.BVLC if not name.startswith("norm")]
    path = files.caffemodel(tmp_path / "w", state, 1, order=order)
    found = run_json("weights", "inspect", path)
    assert found["preset"] is None and found["candidates"] == [] and set(found["excluded"]) == set(ALIKE)
    assert "Network: none that is known: its layers are those of no preset" in run("weights", "inspect", path).stdout
    assert "of no known network, at any width" in fails("summary", "--weights", path)


def test_the_constants_of_a_norm_in_every_dialect(tmp_path, state):
    found = run_json("weights", "inspect", files.caffemodel(tmp_path / "w", state))["lrn"]
    assert [(norm["layers"], norm["convention"]) for norm in found] == [(["norm1", "norm2"], "caffe")]
    alphas = {dialect: said["alpha"] for dialect, said in found[0]["dialects"].items()}
    undivided = ("paper", "matconvnet", "tensorflow")
    assert alphas == {dialect: pytest.approx(2e-5 if dialect in undivided else 1e-4) for dialect in alphas}
    assert len(alphas) == 8 and all(said["k"] == 1 for said in found[0]["dialects"].values())
    said = run("weights", "inspect", tmp_path / "w").stdout
    assert "caffe (its own)" in said and "paper, matconvnet, tensorflow" in said


# Two rows of steps, and in what they differ.

CONV = step("conv", "c", stride=(4, 4), padding=((0, 0), (0, 0)), groups=1)
POOL = step("max_pool", "p", kernel=(3, 3), stride=(2, 2), padding=((0, 0), (0, 0)), ceil=True)
NORM = step("lrn", "n", size=5, alpha=1e-4, beta=0.75, k=2.0, convention="torch", region="across", groups=1)
RELU, DENSE = step("relu", "r"), step("linear", "d")


def other(each, **settings):
    return each._replace(settings={**each.settings, **settings})


def said(have, want, side=227):
    return differences([*have, DENSE], [*want, DENSE], [(11, 11)], side)


def test_what_computes_the_same_is_no_difference():
    assert said([CONV, RELU, POOL], [CONV, POOL, RELU]) == []
    assert said([CONV, NORM], [CONV, other(NORM, alpha=2e-5, convention="paper")]) == []
    assert said([CONV, POOL], [CONV, other(POOL, ceil=False)]) == []  # 55 leaves nothing over
    assert said([other(CONV, padding=((0, 1), (0, 1)))], [CONV]) == []  # no window reaches it
    assert said([CONV, step("flatten")], [CONV, step("dropout", p=0.5, scaling="training")]) == []
    within = {"region": "within", "convention": "caffe", "k": 1.0}
    assert said([CONV, other(NORM, **within, groups=2)], [CONV, other(NORM, **within)]) == []


@pytest.mark.parametrize(
    ("have", "words"),
    [
        ([CONV, NORM, RELU], "behind layer 1 it has norm, ReLU, not ReLU, norm"),
        ([CONV, RELU, other(NORM, k=1.0)], "layer 1: a norm with k 1, not 2"),
        ([CONV, RELU, other(NORM, alpha=5e-4)], "layer 1: a norm with scale 0.0001, not 2e-05"),
        ([CONV, RELU, other(NORM, groups=2)], "layer 1: a norm over each of 2 towers, not over all maps"),
        ([CONV, RELU, other(NORM, size=3)], "layer 1: a norm across maps that reaches 1 below and 1 above, not across"),
        ([other(CONV, stride=(2, 2)), RELU, NORM], "layer 1: stride 2x2, not 4x4"),
        ([other(CONV, padding=((2, 2), (2, 2))), RELU, NORM], r"layer 1: padding \(\(2, 2\), \(2, 2\)\), not"),
        ([other(CONV, padding=((0, 4), (0, 4))), RELU, NORM], "layer 1: maps of 56x56, not 55x55, from 227x227"),
        ([CONV, RELU, NORM, DENSE], "it has 3 layers of weights, not 2"),
    ],
)
def test_what_differs_is_said(have, words):
    import re

    assert any(re.match(words, line) for line in said(have, [CONV, RELU, NORM])), said(have, [CONV, RELU, NORM])


def test_sizes_that_the_shapes_rule_out_are_not_tried(monkeypatch):
    """Looking at every name for each size takes minutes where a file has thousands of arrays."""

    def never(*arguments):
        raise AssertionError("the names were looked at")

    monkeypatch.setattr(identification, "fit", never)
    shapes = [*((i + 1, 3, 11, 11) for i in range(20)), *((i + 1, i % 37 + 1) for i in range(300))]
    arrays = {f"{i}.weight": np.broadcast_to(np.float32(0), shape) for i, shape in enumerate(shapes)}
    with pytest.raises(WeightsError, match="of no known network"):
        identify(arrays)
    with pytest.raises(AssertionError, match="the names were looked at"):
        identify(anp.alexnet("torchvision", width=WIDTH).state_dict())
