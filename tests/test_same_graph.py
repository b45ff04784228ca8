"""Same graph, same weights: other programs' own graphs of bvlc, caffenet and onnx, run by ONNX Runtime and by OpenCV 4.

The graphs are theirs, not ours: the zoo's bvlcalexnet as onnx tests with it, and Caffe's deploy.prototxt. OpenCV takes
LRN's k for 1 whatever is written, which it is in both networks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")  # whose files stand beside those that are written here

import weight_formats as files  # noqa: E402

import alexnet_np as anp  # noqa: E402
from alexnet_np.errors import WeightsError  # noqa: E402

ALLOWED = 1e-5  # of the largest logit, in float32
WIDTHS = [1 / 8, pytest.param(1.0, marks=pytest.mark.slow)]
SIDES = {"bvlc": 227, "caffenet": 227, "onnx": 224}


@pytest.fixture(scope="module", params=WIDTHS)
def state(request):
    rng, width = np.random.default_rng(0), request.param
    state = anp.alexnet("bvlc", width=width, seed=0).state_dict()
    for name, array in state.items():
        fan_in = array[0].size if array.ndim > 1 else 100
        state[name] = rng.standard_normal(array.shape, np.float32) * np.float32(np.sqrt(2 / fan_in))
    return state, width


def pictures(side):
    return np.random.default_rng(1).normal(0, 60, (1, 3, side, side)).astype(np.float32)


def close(got, want):
    assert np.abs(want).max() > 0.1 and np.abs(got - want).max() <= ALLOWED * np.abs(want).max()


def zoo(path, state, side, pools_first=False):
    """The zoo's graph with these numbers, for pictures of this side, ending at the logits."""
    saved = onnx.load(Path(onnx.__file__).parent / "backend/test/data/light/light_bvlc_alexnet.onnx")
    graph = saved.graph
    nodes = [node for node in graph.node if node.op_type not in ("ConstantOfShape", "Softmax")]
    if pools_first:  # the zoo's CaffeNet: LRN and pooling change places, twice
        for i in (2, 6):
            norm, pool = nodes[i], nodes[i + 1]
            pool.input[0], norm.output[0] = norm.input[0], pool.output[0]
            norm.input[0] = pool.output[0] = f"pooled{i}"
            nodes[i], nodes[i + 1] = pool, norm
    del graph.node[:], graph.initializer[:], graph.input[1:], graph.output[:]
    graph.node.extend(nodes)
    for axis, size in zip(graph.input[0].type.tensor_type.shape.dim, (1, 3, side, side), strict=True):
        axis.dim_value = size
    names = [f"{layer}_{kind}_0" for layer in files.LAYERS for kind in "wb"]
    arrays = dict(zip(names, state.values(), strict=True)) | {"OC2_DUMMY_1": np.array([1, -1])}
    graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    graph.output.append(onnx.helper.make_tensor_value_info(nodes[-1].output[0], 1, None))
    saved.ir_version = 4  # before, initializers had to be inputs too
    onnx.save(saved, path)
    return path


@pytest.mark.parametrize("preset", SIDES)
def test_onnx_runtime_on_the_zoos_graph(tmp_path, state, preset):
    onnxruntime = pytest.importorskip("onnxruntime")
    numbers, width = state
    path, x = zoo(tmp_path / "zoo.onnx", numbers, SIDES[preset], preset == "caffenet"), pictures(SIDES[preset])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    (want,) = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(
        None, {"data_0": x}
    )
    model = anp.alexnet(None, weights=path).eval()
    assert (model.preset, round(model.described().width, 6)) == (preset, round(width, 6))
    close(model(x), want)


def test_the_zoos_caffenet_is_no_preset(tmp_path, state):
    """Caffe's order at 224, pooling that counts by floor: another function than caffenet, which takes its numbers."""
    numbers, width = state
    path = zoo(tmp_path / "zoo.onnx", numbers, 224, pools_first=True)
    with pytest.raises(WeightsError, match="shapes of paper, .* or onnx, but no one's layers"):
        anp.alexnet(None, weights=path)
    with pytest.raises(WeightsError, match="not of caffenet: layer 1: maps of 26x26, not 27x27, from 54x54"):
        anp.alexnet("caffenet", weights=path, width=None)
    model = anp.alexnet("caffenet", weights=anp.weights.read(path), width=width)
    np.testing.assert_array_equal(model.features[0].weight.data, numbers["features.0.weight"])


CONV = 'layer {{ name: "{0}" type: "Convolution" bottom: "{1}" top: "{0}" convolution_param {{ {2} }} }}'
PLAIN = {
    "relu": 'layer {{ name: "{0}" type: "ReLU" bottom: "{1}" top: "{1}" }}',
    "drop": 'layer {{ name: "{0}" type: "Dropout" bottom: "{1}" top: "{1}" dropout_param {{ dropout_ratio: 0.5 }} }}',
    "norm": 'layer {{ name: "{0}" type: "LRN" bottom: "{1}" top: "{0}" lrn_param '
    "{{ local_size: 5 alpha: 0.0001 beta: 0.75 }} }}",
    "pool": 'layer {{ name: "{0}" type: "Pooling" bottom: "{1}" top: "{0}" pooling_param '
    "{{ pool: MAX kernel_size: 3 stride: 2 }} }}",
    "fc": 'layer {{ name: "{0}" type: "InnerProduct" bottom: "{1}" top: "{0}" inner_product_param '
    "{{ num_output: {2} }} }}",
}


def prototxt(path, state, order):
    """BVLC/caffe: models/bvlc_alexnet/deploy.prototxt, and bvlc_reference_caffenet's, but for the softmax."""
    lines, reached = ['name: "AlexNet" input: "data" input_dim: 1 input_dim: 3 input_dim: 227 input_dim: 227'], "data"
    sizes = {name: len(weight) for name, (weight, _) in files.layers(state).items()}
    for name in order[:-1]:
        kind = name.rstrip("0123456789")
        if kind == "conv":
            kernel, stride, pad = files.KERNELS[name]
            geometry = f"num_output: {sizes[name]} kernel_size: {kernel} stride: {stride} pad: {pad}"
            lines.append(CONV.format(name, reached, f"{geometry} group: {files.GROUPS.get(name, 1)}"))
        else:
            lines.append(PLAIN[kind].format(name, reached, sizes.get(name)))
        reached = reached if kind in ("relu", "drop") else name
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(("preset", "order"), [("bvlc", files.BVLC), ("caffenet", files.CAFFENET)])
def test_opencv_on_caffes_own_network(tmp_path, state, preset, order):
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("this OpenCV has no reader for Caffe's files")
    numbers, width = state
    if width == 1:  # 61 million numbers one by one take minutes
        anp.weights.write(tmp_path / "w.caffemodel", anp.alexnet(preset, weights=numbers))
        assert list(anp.weights.read(tmp_path / "w.caffemodel")) == list(files.caffe_names(numbers))  # as Caffe has it
        path = tmp_path / "w.caffemodel"
    else:
        path = files.caffemodel(tmp_path / "w.caffemodel", numbers, 2, order)
    net, x = cv2.dnn.readNetFromCaffe(str(prototxt(tmp_path / "w.prototxt", numbers, order)), str(path)), pictures(227)
    net.setInput(x)
    model = anp.alexnet(None, weights=path).eval()
    assert model.preset == preset
    close(model(x), net.forward())
