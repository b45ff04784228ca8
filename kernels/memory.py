"""Memory for results that is used again once nobody refers to them any more.

A training step hands out some hundred megabytes of activations and gradients and drops them again. The system gives
each such array fresh pages, which it first has to clear: that took longer than the ReLU that filled them. Sizes repeat
from step to step, so blocks are kept here, and one is handed out again when this module holds the only reference left.
"""

from __future__ import annotations

import math
import sys
import threading

import numpy as np

from alexnet_np.backend import Array

SMALL = 1 << 20  # bytes; below this the system's allocator keeps its memory itself
IDLE = 512  # a block that was not asked for in so many calls is given back

_lock = threading.Lock()
_blocks: dict[int, list[list]] = {}  # bytes -> [block, when it was last handed out]
_calls = 0


def empty(shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> Array:
    """An array as numpy.empty gives it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    with _lock:
        block = _idle(size)
        return block.view(dtype).reshape(shape)


def empty_like(x: Array) -> Array:
    """An array of x's shape and dtype, its axes in the order that x's have in memory, without gaps."""
    order = sorted(range(x.ndim), key=lambda axis: (-abs(x.strides[axis]), axis))
    packed = empty(tuple(x.shape[axis] for axis in order), x.dtype.type)
    return packed.transpose(sorted(range(x.ndim), key=order.__getitem__))


def _idle(size: int) -> Array:
    """A block of `size` bytes that nobody refers to: a view of one, however derived, refers to the block itself."""
    global _calls
    _calls += 1
    for entry in _blocks.get(size, ()):
        if sys.getrefcount(entry[0]) == 2:  # the entry's, and the argument of getrefcount
            entry[1] = _calls
            return entry[0]
    _drop_unused()
    block = np.empty(size, np.uint8)
    _blocks.setdefault(size, []).append([block, _calls])
    return block


def _drop_unused() -> None:
    for size, entries in list(_blocks.items()):
        kept = [entry for entry in entries if _calls - entry[1] < IDLE or sys.getrefcount(entry[0]) > 2]
        if kept:
            _blocks[size] = kept
        else:
            del _blocks[size]
