"""Fitting weights to a model, looking into files, writing them in another format."""

from __future__ import annotations

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np.errors import DtypeError, MissingPackageError, WeightsError
from alexnet_np.weights import fitting
from alexnet_np.weights.formats import npz_file

EXPECTED = {"features.0.weight": (2, 3), "features.0.bias": (2,)}


def given(**changes):
    arrays = {"features.0.weight": np.ones((2, 3)), "features.0.bias": np.ones(2)}
    for name, array in changes.items():
        name = name.replace("__", ".")
        if array is None:
            del arrays[name]
        else:
            arrays[name] = array
    return arrays


def test_match():
    assert anp.weights.match(given(), EXPECTED) == ([], [])
    changed = given(features__0__bias=None, head=np.ones(1))
    assert anp.weights.match(changed, EXPECTED, strict=False) == (["features.0.bias"], ["head"])


def test_match_names_everything_at_once():
    changed = given(features__0__weight=np.ones((2, 4)), features__0__bias=None, head=np.ones(1), tail=np.ones(1))
    with pytest.raises(WeightsError) as caught:
        anp.weights.match(changed, EXPECTED)
    assert str(caught.value) == (
        "the weights do not fit the model; missing: 'features.0.bias'; unexpected: 'head', 'tail'; "
        "wrong shape: features.0.weight is (2, 4), not (2, 3)"
    )


def test_wrong_shapes_pass_in_no_mode():
    with pytest.raises(WeightsError, match=r"wrong shape: features.0.bias is \(3,\), not \(2,\)"):
        anp.weights.match(given(features__0__bias=np.ones(3)), EXPECTED, strict=False)


def test_match_shortens_what_a_stranger_named():
    with pytest.raises(WeightsError) as caught:
        anp.weights.match({f"{i}\n" + "x" * 1000: np.ones(1) for i in range(1000)}, EXPECTED)
    message = str(caught.value)
    assert "\n" not in message and "and 980 more" in message and len(message) < 3000


def test_match_takes_tensors_of_torch():
    torch = pytest.importorskip("torch")
    assert anp.weights.match({"w": torch.ones(2, 3)}, {"w": (2, 3)}) == ([], [])


def test_check_finite():
    anp.weights.check_finite(given(features__0__bias=np.array([1, 2])))
    bad = given(features__0__bias=np.array([np.nan, np.inf]), head=np.array([-np.inf], np.float32))
    with pytest.raises(WeightsError) as caught:
        anp.weights.check_finite(bad)
    message = str(caught.value)
    assert "'features.0.bias' (1 NaN, 1 infinite of 2)" in message and "'head' (0 NaN, 1 infinite of 1)" in message
    with pytest.raises(WeightsError, match="and 3 more arrays"):
        anp.weights.check_finite({str(i): np.array([np.nan]) for i in range(8)})


FORMATS = [".npz", ".safetensors"]


@pytest.mark.parametrize("ending", FORMATS)
def test_write_then_read(tmp_path, ending):
    rng = np.random.default_rng(0)
    arrays = {
        "features.0.weight": rng.standard_normal((4, 3, 2, 2), dtype=np.float32),
        "transposed": rng.standard_normal((5, 3)).T,
        "strided": np.arange(20, dtype=np.int64)[::3],
        "half": np.array([1.5], np.float16),
        "big": np.arange(3, dtype=">f4"),
        "scalar": np.array(2.0),
        "empty": np.empty((0, 3), np.float32),
        "flags": np.array([True, False]),
        "file": np.ones(2, np.float32),  # a name that numpy.savez cannot write
        "allow_pickle": np.ones(1, np.float32),
    }
    anp.weights.write(tmp_path / f"w{ending}", arrays)
    got = anp.weights.read(tmp_path / f"w{ending}")
    assert set(got) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
        assert got[name].dtype == array.dtype.newbyteorder("=") and got[name].shape == array.shape
    assert [path.name for path in tmp_path.iterdir()] == [f"w{ending}"]


def test_numpy_and_safetensors_read_what_is_written(tmp_path):
    numpy_io = pytest.importorskip("safetensors.numpy")
    anp.weights.write(tmp_path / "w.npz", given())
    anp.weights.write(tmp_path / "w.safetensors", given())
    loaded = np.load(tmp_path / "w.npz")
    for other in (dict(loaded), numpy_io.load_file(tmp_path / "w.safetensors")):
        for name, array in given().items():
            np.testing.assert_array_equal(other[name], array)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.npz"
    anp.weights.write(path, given())
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(npz_file.npy, "write_array_header_1_0", full)
    with pytest.raises(WeightsError, match="w.npz: cannot be written: No space left on device"):
        anp.weights.write(path, {"w": np.ones(3)})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"w.bin: weights are written as .safetensors, .npz, .pth"):
        anp.weights.write(tmp_path / "w.bin", given())
    with pytest.raises(WeightsError, match=r"w.onnx: .onnx holds a whole network.*give the model"):
        anp.weights.write(tmp_path / "w.onnx", given())
    with pytest.raises(WeightsError, match="a model or a mapping"):
        anp.weights.write(tmp_path / "w.npz", [np.ones(3)])
    with pytest.raises(WeightsError, match="'w' has dtype"):
        anp.weights.write(tmp_path / "w.npz", {"w": np.array([{}])})
    for ending in FORMATS:
        with pytest.raises(WeightsError, match="cannot be written"):
            anp.weights.write(tmp_path / "nowhere" / f"w{ending}", given())
        with pytest.raises(WeightsError, match="cannot be written"):
            (tmp_path / f"folder{ending}").mkdir()
            anp.weights.write(tmp_path / f"folder{ending}", given())
    with pytest.raises(WeightsError, match="'w' has dtype .*, which .safetensors does not know"):
        anp.weights.write(tmp_path / "w.safetensors", {"w": np.ones(2, np.longdouble)})
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    with pytest.raises(MissingPackageError, match="pip install safetensors"):
        anp.weights.write(tmp_path / "w.safetensors", given())


def test_inspect(tmp_path):
    anp.weights.write(tmp_path / "w.npz", given())
    contents = anp.weights.inspect(tmp_path / "w.npz")
    assert contents.rows[0] == ("features.0.weight", (2, 3), "float64", 6)
    assert contents.parameters == 8


def test_a_scalar_has_a_shape_and_a_list_is_no_array():
    assert fitting.match({"b": np.float64(1)}, {"b": ()}) == ([], [])
    with pytest.raises(DtypeError, match="w must be an array, got list"):
        fitting.match({"w": [[1, 2, 3]]}, {"w": (1, 3)})


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pth", ".onnx", ".caffemodel"])
def test_others_may_read_what_they_may_read_of_any_file(tmp_path, ending):
    pytest.importorskip("onnx")
    (tmp_path / "plain").touch()
    anp.weights.write(tmp_path / f"w{ending}", anp.alexnet("lenet5", seed=0))
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) > 1 and set(modes.values()) == {modes["plain"]}, modes
