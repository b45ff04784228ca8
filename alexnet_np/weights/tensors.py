"""What a .pth file says about its tensors, and how their numbers become arrays.

A storage is a run of numbers in the file; a tensor is a strided view of one, and several may share it, as tied weights
do. The arrays are such views too: they cost no memory beyond their storages, whatever shapes a file claims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted

MAX_REPEATED = 1 << 20  # elements in a tensor that repeats its storage's by a stride of 0


@dataclass(frozen=True, slots=True)
class Storage:
    """`numel` numbers of `dtype` (NumPy's name, or "bfloat16"), which the file keeps under `key`."""

    key: str
    dtype: str
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * raw_dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Tensor:
    """A strided view of a storage; `offset` and `stride` count elements. Nothing here has been checked yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def raw_dtype(name: str) -> np.dtype[Any]:
    """The dtype to read `name` as; NumPy has no bfloat16, so its 16 bits are read as they are."""
    return np.dtype("uint16" if name == "bfloat16" else name)


def numbers(raw: Any, dtype: str, big_endian: bool = False) -> np.ndarray:
    """The bytes of one storage as a 1-D array: a view of them where dtype, byte order and alignment allow it.

    bfloat16 becomes float32, which holds each of its values exactly.
    """
    array = np.frombuffer(raw, raw_dtype(dtype).newbyteorder(">" if big_endian else "<"))
    if not array.dtype.isnative or not array.flags.aligned:
        array = array.astype(array.dtype.newbyteorder("="))
    if dtype == "bfloat16":
        wide = array.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return array


def view(name: str, tensor: Tensor, storage: np.ndarray) -> np.ndarray:
    """The tensor as a view of its storage's numbers. Raises WeightsError where it would reach beyond them."""
    shape, stride, size = tensor.shape, tensor.stride, storage.itemsize
    if len(shape) != len(stride):
        raise WeightsError(f"damaged: {quoted(name)} has shape {shape} but strides {stride}")
    if 0 in shape:
        return np.empty(shape, storage.dtype)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if last >= storage.size or prod(shape) > max(storage.size, MAX_REPEATED):
        raise WeightsError(
            f"damaged: {quoted(name)} claims shape {shape}, strides {stride} and offset {tensor.offset} "
            f"in a storage of {storage.size} elements"
        )
    return np.ndarray(shape, storage.dtype, storage, tensor.offset * size, [step * size for step in stride])


def views(tensors: Mapping[str, Tensor], storages: Mapping[Storage, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: view(name, tensor, storages[tensor.storage]) for name, tensor in tensors.items()}
