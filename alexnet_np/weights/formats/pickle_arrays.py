"""NumPy's arrays in a pickle: `_reconstruct` makes an empty one and BUILD fills it; `_frombuffer` does both at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.weights.leaves import Holder, Inert, Leaf, Run, numbers

CODES = {f"{kind}{n}": f"{name}{8 * n}" for kind, name in (("i", "int"), ("u", "uint")) for n in (1, 2, 4, 8)}
CODES |= {"f2": "float16", "f4": "float32", "f8": "float64", "b1": "bool", "O8": "object", "O4": "object"}


class Dtype(Holder):
    """numpy.dtype: its code, and after BUILD the byte order."""

    __slots__ = ("big_endian", "name")

    def __init__(self, code: Any, *rest: Any) -> None:
        super().__init__()
        self.name = CODES.get(code) if type(code) is str else None  # None: no number of a network
        self.big_endian = False


def _reconstruct(*arguments: Any) -> Holder:
    return Holder()


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> Any:
    return _array(shape, dtype, order == "F", buffer)


def fill(target: Holder, state: Any) -> None:
    """What BUILD gives: a dtype its (version, byte order, ...), an array its (version, shape, dtype, is Fortran,
    numbers), a Parameter of torch before 0.4 its (tensor, ...) if it was made without one."""
    if type(state) is not tuple:
        return
    if isinstance(target, Dtype):
        target.big_endian = state[1] == ">"
    elif len(state) == 5 and isinstance(state[2], Dtype):
        target.content = _array(state[1], state[2], state[3] is True or state[3] == 1, state[4])
    elif len(state) == 5:
        target.content = state[0]


def _array(shape: Any, dtype: Any, fortran: bool, raw: Any) -> Any:
    """A leaf, for an array of objects the list of them, for one of something else an inert object."""
    if type(dtype) is not Dtype or dtype.name is None:
        return Inert("numpy.ndarray")
    if dtype.name == "object":
        return raw if type(raw) is list else Inert("numpy.ndarray")
    if type(shape) is not tuple or len(shape) > 64 or any(type(n) is not int or n < 0 for n in shape):
        raise WeightsError("damaged: an array without a shape")
    if type(raw) is str:  # Python 2 and its bytes
        raw = raw.encode("latin-1")
    if type(raw) not in (bytes, bytearray, Run):
        return Inert("numpy.ndarray")
    have, claimed = raw.nbytes if type(raw) is Run else len(raw), prod(shape) * np.dtype(dtype.name).itemsize
    if have != claimed:
        raise WeightsError(f"damaged: an array of shape {shape} claims {claimed} bytes and has {have}")
    return Leaf(shape, dtype.name, partial(_read, raw, shape, dtype.name, dtype.big_endian, fortran))


def _read(raw: bytes | Run, shape: tuple[int, ...], dtype: str, big_endian: bool, fortran: bool) -> np.ndarray:
    flat = numbers(raw.array() if isinstance(raw, Run) else raw, dtype, big_endian)
    return flat.reshape(shape, order="F" if fortran else "C")


REBUILD: dict[tuple[str, str], Callable[..., Any]] = {("numpy", "dtype"): Dtype}
for core in ("numpy.core", "numpy._core"):
    REBUILD[f"{core}.multiarray", "_reconstruct"] = _reconstruct
    REBUILD[f"{core}.numeric", "_frombuffer"] = _from_buffer
