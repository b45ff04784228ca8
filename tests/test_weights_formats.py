"""Weights of other programs, written by their own libraries: the arrays, the names, and the layers in the file."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zipfile

import numpy as np
import pytest

pytest.importorskip("torch")

import cuda_convnet_files as cc  # noqa: E402
import weight_formats as files  # noqa: E402

import alexnet_np as anp  # noqa: E402
from alexnet_np.errors import MissingPackageError, WeightsError  # noqa: E402
from alexnet_np.weights.fitting import Wanted, fit  # noqa: E402
from alexnet_np.weights.leaves import read_all  # noqa: E402
from alexnet_np.weights.reading import opened  # noqa: E402

WIDTH = 1 / 16
KINDS = {"conv": "conv", "relu": "relu", "norm": "lrn", "pool": "max_pool", "fc": "linear", "drop": "dropout"}
KINDS |= {"prob": "softmax"}
ACROSS = {"size": 5, "beta": 0.75, "region": "across"}


@pytest.fixture(scope="module")
def state():
    return anp.alexnet("paper", width=WIDTH, num_classes=10, seed=3).state_dict()


def load(path, preset="bvlc"):
    return anp.alexnet(preset, weights=path, width=WIDTH, num_classes=10).state_dict()


def same(got, want):
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].shape == array.shape and got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def steps(path):
    with opened(path) as contents:
        return [(each.kind, each.name) for each in contents.steps], contents


@pytest.mark.parametrize("version", [0, 1, 2])
def test_caffemodel_of_every_generation(tmp_path, state, version):
    path = files.caffemodel(tmp_path / "w.caffemodel", state, version)
    same(anp.weights.read(path), files.caffe_names(state))
    same(load(path), state)
    found, contents = steps(path)
    assert found == [(KINDS[name.rstrip("0123456789")], name) for name in files.BVLC]
    by_name = {each.name: each.settings for each in contents.steps}
    assert by_name["norm1"] == ACROSS | {"alpha": 1e-4, "k": 1.0, "convention": "caffe", "groups": 1}
    assert by_name["conv1"] == {"stride": (4, 4), "padding": ((0, 0), (0, 0)), "groups": 1}
    assert by_name["conv2"] == {"stride": (1, 1), "padding": ((2, 2), (2, 2)), "groups": 2}
    assert by_name["pool1"] == {"kernel": (3, 3), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "ceil": True}
    assert contents.metadata == {"name": "AlexNet"} and f"V{version}" in contents.format


def test_the_order_in_a_caffemodel_tells_caffenet(tmp_path, state):
    found, _ = steps(files.caffemodel(tmp_path / "w.caffemodel", state, order=files.CAFFENET))
    assert [name for _, name in found[:4]] == ["conv1", "relu1", "pool1", "norm1"]


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("version", [1, 2])
def test_caffemodel_of_doubles_and_of_halves(tmp_path, state, version, old):
    double = {name: array.astype(np.float64) + 1e-12 for name, array in state.items()}
    path = files.caffemodel(tmp_path / "double", double, version, numbers="double_data", old=old)
    same(anp.weights.read(path), files.caffe_names(double))  # doubles stay doubles
    half = {name: array.astype(np.float16) for name, array in state.items()}
    path = files.caffemodel(tmp_path / "half", half, version, numbers="float16", old=old)
    same(anp.weights.read(path), files.caffe_names(half))
    same(load(path), {name: array.astype(np.float32) for name, array in half.items()})


def test_padding_layers_of_2013(tmp_path):
    net = files.caffe_messages()["NetParameter"]()
    for name, kind, pad in (("pad2", "padding", 2), ("conv2", "conv", 0)):
        layer = net.layers.add().layer
        layer.name, layer.type, layer.pad, layer.kernelsize = name, kind, pad, 5
    blob = net.layers[1].layer.blobs.add(num=1, channels=1, height=5, width=5)
    blob.data.extend(range(25))
    (tmp_path / "w").write_bytes(net.SerializeToString())
    _, contents = steps(tmp_path / "w")
    assert [each.settings["padding"] for each in contents.steps] == [((2, 2), (2, 2))]


def test_dense_weights_that_caffe_keeps_transposed(tmp_path):
    net = files.caffe_messages()["NetParameter"](name="n")
    layer = net.layer.add(name="fc", type="InnerProduct")
    layer.inner_product_param.transpose = True
    blob = layer.blobs.add()
    blob.shape.dim.extend([3, 2])
    blob.data.extend(range(6))
    (tmp_path / "w").write_bytes(net.SerializeToString())
    np.testing.assert_array_equal(anp.weights.read(tmp_path / "w")["fc.weight"], np.arange(6.0).reshape(3, 2).T)


def test_opencv_reads_the_same_numbers(tmp_path, state):
    """An independent reader of Caffe's files, on the file that the tests write."""
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("this OpenCV has no reader for Caffe's files")
    path = files.caffemodel(tmp_path / "w.caffemodel", state, 1)
    conv = "convolution_param { num_output: 6 kernel_size: 11 stride: 4 }"
    prototxt = ['name: "n" input: "data"', *(f"input_dim: {n}" for n in (1, 3, 227, 227))]
    prototxt.append(f'layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1" {conv} }}')
    (tmp_path / "w.prototxt").write_text("\n".join(prototxt))
    net = cv2.dnn.readNetFromCaffe(str(tmp_path / "w.prototxt"), str(path))
    np.testing.assert_array_equal(net.getParam("conv1", 0), anp.weights.read(path)["conv1.weight"])


