"""ONNX's TensorProto as a leaf: its numbers lie in the file, or in another file of the same folder."""

from __future__ import annotations

from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.formats.protobuf import Parsed
from alexnet_np.weights.leaves import Inert, Leaf, Run, Shape, numbers, raw_dtype
from alexnet_np.weights.source import source_of

DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
EXTERNAL = 1  # data_location


def leaf(parsed: Parsed, tensor: Any, name: str) -> Leaf | Inert:
    """The tensor, unread. Raises WeightsError where its numbers are not there, or not as many."""
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None:
        return Inert(f"an ONNX tensor of type {tensor.data_type}")
    shape = tuple(tensor.dims)
    if any(n < 0 for n in shape):
        raise WeightsError(f"damaged: {quoted(name)} claims shape {shape}")
    nbytes = prod(shape) * raw_dtype(dtype).itemsize
    if tensor.data_location == EXTERNAL:
        return Leaf(shape, dtype, _external(parsed, tensor, name, nbytes, dtype, shape))
    few = tensor.int64_data if dtype == "int64" else tensor.int32_data
    if len(few):
        return Leaf(shape, dtype, partial(_listed, list(few), dtype, shape, name))
    packed = {"float32": tensor.float_data, "float64": tensor.double_data}.get(dtype, b"")
    run = parsed.run(tensor.raw_data or packed)
    if run.nbytes != nbytes:
        raise WeightsError(f"damaged: {quoted(name)} of shape {shape} has {run.nbytes} bytes instead of {nbytes}")
    return Leaf(shape, dtype, partial(_array, run, dtype, shape))


def _array(run: Run, dtype: str, shape: Shape) -> np.ndarray:
    return numbers(run.array(), dtype).reshape(shape)


def _listed(values: list[int], dtype: str, shape: Shape, name: str) -> np.ndarray:
    """Numbers that stand one by one: integers, and half floats as the integers that their bits are."""
    if len(values) != prod(shape):
        raise WeightsError(f"damaged: {quoted(name)} of shape {shape} has {len(values)} numbers")
    if dtype in ("float16", "bfloat16"):
        return numbers(np.array(values, np.int32).astype(np.uint16), dtype).reshape(shape)
    return np.array(values, np.int64).astype(dtype).reshape(shape)


def _external(parsed: Parsed, tensor: Any, name: str, nbytes: int, dtype: str, shape: Shape) -> Any:
    """How to read numbers that lie in another file. Raises WeightsError for one outside of the model's folder."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    path = _beside(parsed.source.path, said.get("location", ""))
    try:
        start, length = int(said.get("offset", 0)), int(said.get("length", nbytes))
    except ValueError:
        raise WeightsError(f"damaged: {quoted(name)} lies at no place in {path.name}") from None
    if length != nbytes:
        raise WeightsError(f"damaged: {quoted(name)} of shape {shape} has {length} bytes in {path.name}")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError(f"keeps its numbers in {quoted(path.name)} beside it: {error.strerror}") from error
    if start < 0 or start + length > size:
        raise WeightsError(
            f"damaged: {path.name} is cut short: {quoted(name)} ends at {start + length} of {size} bytes"
        )

    def read() -> np.ndarray:
        with source_of(path) as source:
            return numbers(source.array(start, nbytes), dtype).reshape(shape)

    return read


def _beside(model: Path | None, location: str) -> Path:
    """The file that a model names, if it lies in the model's folder or below, links followed. Raises WeightsError."""
    if model is None or not location or "\0" in location:
        raise WeightsError("damaged: numbers in another file, which it does not name")
    folder = model.parent.resolve()
    path = (folder / location).resolve()
    if not path.is_relative_to(folder) or Path(location).is_absolute():
        raise WeightsError(f"refused: its numbers would lie at {quoted(location)}, outside of its folder")
    return path
