""".safetensors: 8 bytes with the length of a JSON header, the header, the numbers.

    {"NAME": {"dtype": "F32", "shape": [64, 3, 11, 11], "data_offsets": [0, 92928]}, …, "__metadata__": {"KEY": "text"}}

The arrays must lie one after the other, without gaps, and fill the rest of the file: what a header claims is checked
against that before anything is read, and the arrays are views of a memory map.

Source of the format: huggingface/safetensors, README.md, "Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.weights.tensors import numbers, raw_dtype
from alexnet_np.weights.text import quoted

MAX_HEADER = 4 << 20  # bytes; AlexNet's has 1.3 kB
METADATA = "__metadata__"
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
CODES = {name: code for code, name in DTYPES.items()}


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a .safetensors by name. Raises WeightsError, OSError."""
    return read_all(path)[0]


def read_all(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays in a .safetensors by name, and its metadata. Raises WeightsError, OSError; ValueError for bad JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise WeightsError(f"refused: a header of {length} bytes, where weights take some thousand")
        header = json.loads(file.read(length))
        data = memoryview(mmap(file.fileno(), 0, access=ACCESS_COPY))[8 + length :]
    metadata = header.pop(METADATA, {})
    _check(header, len(data))
    arrays = {
        name: numbers(data[slice(*entry["data_offsets"])], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }
    return arrays, metadata


def _check(header: Mapping[str, Any], size: int) -> None:
    """Raises WeightsError unless the arrays lie one after the other, each as long as its shape, and fill `size`."""
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in DTYPES:
            raise WeightsError(f"{quoted(name)} has dtype {quoted(entry['dtype'])}; supported: {', '.join(DTYPES)}")
        shape, (start, stop) = entry["shape"], entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, start, stop))
        if not whole or start != end or stop - start != prod(shape) * raw_dtype(DTYPES[entry["dtype"]]).itemsize:
            raise WeightsError(f"damaged: {quoted(name)} claims bytes {start} to {stop} for the shape {shape}"[:300])
        end = stop
    if end != size:
        raise WeightsError(f"cut short or damaged: {size} bytes of numbers, where its header claims {end}")


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write name -> array, straight from the arrays' memory. Raises WeightsError for other dtypes, OSError.

    The widest numbers come first, so that every array begins at a multiple of its item size, as other readers need it.
    """
    stored = {name: _little_endian(name, array) for name, array in arrays.items()}
    by_width = sorted(stored, key=lambda name: -stored[name].itemsize)
    offsets, end = {}, 0
    for name in by_width:
        start, end = end, end + stored[name].nbytes
        offsets[name] = [start, end]
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    for name, array in stored.items():
        header[name] = {"dtype": CODES[array.dtype.name], "shape": array.shape, "data_offsets": offsets[name]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)  # the numbers begin at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name in by_width:
            file.write(stored[name].data)


def _little_endian(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.name not in CODES:
        raise WeightsError(f"{quoted(name)} has dtype {array.dtype}, which .safetensors does not know")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")
