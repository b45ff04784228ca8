"""What every op asks of its arguments before any math: arrays of one dtype, the right rank, sane pairs."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from alexnet_np.device import Array, as_array, on_gpu
from alexnet_np.errors import ArgumentError, BackendError, DtypeError, ShapeError


def float_arrays(op: str, optional: str = "", **arrays: Any) -> list[Array]:
    """The arguments as arrays, all float32 or all float64, all on one device. The `optional` one may be None."""
    checked = [None if x is None and name == optional else as_array(x, f"{op}: {name}") for name, x in arrays.items()]
    given = [(name, x) for name, x in zip(arrays, checked, strict=True) if x is not None]
    first_name, first = given[0]
    for name, x in given:
        if x.dtype not in (np.float32, np.float64):
            raise DtypeError(f"{op}: {name} is {x.dtype}; convert it, e.g. {name}.astype('float32')")
        if x.dtype != first.dtype:
            raise DtypeError(f"{op}: {first_name} is {first.dtype} but {name} is {x.dtype}; use one dtype")
        if on_gpu(x) != on_gpu(first):
            here, there = ("GPU", "CPU") if on_gpu(first) else ("CPU", "GPU")
            raise BackendError(f"{op}: {first_name} is on the {here} but {name} on the {there}; move one of them")
    return checked


def gradient(op: str, dy: Any, shape: tuple[int, ...], like: Array) -> Array:
    """`dy` as an array of the output's shape and the input's dtype and device."""
    dy, _ = float_arrays(f"{op} backward", dy=dy, x=like)
    if dy.shape != shape:
        raise ShapeError(f"{op} backward: dy has shape {dy.shape}, the output had {shape}")
    return dy


def integer(op: str, name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ArgumentError(f"{op}: {name} must be an int, got {value!r}") from None


def pair(op: str, name: str, value: Any, least: int) -> tuple[int, int]:
    """An int or a pair of ints, each at least `least`, as (for the height, for the width)."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) == 1:
        values *= 2
    try:
        height, width = (operator.index(v) for v in values)
    except (TypeError, ValueError):
        raise ArgumentError(f"{op}: {name} must be an int or a pair of ints, got {value!r}") from None
    if min(height, width) < least:
        raise ArgumentError(f"{op}: {name} must be at least {least}, got {value!r}")
    return height, width


def axis(op: str, dim: int, rank: int) -> int:
    """`dim` counted from the front; -1 is the last axis."""
    if not -rank <= integer(op, "dim", dim) < rank:
        raise ArgumentError(f"{op}: dim {dim} is out of range for an array of rank {rank}")
    return dim % rank


def batched(op: str, x: Array) -> tuple[Array, bool]:
    """(N,C,H,W) and whether the batch axis was added to a (C,H,W) image."""
    if x.ndim not in (3, 4):
        raise ShapeError(f"{op}: x must be (N,C,H,W) or (C,H,W), got shape {x.shape}")
    return (x[None], True) if x.ndim == 3 else (x, False)
