"""What a .pth file says about its tensors, and how their numbers become arrays.

A storage is a run of numbers in the file; a tensor is a strided view of one, and several may share it, as tied weights
do. The arrays are such views too: they cost no memory beyond their storages, whatever shapes a file claims.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.leaves import MAX_AXES, Inert, Leaf, raw_dtype

MAX_REPEATED = 1 << 20  # elements in a tensor that repeats its storage's by a stride of 0

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",  # of dtypes younger than storage types, which the tensor then names
}
YOUNG = {"uint16", "uint32", "uint64"}  # those of them that NumPy has


class Global(NamedTuple):
    """A name that a pickle asked for. It stays a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Storage:
    """`numel` numbers of `dtype` (NumPy's name, or "bfloat16"), which the file keeps under `key`, read once."""

    def __init__(self, key: str, dtype: str, numel: int, fetch: Callable[[Storage], np.ndarray]) -> None:
        self.key, self.dtype, self.numel = key, dtype, numel
        self._fetch, self._lock = fetch, Lock()
        self._array: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        return self.numel * raw_dtype(self.dtype).itemsize

    def array(self) -> np.ndarray:
        """The numbers. Raises WeightsError."""
        with self._lock:  # several tensors may share them, and several threads read
            if self._array is None:
                self._array = self._fetch(self)
            return self._array


class Storages(dict[str, Storage]):
    """The storages that a pickle refers to, by key. Called with a persistent id it gives the storage that is meant.

    `fetch` reads the numbers of one, when a tensor needs them.
    """

    def __init__(self, fetch: Callable[[Storage], np.ndarray]) -> None:
        super().__init__()
        self.fetch = fetch

    def __call__(self, identity: Any) -> Any:
        """`identity`: ("storage", type, key, location, numel); the legacy format adds None (once it was a view)."""
        if type(identity) is not tuple or len(identity) not in (4, 5, 6):
            raise WeightsError("damaged: its pickle refers to something that is not a storage")
        what, kind, name, _, *rest = identity
        if what == "module":  # (class, file, source): what a pickled model was made from, which is nobody's business
            return kind
        if what != "storage" or rest[1:] not in ([], [None]):
            raise WeightsError(
                f"refers to {quoted(what)}, or to a view of a storage, which only torch before 0.4 wrote"
            )
        return self.add(kind, name, *rest[:1])

    def add(self, kind: Any, name: Any, numel: Any = None) -> Any:
        """The storage of this type and name; an inert object where no array can have such a type."""
        if type(kind) is Global and kind.name.endswith("Storage") and kind.name not in STORAGES:
            return Inert(str(kind))
        if type(kind) is not Global or kind.name not in STORAGES:
            raise WeightsError("damaged: a storage without a type")
        storage = Storage(key(name), STORAGES[kind.name], size(numel), self.fetch)
        known = self.setdefault(storage.key, storage)
        if (known.dtype, known.numel) != (storage.dtype, storage.numel):
            raise WeightsError(f"damaged: storage {quoted(storage.key)} has two types or sizes")
        return known


def key(name: Any) -> str:
    """What a storage or a tensor goes by: a string, in some formats a number."""
    if type(name) not in (str, int):
        raise WeightsError("damaged: a storage or a tensor without a name")
    return str(name)


def size(value: Any) -> int:
    """A size, stride or offset, checked: a whole number that fits 64 bits."""
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise WeightsError("damaged: a size, stride or offset in its pickle is not a whole number, or out of range")
    return value


def sizes(values: Any) -> tuple[int, ...]:
    """The sizes or strides of a tensor, checked."""
    if type(values) not in (tuple, list) or len(values) > MAX_AXES:
        raise WeightsError(f"damaged: the sizes of a tensor are not a tuple of at most {MAX_AXES}")
    return tuple(map(size, values))


def tensor(storage: Storage, offset: Any, shape: Any, stride: Any, dtype: str | None = None) -> Leaf:
    """A strided view of a storage, in elements. Raises WeightsError where it would reach beyond."""
    offset, shape, stride, dtype = size(offset), sizes(shape), sizes(stride), dtype or storage.dtype
    if len(shape) != len(stride):
        raise WeightsError(f"damaged: a tensor has shape {shape} but strides {stride}")
    numel = storage.nbytes // raw_dtype(dtype).itemsize
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if 0 not in shape and (last >= numel or prod(shape) > max(numel, MAX_REPEATED)):
        raise WeightsError(
            f"damaged: a tensor claims shape {shape}, strides {stride} and offset {offset} "
            f"in storage {quoted(storage.key)} of {numel} elements"
        )
    read = partial(_view, storage, offset, shape, stride, dtype)
    return Leaf(shape, dtype, read, (id(storage), offset, shape, stride))


def _view(storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], dtype: str) -> np.ndarray:
    if 0 in shape:
        return np.empty(shape, "float32" if dtype == "bfloat16" else dtype)
    array = storage.array()
    if dtype != storage.dtype:
        array = array.view(dtype)
    step = array.itemsize
    return np.ndarray(shape, array.dtype, array, offset * step, [each * step for each in stride])
