"""Weights in the formats of other programs, written by those programs' own libraries, or as they would have done it.

Each function takes the state dict of a network of the 2012 form (five convolutions, three dense layers; `paper`) under
torchvision's names, and writes it as the other program would hold the same network.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import weight_files as wf

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")  # as Caffe calls them
GROUPS = {"conv2": 2, "conv4": 2, "conv5": 2}
State = Mapping[str, np.ndarray]


def layers(state: State) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Caffe's name -> (weight, bias)."""
    arrays = list(state.values())
    return {name: (arrays[2 * i], arrays[2 * i + 1]) for i, name in enumerate(LAYERS)}


def caffe_names(state: State) -> dict[str, np.ndarray]:
    """What weights.read is to give: names of the layers, arrays of torch."""
    return {
        f"{name}.{kind}": array
        for name, pair in layers(state).items()
        for kind, array in zip(("weight", "bias"), pair, strict=False)
    }


# Caffe. The schema is Caffe's own, with packed floats, and not the one that reads.

_SCHEMA = """
BlobShape: dim 1 int64 packed
BlobProto: num 1 int32, channels 2 int32, height 3 int32, width 4 int32, data 5 float packed, diff 6 float packed,
  shape 7 BlobShape, double_data 8 double packed, raw_data_type 10 int32, raw_data 12 bytes
ConvolutionParameter: num_output 1 uint32, pad 3 uint32 repeated, kernel_size 4 uint32 repeated, group 5 uint32,
  stride 6 uint32 repeated
PoolingParameter: pool 1 int32, kernel_size 2 uint32, stride 3 uint32, round_mode 13 int32
LRNParameter: local_size 1 uint32, alpha 2 float, beta 3 float, norm_region 4 int32, k 5 float
InnerProductParameter: num_output 1 uint32, transpose 6 bool
V0LayerParameter: name 1 string, type 2 string, num_output 3 uint32, pad 7 uint32, kernelsize 8 uint32, group 9 uint32,
  stride 10 uint32, local_size 13 uint32, alpha 14 float, beta 15 float, blobs 50 BlobProto repeated
V1LayerParameter: layer 1 V0LayerParameter, bottom 2 string repeated, top 3 string repeated, name 4 string,
  type 5 int32, blobs 6 BlobProto repeated, convolution_param 10 ConvolutionParameter,
  inner_product_param 17 InnerProductParameter,
  lrn_param 18 LRNParameter, pooling_param 19 PoolingParameter
LayerParameter: name 1 string, type 2 string, bottom 3 string repeated, top 4 string repeated,
  blobs 7 BlobProto repeated, convolution_param 106 ConvolutionParameter,
  inner_product_param 117 InnerProductParameter, lrn_param 118 LRNParameter,
  pooling_param 121 PoolingParameter
NetParameter: name 1 string, layers 2 V1LayerParameter repeated, layer 100 LayerParameter repeated
"""
_TYPES = {"double": 1, "float": 2, "int64": 3, "int32": 5, "bool": 8, "string": 9, "bytes": 12, "uint32": 13}


def caffe_messages() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="theirs.proto", package="theirs", syntax="proto2")
    lines = _SCHEMA.strip().replace(",\n  ", ", ").splitlines()
    for line in lines:
        name, fields = line.split(": ")
        message = file.message_type.add(name=name)
        for field in fields.split(", "):
            title, number, kind, *label = field.split()
            added = message.field.add(
                name=title, number=int(number), label=3 if label else 1, type=_TYPES.get(kind, 11)
            )
            if kind not in _TYPES:
                added.type_name = f".theirs.{kind}"
            if label == ["packed"]:
                added.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [line.split(":")[0] for line in lines]
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"theirs.{n}")) for n in names}


BVLC = ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2", "conv3", "relu3", "conv4", "relu4"]
BVLC += ["conv5", "relu5", "pool5", "fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8", "prob"]
CAFFENET = [{"norm1": "pool1", "pool1": "norm1", "norm2": "pool2", "pool2": "norm2"}.get(name, name) for name in BVLC]
KERNELS = {"conv1": (11, 4, 0), "conv2": (5, 1, 2), "conv3": (3, 1, 1), "conv4": (3, 1, 1), "conv5": (3, 1, 1)}
V1 = {"conv": 4, "relu": 18, "norm": 15, "pool": 17, "fc": 14, "drop": 6, "prob": 20}
V2 = {
    "conv": "Convolution",
    "relu": "ReLU",
    "norm": "LRN",
    "pool": "Pooling",
    "fc": "InnerProduct",
    "drop": "Dropout",
    "prob": "Softmax",
}
V0 = {
    "conv": "conv",
    "relu": "relu",
    "norm": "lrn",
    "pool": "pool",
    "fc": "innerproduct",
    "drop": "dropout",
    "prob": "softmax",
}


