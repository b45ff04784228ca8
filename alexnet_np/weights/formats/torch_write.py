"""What torch.save writes of an OrderedDict of tensors, without torch; torch.load reads it, with weights_only too.

The pickle is put together from its opcodes, since pickle itself would have to import torch to name torch's functions:
OrderedDict, filled with name -> _rebuild_tensor_v2(storage, 0, shape, stride, False, OrderedDict()). Storages are
aligned to 64 bytes, so that torch.load(mmap=True) takes them too.

Source: pytorch/pytorch, torch/serialization.py (_save), caffe2/serialize/inline_container.cc.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.formats.torch_tensors import STORAGES

METADATA = "alexnet_np.json"  # a member that torch does not look at
ALIGNMENT = 64
LOCAL_HEADER = 30  # bytes before a member's name
KINDS = {dtype: kind for kind, dtype in STORAGES.items() if kind != "UntypedStorage"}
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write name -> array, and beside it what is noted of them. Raises WeightsError for other dtypes, OSError."""
    members: dict[str, bytes | np.ndarray] = {"data.pkl": _pickle(arrays), "byteorder": b"little"}
    for i, array in enumerate(arrays.values()):
        members[f"data/{i}"] = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    members["version"] = b"3\n"
    if metadata:
        members[METADATA] = json.dumps(dict(metadata)).encode()
    place = 0
    with ZipFile(path, "w", ZIP_STORED) as archive:
        for name, content in members.items():
            raw = memoryview(content.reshape(-1).view(np.uint8).data if isinstance(content, np.ndarray) else content)
            member = ZipInfo(f"archive/{name}")
            begins = place + LOCAL_HEADER + len(member.filename) + 4
            member.extra = b"FB" + struct.pack("<H", -begins % ALIGNMENT) + b"Z" * (-begins % ALIGNMENT)
            place = begins + -begins % ALIGNMENT + len(raw)
            archive.writestr(member, raw)  # type: ignore[arg-type]


def _pickle(arrays: Mapping[str, np.ndarray]) -> bytes:
    """In protocol 2."""
    out = bytearray(b"\x80\x02" + ORDERED_DICT + b"(")
    for i, (name, array) in enumerate(arrays.items()):
        kind = KINDS.get(array.dtype.name)
        if kind is None:
            raise WeightsError(f"{quoted(name)} has dtype {array.dtype}, which torch has no storage for")
        storage = _tuple(_text("storage"), _global("torch", kind), _text(str(i)), _text("cpu"), _int(array.size)) + b"Q"
        shape = _tuple(*map(_int, array.shape))
        stride = _tuple(*(_int(prod(array.shape[axis + 1 :])) for axis in range(array.ndim)))
        arguments = _tuple(storage, _int(0), shape, stride, b"\x89", ORDERED_DICT)
        out += _text(name) + _global("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"
    return bytes(out + b"u.")


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _int(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if value < 1 << 31 else b"\x8a\x08" + struct.pack("<q", value)


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"