@pytest.mark.parametrize("write", [files.guerzhoy, files.caffe_tensorflow])
def test_npy_of_caffe_tensorflow(tmp_path, state, write):
    path = write(tmp_path / "w.npy", state)
    np.load(path, allow_pickle=True, encoding="latin1").item()  # NumPy takes it for a file of its own
    same(anp.weights.read(path), files.caffe_names(state))
    same(load(path), state)
    assert all(array.flags.writeable for array in anp.weights.read(path).values())


def test_npy_of_dicts_with_torchs_names(tmp_path, state):
    np.save(tmp_path / "w.npy", {"state_dict": state, "epoch": 3}, allow_pickle=True)
    same(anp.weights.read(tmp_path / "w.npy"), state)


@pytest.mark.parametrize("old, packed", [(False, False), (True, False), (False, True)])
def test_mat_of_matconvnet(tmp_path, state, old, packed):
    path = files.matconvnet(tmp_path / "w.mat", state, old, packed)
    read = anp.weights.read(path)
    np.testing.assert_array_equal(read["conv1.weight"][:, ::-1], state["features.0.weight"])  # which takes RGB
    assert read["fc6.weight"].shape == (256, 16, 6, 6)
    with opened(path) as contents:
        assert contents.channels == "RGB" and contents.format == ".mat of MatConvNet"
        shapes = {name: array.shape for name, array in state.items()}
        found = fit(contents, Wanted(shapes, "BGR"))
        assert found.changed == ["features.0.weight: channels from RGB to BGR"]
        same(read_all(found.leaves), state)
        lrn = next(each for each in contents.steps if each.kind == "lrn")
        assert lrn.settings == ACROSS | {"alpha": 2e-5, "k": 1.0, "convention": "matconvnet", "groups": 1}
        kinds = [each.kind for each in contents.steps]
        assert kinds.count("conv") == 5 and kinds.count("linear") == 3
        assert [each.settings["groups"] for each in contents.steps if each.kind == "conv"] == [1, 2, 1, 2, 2]


def test_mat_of_other_things(tmp_path):
    import scipy.io

    scipy.io.savemat(tmp_path / "w.mat", {"w": np.ones((3, 4)), "note": "text", "cell": np.array([{}], object)})
    assert list(anp.weights.read(tmp_path / "w.mat")) == ["w"]
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
    with pytest.raises(WeightsError, match="'-v7'"):
        anp.weights.read(tmp_path / "new.mat")


def test_hdf5_snapshots_of_caffe(tmp_path, state):
    path = files.hdf5(tmp_path / "w.caffemodel.h5", state)
    got = anp.weights.read(path)
    same({name: got[name] for name in files.caffe_names(state)}, files.caffe_names(state))
    assert len(got) == 16
    same(load(path), state)
    with opened(path) as contents:
        assert contents.format == "HDF5 snapshot of Caffe"


