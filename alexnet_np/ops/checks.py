"""What every op asks of its arguments before any math: arrays of one dtype, the right rank, sane pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from alexnet_np import arguments
from alexnet_np.device import Array, as_array, on_gpu
from alexnet_np.errors import ArgumentError, BackendError, DtypeError, ShapeError

Needs = tuple[bool, bool, bool]  # which of dx, dweight, dbias the caller wants


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


def cached(op: str, cache: Any, kind: type) -> Any:
    """`cache` if it is what the op's forward returned: a `kind`, or an array. Raises ArgumentError."""
    if isinstance(cache, kind) or (kind is object and hasattr(cache, "dtype")):
        return cache
    raise ArgumentError(
        f"{op} backward: cache must be what {op}.forward returned beside y, got a {type(cache).__name__}; "
        f"y, cache = {op}.forward(...)"
    )


def wanted(op: str, needs: Any) -> Needs:
    """Which of dx, dweight and dbias to compute, as three flags. Raises ArgumentError."""
    flags = arguments.items(f"{op} backward", "needs", needs, "three flags: of dx, dweight and dbias")
    if len(flags) != 3:
        raise ArgumentError(f"{op} backward: needs must be three flags, of dx, dweight and dbias, got {len(flags)}")
    dx, dweight, dbias = (arguments.flag(f"{op} backward", "needs", each) for each in flags)
    return dx, dweight, dbias


def brief(cache: Any) -> str:
    """The repr of a cache: arrays by dtype and shape, everything on one line."""
    parts = []
    for name, value in cache._asdict().items():
        array = hasattr(value, "dtype") and hasattr(value, "shape")
        parts.append(f"{name}={f'{value.dtype}{value.shape}' if array else repr(value)}")
    return f"{type(cache).__module__.rpartition('.')[2]}.{type(cache).__name__}({', '.join(parts)})"


def axis(op: str, dim: int, rank: int) -> int:
    """`dim` counted from the front; -1 is the last axis."""
    place = arguments.integer(op, "dim", dim)
    if not -rank <= place < rank:
        raise ArgumentError(
            f"{op}: dim {place} is out of range for an array of rank {rank}; give {-rank} to {rank - 1}"
        )
    return place % rank


def batched(op: str, x: Array) -> tuple[Array, bool]:
    """(N,C,H,W) and whether the batch axis was added to a (C,H,W) image."""
    if x.ndim not in (3, 4):
        raise ShapeError(f"{op}: x must be (N,C,H,W) or (C,H,W), got shape {x.shape}")
    return (x[None], True) if x.ndim == 3 else (x, False)
