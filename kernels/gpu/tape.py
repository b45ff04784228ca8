"""What launchers launch, written down once to be run again and again on memory that is planned beforehand.

    tape = Tape()
    x = tape.enters((128, 3, 224, 224))
    with recording(tape):
        y = relu_cuda.compute(x)                  # the launchers as always
    tape.leaves(y)
    memory = queue.allocate(tape.plan_memory())
    tape.put(memory)
    calls = tape.bind(queue)                      # for call in calls: call()

While a tape records, arrays are ghosts: a shape, a dtype and an address made up here, with no memory behind. A launcher
reads no more of an array than that, so recording needs no GPU and costs nothing; whoever read an element would crash.

Every array on the tape is needed from the call that first names it to the one that last does. Arrays that are never
needed at the same time share memory: the largest is placed first, each at the lowest place that is free while it lives.
Source: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020), sec. 5.2, greedy by size.
"""

from __future__ import annotations

import bisect
import ctypes
import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.arguments import Kernel, Parameters, Shape, address, is_array, relocated
from alexnet_np.kernels.gpu.cublas import Cublas, Product
from alexnet_np.kernels.gpu.runtime import current_executor

ALIGNMENT = 256  # bytes: what a GPU's own allocations are aligned to, so that any vector load is
VECTOR = 16  # bytes: the widest load that a kernel makes
GHOSTS = 1 << 40  # where made-up addresses start

_lock = threading.Lock()
_next_ghost = GHOSTS


class Queue(Protocol):
    """What a bound tape needs of where it runs; queue.CudaQueue on a GPU."""

    cublas: Cublas