def caffemodel(
    path: Path, state: State, version: int = 1, order: list[str] = BVLC, numbers: str = "data", old: bool | None = None
) -> Path:
    """`numbers`: "data", "double_data", or "float16" in NVIDIA's raw_data; `old`: blobs of four axes, as V0 and V1."""
    net = caffe_messages()["NetParameter"](name="AlexNet")
    for name in order:
        kind = name.rstrip("0123456789")
        layer = net.layer.add(name=name, type=V2[kind]) if version == 2 else net.layers.add()
        if version == 1:
            layer.name, layer.type = name, V1[kind]
        inner = layer if version else layer.layer
        if version == 0:
            inner.name, inner.type = name, V0[kind]
        _caffe_settings(inner, name, kind, version)
        for i, array in enumerate(layers(state).get(name, ())):
            _blob(inner.blobs.add(), array, numbers, version < 2 if old is None else old, i)
    path.write_bytes(net.SerializeToString())
    return path


def _caffe_settings(layer: Any, name: str, kind: str, version: int) -> None:
    if kind == "conv":
        kernel, stride, pad = KERNELS[name]
        if version == 0:
            layer.kernelsize, layer.stride, layer.pad, layer.group = kernel, stride, pad, GROUPS.get(name, 1)
        else:
            p = layer.convolution_param
            p.kernel_size.append(kernel), p.stride.append(stride), p.pad.append(pad)
            p.group = GROUPS.get(name, 1)
    elif kind == "pool":
        p = layer if version == 0 else layer.pooling_param
        setattr(p, "kernelsize" if version == 0 else "kernel_size", 3)
        p.stride = 2
    elif kind == "norm":
        p = layer if version == 0 else layer.lrn_param
        p.local_size, p.alpha, p.beta = 5, 1e-4, 0.75


def _blob(blob: Any, array: np.ndarray, numbers: str, old: bool, i: int) -> None:
    shape = (1,) * (4 - array.ndim) + array.shape if old else array.shape
    if old:
        blob.num, blob.channels, blob.height, blob.width = shape
    else:
        blob.shape.dim.extend(shape)
    if numbers == "float16":
        blob.raw_data_type, blob.raw_data = 2, array.astype(np.float16).tobytes()
    else:
        getattr(blob, numbers).extend(array.reshape(-1).tolist())


# TensorFlow's layout.


