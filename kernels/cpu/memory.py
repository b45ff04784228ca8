"""Memory for results that is used again once nobody refers to them any more.

A training step hands out some hundred megabytes of activations and gradients and drops them again. The system gives
each such array fresh pages, which it first has to clear: that took longer than the ReLU that filled them. Sizes repeat
from step to step, so blocks are kept here, and handed out again.

Each block is lent out: a `Lease` shows its memory to NumPy, every view, however derived, refers to the lease, and the
lease brings the block back when the last of them is gone, in whatever thread that happens.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from alexnet_np import threads
from alexnet_np.device import Array

SMALL = 1 << 20  # bytes; below this the system's allocator keeps its memory itself
KEEP = 64 << 20  # bytes of idle blocks that survive when a new block is needed

WASTE = 2  # a block may be this many times as large as what is asked for

_turn = threads.Turn()
_idle: list[Array] = []  # those idle longest first
_returned: deque[Array] = deque()  # to be idle: a lease may end anywhere, in `_block` too, and never waits for its turn


class Lease:
    """A block's memory as an array of `shape` and `dtype`, for as long as anything shows it."""

    __slots__ = ("__array_interface__", "_block")

    def __init__(self, block: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._block = block
        memory = block.__array_interface__["data"]
        self.__array_interface__ = {"data": memory, "shape": shape, "typestr": dtype.str, "version": 3}

    def __del__(self, bring_back: Any = _returned.append) -> None:
        bring_back(self._block)


def empty(shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> Array:
    """An array as numpy.empty gives it."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < SMALL:
        return np.empty(shape, kind)
    with _turn:
        block = _block(size)
    return np.asarray(Lease(block, shape, kind))


def empty_like(x: Array) -> Array:
    """An array of x's shape and dtype, its axes in the order that x's have in memory, without gaps."""
    order = sorted(range(x.ndim), key=lambda axis: (-abs(x.strides[axis]), axis))
    packed = empty(tuple(x.shape[axis] for axis in order), x.dtype.type)
    return packed.transpose(sorted(range(x.ndim), key=order.__getitem__))


def _block(size: int) -> Array:
    """The smallest idle block that fits; if there is none, a new one, for which those idle longest give way."""
    while _returned:
        _idle.append(_returned.popleft())
    fitting = [i for i, block in enumerate(_idle) if size <= block.size <= WASTE * size]
    if fitting:
        return _idle.pop(min(fitting, key=lambda i: _idle[i].size))
    excess = sum(block.size for block in _idle) - KEEP
    while excess > 0:
        excess -= _idle.pop(0).size
    return np.empty(size, np.uint8)


def plain(array: Array) -> Array:
    """`array`, or a copy: in C order, aligned and writeable, since Numba compiles a kernel anew for each other kind."""
    return np.require(array, None, ["C", "A", "W"])