def test_hdf5_of_any_layout(tmp_path):
    import h5py

    want = {
        "plain": np.arange(6.0).reshape(2, 3),
        "big": np.arange(4, dtype=">f4"),
        "packed": np.arange(5000, dtype="f4"),
    }
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for name in ("plain", "big"):
            file[f"group/{name}"] = want[name]
        file.create_dataset("group/packed", data=want["packed"], chunks=(100,), compression="gzip")
        file["group/text"] = "a note"
        file["link"] = h5py.ExternalLink("/etc/passwd", "/")
    got = anp.weights.read(tmp_path / "w.h5")
    assert set(got) == set(want)
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype.isnative and got[name].flags.writeable


@pytest.mark.parametrize("as_list", [False, True])
def test_checkpoints_of_cuda_convnet(tmp_path, state, as_list):
    (tmp_path / "91.300").write_bytes(cc.cuda_convnet(state, as_list))
    got = anp.weights.read(tmp_path / "91.300")
    names = dict(
        zip(files.LAYERS, ["conv1", "conv2", "conv3", "conv4", "conv5", "fc2048", "fc2048b", "fc1000"], strict=True)
    )
    want = {
        f"{names[name.split('.')[0]]}.{name.split('.')[1]}": array for name, array in files.caffe_names(state).items()
    }
    assert set(got) == set(want)
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
    carried = dict(state)  # their dropout halves in testing, ours doubles in training
    for name in ("classifier.3.weight", "classifier.6.weight"):
        carried[name] = state[name] * np.float32(0.5)
    loaded = load(tmp_path / "91.300", "krizhevsky145")
    for array, wanted in zip(loaded.values(), carried.values(), strict=True):
        np.testing.assert_array_equal(array, wanted)
    with pytest.raises(WeightsError, match="weights not of bvlc, but of krizhevsky145: behind layer 1 it has "):
        load(tmp_path / "91.300")


def test_the_layers_in_a_checkpoint_of_cuda_convnet(tmp_path, state):
    (tmp_path / "91.300").write_bytes(cc.cuda_convnet(state))
    found, contents = steps(tmp_path / "91.300")
    assert [kind for kind, _ in found] == [
        *["conv", "lrn", "max_pool", "relu", "conv", "relu", "lrn", "lrn", "max_pool", "conv", "relu", "conv", "relu"],
        *["conv", "max_pool", "relu", "linear", "relu", "dropout", "linear", "relu", "dropout", "linear"],
    ]
    across, _, within = (each.settings for each in contents.steps if each.kind == "lrn")
    assert across == ACROSS | {"alpha": 1e-4, "k": 2.0, "convention": "krizhevsky", "groups": 2}
    assert within["region"] == "within" and within["alpha"] == 1e-3 and within["k"] == 1.0
    convs = [each.settings for each in contents.steps if each.kind == "conv"]
    assert convs[0] == {"stride": (4, 4), "padding": ((0, 3), (0, 3)), "groups": 1}  # the window over the edge
    assert [conv["groups"] for conv in convs] == [1, 2, 1, 2, 2]
    drop = next(each for each in contents.steps if each.kind == "dropout")
    assert drop.settings == {"p": 0.5, "scaling": "testing"} and contents.channels == "RGB"


def test_folders_and_packings_of_cuda_convnet(tmp_path, state):
    folder = tmp_path / "ConvNet__2012-09-13_03.43.56"
    folder.mkdir()
    for name, seed in (("9.1201", 1), ("91.300", 2), ("91.50", 3)):
        other = anp.alexnet("paper", width=WIDTH, num_classes=10, seed=seed).state_dict()
        (folder / name).write_bytes(cc.cuda_convnet(other))
    newest = load(folder / "91.300", "krizhevsky145")
    same(load(folder, "krizhevsky145"), newest)
    raw = (folder / "91.300").read_bytes()
    (tmp_path / "gz").write_bytes(gzip.compress(raw, 1))
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", raw)
    for name in ("gz", "zip"):
        same(load(tmp_path / name, "krizhevsky145"), newest)
    (folder / "notes.txt").write_text("")
    (folder / "92.1").mkdir()
    same(load(folder, "krizhevsky145"), newest)
    (folder / "92.0").write_text("its content decides, not its name")
    with pytest.raises(WeightsError, match="92.0: is not a weight file"):
        load(folder, "krizhevsky145")
    with pytest.raises(WeightsError, match="no run of `alexnet train`"):
        load(tmp_path, "krizhevsky145")
    with pytest.raises(WeightsError, match="is a directory, not a file"):
        anp.weights.read(tmp_path)


