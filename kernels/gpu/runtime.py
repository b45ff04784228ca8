"""What launchers call: `launch` a kernel of a .cu file, `empty` and `zeros` for its results.

A launcher knows arrays and geometry, never who executes: it calls `launch` here, and `gemm` in gemm_cuda.py. The
executor does the rest. `CupyExecutor` compiles with NVRTC and launches on the GPU; the tests put in one that compiles
the same source as C++ and runs it on NumPy arrays, with the same grid, block and packed arguments.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from alexnet_np.device import Array, clear_errors
from alexnet_np.errors import BackendError
from alexnet_np.kernels.gpu.arguments import REALS, Kernel, Shape, is_array, pack
from alexnet_np.kernels.gpu.executor import CupyExecutor, Executor, Recorder

BLOCK = 256  # threads a block, where a kernel has no reason for another number
LONG = 1 << 30  # from this many elements on, indices take 64 bits

_executor: Executor = CupyExecutor()
_recorder: ContextVar[Any] = ContextVar("alexnet_np_cuda_recorder", default=None)


def current_executor() -> Executor:
    return _recorder.get() or _executor


def device_name() -> str:
    """Of the GPU that launches go to; empty where there is none."""
    return _executor.device_name()


@contextmanager
def use_executor(executor: Executor) -> Iterator[None]:
    """Launches inside the `with` go to `executor`, those of every thread."""
    global _executor
    before, _executor = _executor, executor
    try:
        yield
    finally:
        _executor = before


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Launches inside the `with` go to `recorder`, those of this thread and no other."""
    token = _recorder.set(recorder)
    try:
        yield
    finally:
        _recorder.reset(token)


def launch(
    stem: str, name: str, grid: tuple[int, ...], block: tuple[int, ...], *args: Any, real: np.dtype, **defines: Any
) -> None:
    """Run kernel `name` of `stem`.cu, compiled for `real` with `defines`, over `grid` blocks of `block` threads.

    Does nothing over an empty grid. Raises BackendError.
    """
    if 0 in grid:
        return
    arrays = [a for a in args if is_array(a)]
    for array in arrays:
        if not array.flags.c_contiguous:
            raise BackendError(f"cuda: {name} takes arrays in C order, got strides {array.strides} of {array.shape}")
    long = max(a.size for a in arrays) >= LONG
    index = ("long long", ctypes.c_longlong) if long else ("int", ctypes.c_int)
    defines = {"REAL": REALS[real][0], "INDEX": index[0], "BLOCK": BLOCK, **defines}
    kernel = Kernel(stem, name, tuple((key, str(value)) for key, value in defines.items()))
    current_executor().launch(kernel, three(grid), three(block), pack(args, index[1], REALS[real][1]))


def launch_each(stem: str, name: str, count: int, *args: Any, real: np.dtype, **defines: Any) -> None:
    """`launch` with a thread for each of `count` elements; the kernel's last argument is `count`."""
    launch(stem, name, (ceil_div(count, BLOCK),), (BLOCK,), *args, count, real=real, **defines)


def launch_map(stem: str, name: str, *arrays: Array) -> Array:
    """What an elementwise kernel makes of `arrays`, all of one shape and dtype: an array like them."""
    arrays = tuple(contiguous(array) for array in arrays)
    out = empty(arrays[0].shape, arrays[0])
    launch_each(stem, name, out.size, *arrays, out, real=out.dtype)
    return out


def three(sides: tuple[int, ...]) -> Shape:
    x, y, z = (*sides, 1, 1)[:3]
    return x, y, z


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def contiguous(x: Array) -> Array:
    """`x` in C order, copied only if it is not."""
    if x.flags.c_contiguous:
        return x
    with clear_errors("cuda: a contiguous copy"):
        return x.copy(order="C")


def empty(shape: tuple[int, ...], like: Array, dtype: Any = None) -> Array:
    """An array not yet written, beside `like` and of its dtype unless another is given."""
    dtype = np.dtype(dtype or like.dtype)
    with clear_errors(f"cuda: {math.prod(shape) * dtype.itemsize:,} bytes for an array of shape {shape}"):
        return current_executor().empty(shape, dtype, like)


def zeros(shape: tuple[int, ...], like: Array) -> Array:
    array = empty(shape, like)
    current_executor().zero(array)
    return array