class Buffer:
    """An array of the tape. Its made-up address is `ghost`; once put, it lies at `offset` of `memory` (uint8)."""

    def __init__(self, nbytes: int) -> None:
        global _next_ghost
        self.nbytes = nbytes
        with _lock:
            self.ghost = _next_ghost
            _next_ghost += rounded_up(max(nbytes, 1))
        self.first: float = math.inf  # the first and the last call that name it
        self.last: float = -math.inf
        self.memory: Array | None = None
        self.offset = 0

    def view(self, offset: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """The real array that begins `offset` bytes into this buffer."""
        assert self.memory is not None, "an array of the tape was not put anywhere"
        start = self.offset + offset
        return self.memory[start : start + math.prod(shape) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)

    def overlaps(self, other: Buffer) -> bool:
        return self.first <= other.last and other.first <= self.last


class Launch(NamedTuple):
    kernel: Kernel
    grid: Shape
    block: Shape
    args: Parameters

    def bind(self, tape: Tape, queue: Queue) -> Callable[[], None]:
        args = relocated(self.args, tape.real)
        return partial(current_executor().launch, self.kernel, self.grid, self.block, args)


class Multiply(NamedTuple):
    product: Product

    def bind(self, tape: Tape, queue: Queue) -> Callable[[], None]:
        given = self.product
        a, b, out = (x._replace(address=tape.real_address(x.address)) for x in (given.a, given.b, given.out))
        return partial(queue.cublas.gemm, given._replace(a=a, b=b, out=out))


class Zero(NamedTuple):
    array: Array

    def bind(self, tape: Tape, queue: Queue) -> Callable[[], None]:
        return partial(current_executor().zero, tape.real(self.array))


class Tape:
    """An executor (executor.Executor) that runs nothing. `outside`: tapes whose arrays this one may use too."""

    def __init__(self, *outside: Tape) -> None:
        self.calls: list[Launch | Multiply | Zero] = []
        self.buffers: list[Buffer] = []
        self._tapes = (self, *outside)

    # Recording.

    def ghost(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        nbytes = int(math.prod(shape)) * np.dtype(dtype).itemsize
        self.buffers.append(Buffer(nbytes))
        nothing = (ctypes.c_ubyte * nbytes).from_address(self.buffers[-1].ghost)
        return np.ndarray(shape, dtype, buffer=nothing)

    def enters(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """A new array that holds something before the first call."""
        array = self.ghost(shape, dtype)
        self.buffers[-1].first = -1
        self.buffers[-1].last = -1
        return array

    def leaves(self, array: Array) -> Array:
        """`array` itself, which is needed after the last call too."""
        self._find(address(array))[0].last = math.inf
        return array

    def stays(self, array: Array) -> Array:
        """`array` itself, whose memory nothing else may use."""
        buffer, _ = self._find(address(array))
        buffer.first, buffer.last = -math.inf, math.inf
        return array

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, like: Array) -> Array:
        return self.ghost(shape, dtype)

    def zero(self, array: Array) -> None:
        self._note(Zero(array), address(array))

    def launch(self, kernel: Kernel, grid: Shape, block: Shape, args: Parameters) -> None:
        self._note(Launch(kernel, grid, block, args), *(address(a) for a in args.arguments if is_array(a)))

    def cublas(self, like: Array) -> Any:
        return self

    def gemm(self, product: Product) -> None:
        self._note(Multiply(product), product.a.address, product.b.address, product.out.address)

    def _note(self, call: Launch | Multiply | Zero, *addresses: int) -> None:
        for where in addresses:
            buffer, _ = self._find(where)
            buffer.first = min(buffer.first, len(self.calls))
            buffer.last = max(buffer.last, len(self.calls))
        self.calls.append(call)

    def _find(self, where: int) -> tuple[Buffer, int]:
        """The buffer that a made-up address lies in, and how far in. Later buffers have higher addresses."""
        for buffers in (tape.buffers for tape in self._tapes):
            i = bisect.bisect_right(buffers, where, key=lambda buffer: buffer.ghost) - 1
            if i >= 0 and where < buffers[i].ghost + max(buffers[i].nbytes, 1):
                return buffers[i], where - buffers[i].ghost
        raise AssertionError(f"an array at {where:#x} came on the tape that is not of it")

    # Memory.

    def plan_memory(self) -> int:
        """Place every array that is not put yet; returns the bytes that all of them take together."""
        placed: list[Buffer] = []
        wanted = [buffer for buffer in self.buffers if buffer.memory is None and buffer.first <= buffer.last]
        for buffer in sorted(wanted, key=lambda buffer: -buffer.nbytes):
            buffer.offset = 0
            for other in placed:  # by offset
                if other.overlaps(buffer):
                    if buffer.offset + buffer.nbytes <= other.offset:
                        break
                    buffer.offset = max(buffer.offset, rounded_up(other.offset + other.nbytes))
            bisect.insort(placed, buffer, key=lambda buffer: buffer.offset)
        return max((rounded_up(buffer.offset + buffer.nbytes) for buffer in placed), default=0)

    def put(self, memory: Array) -> None:
        """Everything that `plan_memory` placed goes to `memory` (uint8)."""
        for buffer in self.buffers:
            if buffer.memory is None:
                buffer.memory = memory

    def put_at(self, ghost: Array, real: Array) -> None:
        """`ghost` is `real`, an array of its shape and dtype in C order, aligned as what was recorded may rely on."""
        assert ghost.shape == real.shape and ghost.dtype == real.dtype and real.flags.c_contiguous
        assert address(real) % VECTOR == 0
        buffer, _ = self._find(address(ghost))
        buffer.memory, buffer.offset = real.reshape(-1).view(np.uint8), 0

    # Running.

    def real(self, ghost: Array) -> Array:
        """The array that a ghost (in C order) has become."""
        buffer, offset = self._find(address(ghost))
        return buffer.view(offset, ghost.shape, ghost.dtype)

    def real_address(self, ghost: int) -> int:
        buffer, offset = self._find(ghost)
        return address(buffer.memory) + buffer.offset + offset

    def bind(self, queue: Queue) -> list[Callable[[], None]]:
        """The calls, ready to be made inside `queue.turn()`."""
        return [call.bind(self, queue) for call in self.calls]


def rounded_up(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
