""".safetensors: 8 bytes with the length of a JSON header, the header, the numbers.

The safetensors library writes it, and checks the header (that no array overlaps another or reaches beyond the file). It
would copy the numbers, and knows no bfloat16 for NumPy, so the arrays are views of a memory map at the offsets that it
has checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from types import ModuleType

import numpy as np

from alexnet_np.errors import MissingPackageError, WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.tensors import numbers

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


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a .safetensors by name. Raises WeightsError, MissingPackageError, OSError."""
    return read_all(path)[0]


def read_all(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays in a .safetensors by name, and its metadata. Raises as `read` does."""
    library = _library()
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise WeightsError(f"refused: a header of {length} bytes, where weights take some thousand")
        with library.safe_open(path, framework="np") as opened:
            metadata = opened.metadata()
        header = json.loads(file.read(length))
        data = memoryview(mmap(file.fileno(), 0, access=ACCESS_COPY))[8 + length :]
    header.pop("__metadata__", None)
    return {name: _array(data, name, **entry) for name, entry in header.items()}, metadata or {}


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write name -> array, and metadata. Raises WeightsError for other dtypes, MissingPackageError, OSError.

    The library makes the bytes but does not write them: killed while it did, it would leave a file of its own behind.
    """
    library = _library()
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES.values():
            raise WeightsError(f"{quoted(name)} has dtype {array.dtype}, which .safetensors does not know")
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    path.write_bytes(library.numpy.save(ordered, None if metadata is None else dict(metadata)))


def _library() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError:
        raise MissingPackageError(".safetensors needs the package safetensors: pip install safetensors") from None
    return safetensors


def _array(data: memoryview, name: str, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    if dtype not in DTYPES:
        raise WeightsError(f"{quoted(name)} has dtype {dtype}; supported: {', '.join(DTYPES)}")
    return numbers(data[slice(*data_offsets)], DTYPES[dtype]).reshape(shape)
