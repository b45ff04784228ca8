"""A kernel and its arguments, as a launcher names them and as CUDA takes them.

A kernel's arguments, in Python: an array is a pointer and None a null pointer; an int is an `index_t` and a float a
`real`, whatever those are in this build; a NumPy scalar or a ctypes structure is itself. A NamedTuple is a struct by
value, with an `int`, a `bool` or a `real` for each int, bool or float, an array for a tuple, a struct for a NamedTuple.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, get_args, get_type_hints

import numpy as np

from alexnet_np.device import Array, on_gpu
from alexnet_np.errors import BackendError

Shape = tuple[int, int, int]  # of a grid or a block: x, y, z

REALS = {np.dtype("float32"): ("float", ctypes.c_float), np.dtype("float64"): ("double", ctypes.c_double)}
FIELDS = {int: ctypes.c_int, bool: ctypes.c_bool}
MOST = 0x7FFFFFFF  # an `int` of a struct


class Kernel(NamedTuple):
    """One `__global__` function of one .cu file, compiled with `defines`."""

    stem: str
    name: str
    defines: tuple[tuple[str, str], ...]


class Parameters(NamedTuple):
    """Packed arguments: what cuLaunchKernel takes, a pointer to a pointer to each value."""

    arguments: tuple[Any, ...]  # kept so that arrays outlive the launch
    values: list[Any]  # ctypes values
    pointers: Any  # void*[]


def pack(args: tuple[Any, ...], index: Any, real: Any) -> Parameters:
    values = [to_c(a, index, real) for a in args]
    pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
    return Parameters(args, values, pointers)


def relocated(args: Parameters, move: Callable[[Array], Array]) -> Parameters:
    """The same arguments, but of every array `a` it is `move(a)`."""
    arguments = tuple(move(a) if is_array(a) else a for a in args.arguments)
    pairs = zip(arguments, args.values, strict=True)
    values = [ctypes.c_void_p(address(a)) if is_array(a) else value for a, value in pairs]
    pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
    return Parameters(arguments, values, pointers)


def to_c(argument: Any, index: Any, real: Any) -> Any:
    if argument is None:
        return ctypes.c_void_p(0)
    if is_array(argument):
        return ctypes.c_void_p(address(argument))
    if isinstance(argument, ctypes.Structure):
        return argument
    if is_group(argument):
        return to_struct(argument, real)
    if isinstance(argument, np.generic):
        kind: Any = np.ctypeslib.as_ctypes_type(argument.dtype.str)
        return kind(argument.item())
    return index(argument) if isinstance(argument, int) else real(argument)


def is_group(x: Any) -> bool:
    return isinstance(x, tuple) and hasattr(x, "_fields")


def to_struct(group: Any, real: Any) -> ctypes.Structure:
    values = [to_struct(value, real) if is_group(value) else value for value in group]
    if any(isinstance(value, int) and abs(value) > MOST for value in values):
        raise BackendError(f"cuda: {group} has a number beyond 32 bits; use smaller arrays")
    kind: Any = type(group)
    return structure(kind, real)(*values)


@cache
def structure(group: Any, real: Any) -> type[ctypes.Structure]:
    """The C struct of a NamedTuple, from the types of its fields."""
    fields = [(name, field(kind, real)) for name, kind in get_type_hints(group).items()]
    return type(group.__name__, (ctypes.Structure,), {"_fields_": fields})


def field(kind: Any, real: Any) -> Any:
    if kind is float:
        return real
    if kind in FIELDS:
        return FIELDS[kind]
    if hasattr(kind, "_fields"):
        return structure(kind, real)
    first, *rest = get_args(kind)  # tuple[float, float, float]
    return field(first, real) * (1 + len(rest))


def is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray) or on_gpu(x)


def address(x: Array) -> int:
    return x.data.ptr if on_gpu(x) else x.ctypes.data
