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

from alexnet_np.device import Array

SMALL = 1 << 20  # bytes; below this the system's allocator keeps its memory itself
KEEP = 64 << 20  # bytes of idle blocks that survive when a new block is needed

WASTE = 2  # a block may be this many times as large as what is asked for

_lock = threading.Lock()
_blocks: list[list] = []  # [block, when it was last handed out]
_calls = 0


def empty(shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> Array:
    """An array as numpy.empty gives it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    with _lock:
        return _idle(size)[:size].view(dtype).reshape(shape)


def empty_like(x: Array) -> Array:
    """An array of x's shape and dtype, its axes in the order that x's have in memory, without gaps."""
    order = sorted(range(x.ndim), key=lambda axis: (-abs(x.strides[axis]), axis))
    packed = empty(tuple(x.shape[axis] for axis in order), x.dtype.type)
    return packed.transpose(sorted(range(x.ndim), key=order.__getitem__))


def _idle(size: int) -> Array:
    """The smallest idle block that fits; if there is none, a new one, for which those idle longest give way."""
    global _calls
    _calls += 1
    # Two references to an idle block: its entry's, and the argument here. A view of it, however derived, is a third.
    idle = [entry for entry in _blocks if sys.getrefcount(entry[0]) == 2]
    fitting = [entry for entry in idle if size <= entry[0].size <= WASTE * size]
    if fitting:
        best = min(fitting, key=lambda entry: entry[0].size)
    else:
        _give_back(sorted(idle, key=lambda entry: entry[1]))
        best = [np.empty(size, np.uint8), _calls]
        _blocks.append(best)
    best[1] = _calls
    return best[0]


def _give_back(idle: list[list]) -> None:
    """Drop blocks, those idle longest first, until the rest is at most KEEP bytes."""
    excess = sum(entry[0].size for entry in idle) - KEEP
    for entry in idle:
        if excess <= 0:
            return
        excess -= entry[0].size
        _blocks[:] = [other for other in _blocks if other is not entry]
