""".safetensors: 8 bytes with the length of a JSON header, the header, the numbers.

The safetensors library writes it. Reading, it would either copy every number or map the file into memory, which is no
good where another process may cut the file; so the header is read here, by the rules that the library has for it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np

from alexnet_np.errors import MissingPackageError, WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.leaves import Contents, Inert, Leaf, numbers, raw_dtype, read_all
from alexnet_np.weights.source import Source, source_of

MAX_HEADER = 4 << 20  # bytes; AlexNet's has 1.3 kB
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


def read(source: Source) -> Contents:
    """The arrays in a .safetensors by name, in the order of layers (the file sorts them). Raises WeightsError."""
    length = int.from_bytes(source.read(0, 8), "little")
    if length > MAX_HEADER:
        raise WeightsError(f"refused: a header of {length} bytes, where weights take some thousand")
    header = _header(source.read(8, length))
    metadata = header.pop("__metadata__", {})
    if type(metadata) is not dict or any(type(text) is not str for text in metadata.values()):
        raise WeightsError("damaged: its metadata is not text")
    data = source.part(8 + length, source.size - 8 - length)
    leaves: dict[str, Leaf | Inert] = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _begin(*item)):
        begin, end_of_array, leaf = _leaf(data, name, entry)
        if begin != end:  # the arrays lie one behind the other: no array overlaps another, and no byte is unclaimed
            raise WeightsError(f"damaged: {quoted(name)} begins at {begin} where the array before it ends at {end}")
        leaves[name], end = leaf, end_of_array
    if end != data.size:
        raise WeightsError(f"damaged: its arrays end at {end} of {data.size} bytes: cut short, or something follows")
    return Contents(".safetensors", {name: leaves[name] for name in sorted(leaves, key=natural)}, metadata=metadata)


def read_file(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    """The arrays in a .safetensors by name, and its metadata. Raises WeightsError, OSError."""
    with source_of(path) as source:
        contents = read(source)
        if inert := [name for name, leaf in contents.tree.items() if type(leaf) is Inert]:
            raise WeightsError(f"{quoted(inert[0])} has {contents.tree[inert[0]].kind}")
        return read_all(contents.tree), contents.metadata


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write name -> array, and metadata. Raises WeightsError for other dtypes, MissingPackageError, OSError.

    The library writes the numbers from where they lie, under a name of its own, in a folder of ours: killed while it
    does, it leaves nothing that nobody knows.
    """
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES.values():
            raise WeightsError(f"{quoted(name)} has dtype {array.dtype}, which .safetensors does not know")
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with TemporaryDirectory(prefix=".", suffix=".part", dir=path.parent) as folder:
        made = Path(folder) / "weights"
        save(made, ordered, metadata)
        made.replace(path)


def save(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Arrays in C order to a file, by the library. Raises MissingPackageError, OSError; then it may be half written."""
    library = _library()
    path.touch()  # the library lets nobody but the owner read what it writes: this is as every other file
    mode = path.stat().st_mode
    try:
        library.numpy.save_file(dict(arrays), path, None if metadata is None else dict(metadata))
    except library.SafetensorError as error:  # which tells the system's reason by its number, in words
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(*((int(number[1]), os.strerror(int(number[1]))) if number else (str(error),))) from error
    path.chmod(mode)


def natural(name: str) -> list[Any]:
    """For sorting: "features.10" comes after "features.8"."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d{1,9})", name)]


def _library() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError:
        raise MissingPackageError(".safetensors needs the package safetensors: pip install safetensors") from None
    return safetensors


def _header(raw: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise WeightsError("damaged: a name stands twice in its header")
        return dict(pairs)

    header = json.loads(raw.decode(), object_pairs_hook=once)
    if type(header) is not dict:
        raise WeightsError("damaged: its header is no JSON object")
    return header


def _begin(name: str, entry: Any) -> tuple[int, int]:
    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"damaged: its header does not say dtype, shape and place of {quoted(name)}")
    places, shape = entry["data_offsets"], entry["shape"]
    for values in (places, shape):
        if type(values) is not list or any(type(n) is not int or not 0 <= n < 1 << 62 for n in values):
            raise WeightsError(f"damaged: the shape or the place of {quoted(name)} are not whole numbers")
    if len(places) != 2:
        raise WeightsError(f"damaged: {quoted(name)} has no beginning and end")
    return places[0], places[1]


def _leaf(data: Source, name: str, entry: dict[str, Any]) -> tuple[int, int, Leaf | Inert]:
    (begin, end), shape = entry["data_offsets"], tuple(entry["shape"])
    data.check(begin, end - begin)
    if type(entry["dtype"]) is not str:
        raise WeightsError(f"damaged: {quoted(name)} has no dtype")
    dtype = DTYPES.get(entry["dtype"])
    if dtype is None:
        return begin, end, Inert(f"dtype {entry['dtype'][:20]}, which NumPy does not have")
    if end - begin != prod(shape) * raw_dtype(dtype).itemsize:
        raise WeightsError(f"damaged: {quoted(name)} of shape {shape} has {end - begin} bytes")
    return begin, end, Leaf(shape, dtype, partial(_array, data, begin, end - begin, dtype, shape))


def _array(data: Source, begin: int, nbytes: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return numbers(data.array(begin, nbytes), dtype).reshape(shape)