def hwio(state: State) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Caffe's name -> (weights, biases) in TensorFlow's layout."""
    result = {}
    side = round((state[list(state)[10]].shape[1] / state[list(state)[8]].shape[0]) ** 0.5)
    for name, (weight, bias) in layers(state).items():
        if weight.ndim == 4:
            turned = weight.transpose(2, 3, 1, 0)
        elif name == "fc6":
            turned = weight.reshape(len(weight), -1, side, side).transpose(2, 3, 1, 0).reshape(-1, len(weight))
        else:
            turned = weight.T
        result[name] = (np.ascontiguousarray(turned), bias)
    return result


def _short(value: str) -> bytes:
    return b"U" + bytes([len(value)]) + value.encode()


def _ndarray(kind: str, order: str, flags: bytes, version: bytes, shape: bytes, contents: bytes) -> bytes:
    """An array as Python 2 pickled it: made empty, then given its shape, dtype and contents."""
    empty = wf.tup(wf.glob("numpy", "ndarray"), b"K\x00\x85", _short("b"))
    made = wf.glob("numpy.core.multiarray", "_reconstruct") + empty + b"R"
    state = wf.tup(b"K\x03", _short(order), b"N", b"N", b"N", wf.number(-1), wf.number(-1), flags)
    dtype = wf.glob("numpy", "dtype") + wf.tup(_short(kind), b"K\x00", b"K\x01") + b"R" + state + b"b"
    return made + wf.tup(version, shape, dtype, b"\x89", contents) + b"b"


def guerzhoy(path: Path, state: State) -> Path:
    """bvlc_alexnet.npy: numpy.save under Python 2, of a dict name -> [weights, biases], opcode by opcode."""

    def array(value: np.ndarray) -> bytes:
        raw = value.astype("<f4").tobytes()
        shape = b"K\x01", wf.tup(*map(wf.number, value.shape))
        return _ndarray("f4", "<", b"K\x00", *shape, contents=b"T" + struct.pack("<i", len(raw)) + raw)

    entries = b"".join(_short(name) + b"](" + array(w) + array(b) + b"e" for name, (w, b) in hwio(state).items())
    whole = _ndarray("O8", "|", b"K?", b"K\x01", b")", contents=b"](}(" + entries + b"ue")
    saved = b"\x80\x02" + whole + b"."
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (-(10 + len(header) + 1) % 16) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + saved)
    return path


def caffe_tensorflow(path: Path, state: State) -> Path:
    saved = {name: {"weights": weight, "biases": bias} for name, (weight, bias) in hwio(state).items()}
    with path.open("wb") as file:
        np.save(file, saved, allow_pickle=True)
    return path


def matconvnet(path: Path, state: State, old: bool = False, packed: bool = False) -> Path:
    """As utils/import-caffe.py makes it: a row of structs; RGB; a dense layer is a convolution over the map."""
    import scipy.io

    side, rows = 6, []
    for name in BVLC:
        kind = name.rstrip("0123456789")
        row: dict[str, Any] = {
            "name": name,
            "type": {"conv": "conv", "fc": "conv", "norm": "lrn", "prob": "softmax", "drop": "dropout"}.get(kind, kind),
        }
        if kind in ("conv", "fc"):
            weight, bias = layers(state)[name]
            if kind == "fc":
                weight = weight.reshape(len(weight), -1, *((side, side) if name == "fc6" else (1, 1)))
            turned = weight.transpose(2, 3, 1, 0)[:, :, ::-1] if name == "conv1" else weight.transpose(2, 3, 1, 0)
            cell = np.empty((1, 2), object)
            cell[0, 0], cell[0, 1] = np.asfortranarray(turned), bias.reshape(1, -1)
            row |= {"filters": cell[0, 0], "biases": cell[0, 1]} if old else {"weights": cell}
            _, stride, pad = KERNELS.get(name, (0, 1, 0))
            row |= {"pad": np.full((1, 4), float(pad)), "stride": np.full((1, 2), float(stride))}
        if kind == "pool":
            row |= {
                "method": "max",
                "pool": np.full((1, 2), 3.0),
                "stride": np.full((1, 2), 2.0),
                "pad": np.zeros((1, 4)),
            }
        if kind == "norm":
            row |= {"param": np.array([[5.0, 1.0, 2e-5, 0.75]])}
        rows.append(row)
    cells = np.empty((1, len(rows)), object)
    cells[0, :] = rows
    scipy.io.savemat(
        path,
        {"layers": cells, "meta": {"normalization": {"imageSize": np.array([[227.0, 227, 3]])}}},
        do_compression=packed,
        oned_as="row",
    )
    return path


def hdf5(path: Path, state: State) -> Path:
    """A snapshot of Caffe: data/<layer>/<i>."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, pair in layers(state).items():
            for i, array in enumerate(pair):
                file.create_dataset(f"data/{name}/{i}", data=array)
        file.create_group("data/relu1")
    return path


def paddle(path: Path, state: State) -> Path:
    """paddle.save of a state dict: a pickle of NumPy's arrays, dense weights (in, out); paddle.vision's names."""
    names = [*(f"_conv{i}._conv" for i in range(1, 6)), "_fc6", "_fc7", "_fc8"]
    saved: dict[str, Any] = {}
    for name, (weight, bias) in zip(names, layers(state).values(), strict=True):
        saved[f"{name}.weight"] = np.ascontiguousarray(weight.T) if weight.ndim == 2 else weight
        saved[f"{name}.bias"] = bias
    saved["StructuredToParameterName@@"] = {name: f"conv2d_{i}.w_0" for i, name in enumerate(names)}
    path.write_bytes(pickle.dumps(saved, 4))
    return path


def onnx_file(path: Path, state: State) -> Path:
    """The zoo's graph with these numbers in it."""
    import onnx

    light = Path(onnx.__file__).parent / "backend/test/data/light/light_bvlc_alexnet.onnx"
    saved = onnx.load(light)
    kept = [node for node in saved.graph.node if node.op_type != "ConstantOfShape"]
    del saved.graph.node[:], saved.graph.initializer[:]
    saved.graph.node.extend(kept)
    names = [f"{layer}_{kind}_0" for layer in LAYERS for kind in "wb"]
    for name, array in zip(names, state.values(), strict=True):
        saved.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(saved, path)
    return path