def test_towers_that_cannot_be_joined(tmp_path, state):
    import pickle

    def saved(change):
        layers = cc.cuda_convnet_layers(state)
        change(layers)
        for layer in layers.values():
            layer.pop("inputLayers", None)
        (tmp_path / "w").write_bytes(pickle.dumps({"model_state": {"layers": layers}}, 2))
        return tmp_path / "w"

    for change, words in (
        (lambda layers: layers["conv2b"]["weights"].append(np.ones((2, 2), "f4")), "2 matrices for 1 inputs"),
        (lambda layers: layers["conv4b"]["weights"].__setitem__(0, np.ones((9, 12), "f4")), "do not fit each other"),
        (lambda layers: layers["conv1a"].update(biases=np.ones((3 * 3025, 1), "f4")), "which are not shared"),
        (lambda layers: layers["conv1a"].update(inputs=["nowhere"]), "inputs that are not there"),
        (lambda layers: layers["conv1a"].update(inputs=["conv1a"]), "in a circle"),
        (lambda layers: layers["conv1a"].update(filterSize=[7]), "filters of 7x7"),
        (lambda layers: layers["fc1000"].update(biases="text"), "no array"),
    ):
        with pytest.raises(WeightsError, match=words):
            anp.weights.read(saved(change))


LIBRARIES = {"google.protobuf": files.caffemodel, "h5py": files.hdf5}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_that_is_not_installed_is_named(tmp_path, state, library, monkeypatch):
    from alexnet_np.weights.formats import caffe_schema

    caffe_schema.messages.cache_clear()
    path = LIBRARIES[library](tmp_path / "w", state)
    for module in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingPackageError, match=f"pip install {library.split('.')[-1]}"):
        anp.weights.read(path)


@pytest.mark.parametrize("kind", ["caffemodel", "npy", "hdf5", "mat"])
def test_reading_takes_a_tenth_more_than_the_file_at_most(tmp_path, kind):
    """A network of 50 MB, most of it in one layer, in a process of its own."""
    pytest.importorskip("resource")
    shapes = [(96, 3, 11, 11), (256, 48, 5, 5), (384, 256, 3, 3), (384, 192, 3, 3), (256, 192, 3, 3)]
    shapes += [(1024, 9216), (256, 1024), (10, 256)]
    arrays = {}
    for i, shape in enumerate(shapes):
        arrays |= {f"{i}.weight": np.full(shape, i, "f4"), f"{i}.bias": np.zeros(shape[0], "f4")}
    write = {"caffemodel": files.caffemodel, "npy": files.guerzhoy, "hdf5": files.hdf5, "mat": files.matconvnet}[kind]
    size = write(tmp_path / "w", arrays).stat().st_size
    small = anp.alexnet("paper", width=1 / 64, num_classes=3, seed=0).state_dict()
    write(tmp_path / "small", small)
    code = f"""
import resource, alexnet_np as anp
anp.weights.read({str(tmp_path / "small")!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
arrays = anp.weights.read({str(tmp_path / "w")!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 1.1 * size + (2 << 20), int(done.stdout) * 1024 / size


def test_the_input_that_a_file_says(tmp_path, state):
    def said(path):
        with opened(path) as contents:
            return contents.input

    assert said(files.matconvnet(tmp_path / "w.mat", state)) == (3, 227, 227)
    assert said(files.onnx_file(tmp_path / "w.onnx", state)) == (3, 224, 224)
    (tmp_path / "91.300").write_bytes(cc.cuda_convnet(state))
    assert said(tmp_path / "91.300") == (3, 224, 224)
    assert said(files.caffemodel(tmp_path / "snapshot.caffemodel", state)) is None
    anp.weights.write(tmp_path / "w.caffemodel", anp.alexnet("d2l", width=1 / 48), size=200)
    assert said(tmp_path / "w.caffemodel") == (1, 200, 200)
