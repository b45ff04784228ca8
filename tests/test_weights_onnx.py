"""ONNX files: torch's two exporters, the zoo's graph, other people's graphs; numbers inside the file and beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from test_weights_finding import Net, same  # noqa: E402
from weight_formats import LAYERS, onnx_file  # noqa: E402

import alexnet_np as anp  # noqa: E402
from alexnet_np.errors import WeightsError  # noqa: E402
from alexnet_np.weights.reading import opened  # noqa: E402


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


def load(path):
    return anp.alexnet(weights=path, width=1 / 32, num_classes=10).state_dict()


def kinds(path):
    with opened(path) as contents:
        return [each.kind for each in contents.steps], contents


def old_exporter(net, path, opset):
    torch.onnx.export(net, torch.zeros(1, 3, 224, 224), str(path), opset_version=opset, dynamo=False)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", [13, 18])
def test_torchs_old_exporter(tmp_path, net, opset):
    path = old_exporter(net, tmp_path / "a.onnx", opset)
    same(load(path), net.state_dict())
    assert list(anp.weights.read(path)) == list(net.state_dict())
    found, contents = kinds(path)
    assert [kind for kind in found if kind in ("conv", "linear", "max_pool")] == [
        *["conv", "max_pool", "conv", "max_pool", "conv", "conv", "conv", "max_pool", "linear", "linear", "linear"]
    ]
    assert contents.format == f"ONNX, opset {opset} by pytorch"
    assert contents.steps[0].settings == {"stride": (4, 4), "padding": ((2, 2), (2, 2)), "groups": 1}


@pytest.mark.filterwarnings("ignore")
def test_torchs_new_exporter_keeps_its_numbers_beside_the_file(tmp_path):
    pytest.importorskip("onnxscript")
    net = Net(dense=512).eval()
    torch.onnx.export(net, (torch.zeros(1, 3, 224, 224),), str(tmp_path / "a.onnx"), dynamo=True, external_data=True)
    assert (tmp_path / "a.onnx.data").exists()
    got = anp.weights.read(tmp_path / "a.onnx")
    same({name: got[name] for name in net.state_dict()}, net.state_dict())


# Graphs by hand.


def model(nodes, initializers, path, **save):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path, **save)
    return path


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"cw": (4, 3, 3, 3), "cb": (4,), "dw": (5, 144), "db": (5,)}
    return {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}


def nodes(dense):
    return [
        helper.make_node("Conv", ["x", "cw", "cb"], ["c"], name="conv"),
        helper.make_node("LRN", ["c"], ["n"], size=5, alpha=1e-4, beta=0.75, bias=2.0),
        helper.make_node("MaxPool", ["n"], ["p"], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["p"], ["f"]),
        *dense,
    ]


GEMM = [helper.make_node("Gemm", ["f", "dw", "db"], ["y"], transB=1)]


def tensor(kind):
    """The ways in which a tensor may hold its numbers."""

    def make(name, array):
        if kind == "raw":
            return numpy_helper.from_array(array, name)
        if kind == "bfloat16":
            bits = (array.view(np.uint32) >> 16).astype(np.uint16)
            return helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, bits.tobytes(), raw=True)
        if kind == "half as integers":
            made = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=array.shape)
            made.int32_data.extend(array.astype(np.float16).reshape(-1).view(np.uint16).tolist())
            return made
        dtype = {"float": TensorProto.FLOAT, "double": TensorProto.DOUBLE, "half": TensorProto.FLOAT16}[kind]
        return helper.make_tensor(name, dtype, array.shape, array.reshape(-1).tolist())

    return make


@pytest.mark.parametrize("kind", ["raw", "float", "double", "half", "half as integers", "bfloat16"])
def test_numbers_of_every_kind(tmp_path, kind):
    want = arrays()
    path = model(nodes(GEMM), [tensor(kind)(name, array) for name, array in want.items()], tmp_path / "a.onnx")
    got = anp.weights.read(path)
    assert list(got) == list(want)
    for name, array in want.items():
        exact = {"half": array.astype("f2"), "half as integers": array.astype("f2"), "double": array.astype("f8")}
        wanted = exact.get(kind, array)
        if kind == "bfloat16":
            wanted = (array.view(np.uint32) >> 16 << 16).view(np.float32)
        assert got[name].dtype == wanted.dtype
        np.testing.assert_array_equal(got[name], wanted)
    found, contents = kinds(path)
    assert found == ["conv", "lrn", "max_pool", "flatten", "linear"]
    assert contents.steps[1].settings["k"] == 2.0 and contents.steps[1].settings["alpha"] == 1e-4
    assert contents.steps[2].settings["padding"] == ((1, 1), (1, 1))


def constant(name, array):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def test_constants_identities_and_turned_weights(tmp_path):
    want = arrays()
    made = [constant("c0", want["cw"]), helper.make_node("Identity", ["c0"], ["cw"])]
    made += [helper.make_node("Transpose", ["dt"], ["dw"], perm=[1, 0])]
    matmul = [helper.make_node("MatMul", ["f", "dt"], ["m"]), helper.make_node("Add", ["m", "db"], ["y"])]
    given = [numpy_helper.from_array(want["dw"].T.copy(), "dt")]
    given += [numpy_helper.from_array(want[name], name) for name in ("cb", "db")]
    for dense, name in ((GEMM, "dw"), (matmul, "dt"), ([helper.make_node("Gemm", ["f", "dt", "db"], ["y"])], "dt")):
        got = anp.weights.read(model([*made, *nodes(dense)], given, tmp_path / "a.onnx"))
        assert list(got) == ["cw", "cb", name, "db"]
        np.testing.assert_array_equal(got[name], want["dw"])
        np.testing.assert_array_equal(got["cw"], want["cw"])


def test_the_zoos_graph(tmp_path):
    """onnx carries the zoo's bvlcalexnet with every array one number; with numbers put in it is the zoo's file."""
    light = Path(onnx.__file__).parent / "backend/test/data/light/light_bvlc_alexnet.onnx"
    names = [f"{layer}_{kind}_0" for layer in LAYERS for kind in "wb"]
    got = anp.weights.read(light)
    assert list(got) == names and got["fc6_w_0"].shape == (4096, 9216)
    found, contents = kinds(light)
    assert found[:4] == ["conv", "relu", "lrn", "max_pool"] and contents.format.startswith("ONNX, opset 9")
    pools = [each.settings for each in contents.steps if each.kind == "max_pool"]
    assert pools[2]["padding"] == ((0, 1), (0, 1)) and not pools[2]["ceil"]
    small = anp.alexnet("paper", width=1 / 32, num_classes=10, seed=0).state_dict()
    onnx_file(tmp_path / "zoo.onnx", small)
    same(
        anp.alexnet("onnx", weights=tmp_path / "zoo.onnx", width=1 / 32, num_classes=10).state_dict(),
        {n: torch.from_numpy(a) for n, a in small.items()},
    )


# Numbers in another file.


def external(folder, location="a.data"):
    want = arrays()
    given = [numpy_helper.from_array(array, name) for name, array in want.items()]
    path = model(nodes(GEMM), given, folder / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
    made = onnx.load(path, load_external_data=False)
    for initializer in made.graph.initializer:
        for entry in initializer.external_data:
            if entry.key == "location":
                entry.value = location
    onnx.save(made, path)
    return path, want


def test_numbers_beside_the_file(tmp_path):
    path, want = external(tmp_path)
    got = anp.weights.read(path)
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array)
    (tmp_path / "a.data").unlink()
    with pytest.raises(WeightsError, match="'a.data' beside it: No such file"):
        anp.weights.read(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link", "folder/../../secret", "", "a\0b"])
def test_numbers_outside_of_the_folder_are_refused(tmp_path, location):
    (tmp_path / "secret").write_bytes(bytes(10_000))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    path, _ = external(folder, location)
    with pytest.raises(WeightsError, match="outside of its folder|does not name"):
        anp.weights.read(path)


def test_numbers_beside_the_file_that_are_cut_short(tmp_path):
    path, _ = external(tmp_path)
    (tmp_path / "a.data").write_bytes((tmp_path / "a.data").read_bytes()[:-1])
    with pytest.raises(WeightsError, match="cut short"):
        anp.weights.read(path)


def test_graphs_without_weights_and_with_odd_ones(tmp_path):
    path = model([helper.make_node("Relu", ["x"], ["y"])], [], tmp_path / "a.onnx")
    with pytest.raises(WeightsError, match="no convolution and no dense layer"):
        anp.weights.read(path)
    scaled = [helper.make_node("Gemm", ["f", "dw", "db"], ["y"], transB=1, alpha=0.5, name="fc")]
    given = [numpy_helper.from_array(array, name) for name, array in arrays().items()]
    with pytest.raises(WeightsError, match="'fc' scales its product"):
        anp.weights.read(model(nodes(scaled), given, tmp_path / "b.onnx"))
    circle = [helper.make_node("Identity", ["a"], ["cw"]), helper.make_node("Identity", ["cw"], ["a"])]
    assert "cw" not in anp.weights.read(model([*circle, *nodes(GEMM)], given[2:], tmp_path / "c.onnx"))


def test_reading_takes_a_tenth_more_than_the_file_at_most(tmp_path):
    pytest.importorskip("resource")
    rng = np.random.default_rng(0)
    want = {"cw": np.ones((4, 3, 3, 3), "f4"), "cb": np.ones(4, "f4"), "dw": rng.random((4096, 3000), np.float32)}
    want["db"] = np.ones(4096, "f4")
    for name, options in (
        ("in", {}),
        ("beside", {"save_as_external_data": True, "location": "d", "size_threshold": 0}),
    ):
        given = [numpy_helper.from_array(array, key) for key, array in want.items()]
        path = model(nodes(GEMM), given, tmp_path / f"{name}.onnx", **options)
        small = model(
            nodes(GEMM), [numpy_helper.from_array(a, n) for n, a in arrays().items()], tmp_path / "small.onnx"
        )
        code = f"""
import resource, alexnet_np as anp
anp.weights.read({str(small)!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
arrays = anp.weights.read({str(path)!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        size = want["dw"].nbytes
        assert int(done.stdout) * 1024 < 1.1 * size + (2 << 20), int(done.stdout) * 1024 / size
