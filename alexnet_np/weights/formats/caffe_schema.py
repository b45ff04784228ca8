"""The messages of a .caffemodel, as far as they matter here, three generations beside each other.

NetParameter holds `layer` (LayerParameter, since 2015), `layers` (V1LayerParameter, since 2014), or `layers` that hold
a V0LayerParameter each (2013). The numbers of a blob are declared as bytes: a packed field of floats has the same
bytes, and bytes can be left where they lie (protobuf.py).

Source: BVLC/caffe, src/caffe/proto/caffe.proto; raw_data and its type are NVIDIA's
(opencv/opencv, modules/dnn/src/caffe/opencv-caffe.proto).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from alexnet_np.weights.formats import protobuf

ENUMS = {
    "Phase": {"TRAIN": 0, "TEST": 1},
    "PoolMethod": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "RoundMode": {"CEIL": 0, "FLOOR": 1},
    "NormRegion": {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1},
}

_PARAMETERS = {  # of a layer, by their numbers in LayerParameter and in V1LayerParameter
    "concat_param": ("ConcatParameter", 104, 9),
    "convolution_param": ("ConvolutionParameter", 106, 10),
    "dropout_param": ("DropoutParameter", 108, 12),
    "inner_product_param": ("InnerProductParameter", 117, 17),
    "lrn_param": ("LRNParameter", 118, 18),
    "pooling_param": ("PoolingParameter", 121, 19),
    "slice_param": ("SliceParameter", 126, 31),
}

SCHEMA = {
    "NetParameter": {
        "name": (1, "string"),
        "layers": (2, "V1LayerParameter*"),
        "input": (3, "string*"),
        "input_dim": (4, "int32*"),
        "input_shape": (8, "BlobShape*"),
        "layer": (100, "LayerParameter*"),
    },
    "LayerParameter": {
        "name": (1, "string"),
        "type": (2, "string"),
        "bottom": (3, "string*"),
        "top": (4, "string*"),
        "blobs": (7, "BlobProto*"),
        "include": (8, "NetStateRule*"),
        "input_param": (143, "InputParameter"),
        **{name: (number, message) for name, (message, number, _) in _PARAMETERS.items()},
    },
    "V1LayerParameter": {
        "layer": (1, "V0LayerParameter"),
        "bottom": (2, "string*"),
        "top": (3, "string*"),
        "name": (4, "string"),
        "type": (5, "int32"),
        "blobs": (6, "BlobProto*"),
        "include": (32, "NetStateRule*"),
        **{name: (number, message) for name, (message, _, number) in _PARAMETERS.items()},
    },
    "V0LayerParameter": {
        "name": (1, "string"),
        "type": (2, "string"),
        "num_output": (3, "uint32"),
        "pad": (7, "uint32"),
        "kernelsize": (8, "uint32"),
        "group": (9, "uint32"),
        "stride": (10, "uint32"),
        "pool": (11, "PoolMethod"),
        "dropout_ratio": (12, "float"),
        "local_size": (13, "uint32"),
        "alpha": (14, "float"),
        "beta": (15, "float"),
        "k": (22, "float"),
        "blobs": (50, "BlobProto*"),
    },
    "BlobProto": {
        "num": (1, "int32"),
        "channels": (2, "int32"),
        "height": (3, "int32"),
        "width": (4, "int32"),
        "data": (5, "bytes"),
        "shape": (7, "BlobShape"),
        "double_data": (8, "bytes"),
        "raw_data_type": (10, "int32"),
        "raw_data": (12, "bytes"),
    },
    "BlobShape": {"dim": (1, "int64+")},
    "NetStateRule": {"phase": (1, "Phase")},
    "InputParameter": {"shape": (1, "BlobShape*")},
    "ConvolutionParameter": {
        "num_output": (1, "uint32"),
        "bias_term": (2, "bool"),
        "pad": (3, "uint32*"),
        "kernel_size": (4, "uint32*"),
        "group": (5, "uint32"),
        "stride": (6, "uint32*"),
        "pad_h": (9, "uint32"),
        "pad_w": (10, "uint32"),
        "kernel_h": (11, "uint32"),
        "kernel_w": (12, "uint32"),
        "stride_h": (13, "uint32"),
        "stride_w": (14, "uint32"),
    },
    "PoolingParameter": {
        "pool": (1, "PoolMethod"),
        "kernel_size": (2, "uint32"),
        "stride": (3, "uint32"),
        "pad": (4, "uint32"),
        "kernel_h": (5, "uint32"),
        "kernel_w": (6, "uint32"),
        "stride_h": (7, "uint32"),
        "stride_w": (8, "uint32"),
        "pad_h": (9, "uint32"),
        "pad_w": (10, "uint32"),
        "round_mode": (13, "RoundMode"),
    },
    "LRNParameter": {
        "local_size": (1, "uint32"),
        "alpha": (2, "float"),
        "beta": (3, "float"),
        "norm_region": (4, "NormRegion"),
        "k": (5, "float"),
    },
    "InnerProductParameter": {"num_output": (1, "uint32"), "bias_term": (2, "bool"), "transpose": (6, "bool")},
    "DropoutParameter": {"dropout_ratio": (1, "float")},
    "ConcatParameter": {"axis": (2, "int32")},
    "SliceParameter": {"slice_point": (2, "uint32*"), "axis": (3, "int32")},
}


@cache
def messages() -> dict[str, Any]:
    """The library's classes by name. Raises MissingPackageError."""
    return protobuf.classes("caffe", SCHEMA, ENUMS)
