"""The messages of an ONNX file, as far as weights and layers need them; numbers are declared as bytes (protobuf.py).

Of graphs inside of attributes (the branches of an If) the nodes' kinds and edges alone are read, so that nothing nests.

Source: onnx/onnx, onnx/onnx.proto.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from alexnet_np.weights.formats import protobuf

SCHEMA = {
    "ModelProto": {
        "ir_version": (1, "int64"),
        "producer_name": (2, "string"),
        "graph": (7, "GraphProto"),
        "opset_import": (8, "OperatorSetIdProto*"),
        "metadata_props": (14, "StringStringEntryProto*"),
    },
    "OperatorSetIdProto": {"domain": (1, "string"), "version": (2, "int64")},
    "StringStringEntryProto": {"key": (1, "string"), "value": (2, "string")},
    "GraphProto": {
        "node": (1, "NodeProto*"),
        "name": (2, "string"),
        "initializer": (5, "TensorProto*"),
        "input": (11, "ValueInfoProto*"),
    },
    "ValueInfoProto": {"name": (1, "string"), "type": (2, "TypeProto")},
    "TypeProto": {"tensor_type": (1, "TensorTypeProto")},
    "TensorTypeProto": {"shape": (2, "TensorShapeProto")},
    "TensorShapeProto": {"dim": (1, "DimensionProto*")},
    "DimensionProto": {"dim_value": (1, "int64")},
    "NodeProto": {
        "input": (1, "string*"),
        "output": (2, "string*"),
        "name": (3, "string"),
        "op_type": (4, "string"),
        "attribute": (5, "AttributeProto*"),
    },
    "AttributeProto": {
        "name": (1, "string"),
        "f": (2, "float"),
        "i": (3, "int64"),
        "s": (4, "bytes"),
        "t": (5, "TensorProto"),
        "g": (6, "BranchProto"),
        "ints": (8, "int64*"),
    },
    "BranchProto": {"node": (1, "BranchNodeProto*"), "output": (12, "ValueInfoProto*")},
    "BranchNodeProto": {"input": (1, "string*"), "output": (2, "string*"), "op_type": (4, "string")},
    "TensorProto": {
        "dims": (1, "int64*"),
        "data_type": (2, "int32"),
        "float_data": (4, "bytes"),
        "int32_data": (5, "int32+"),
        "int64_data": (7, "int64+"),
        "name": (8, "string"),
        "raw_data": (9, "bytes"),
        "double_data": (10, "bytes"),
        "external_data": (13, "StringStringEntryProto*"),
        "data_location": (14, "int32"),
    },
}


@cache
def messages() -> dict[str, Any]:
    """The library's classes by name. Raises MissingPackageError."""
    return protobuf.classes("onnx", SCHEMA, {})
