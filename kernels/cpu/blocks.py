"""Kernels that many threads compute together: written for one block, called for all of them.

    @block_kernel
    def double(block, worker, x, y):
        y[block] = 2 * x[block]

    double[len(x)](x, y)

`block` counts from 0; `worker` is the number of the thread that computes it, for its share of a workspace. Blocks may
run in any order, each once, by any thread (team.py). So that results do not depend on that, a block writes what is its
own, and what it writes does not depend on `worker`.

What is called from Python is compiled to write the arguments into memory, with the address of a function that takes
them from there and computes some blocks: a step of a program. It runs at once, or inside `recording()` is kept.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.cpu import team
from alexnet_np.kernels.cpu.atomics import INT, address
from alexnet_np.kernels.cpu.jit import kernel

HEAD = 8  # of a step's memory, in words: function, address of the arguments, blocks
ROOM = 512  # words for it all

_own = threading.local()


class Uncompiled:
    """A block kernel as the Python it is written in, in this thread."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __getitem__(self, blocks: int) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            for block in range(blocks):
                self.function(block, 0, *arguments)

        return run


class block_kernel:
    """Compile `function(block, worker, *arguments)`, to be called as `kernel[blocks](*arguments)`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__doc__, self.__module__ = function.__doc__, function.__module__
        self.__name__, self.__qualname__ = function.__name__, function.__qualname__
        self.py_func = Uncompiled(function)
        self._write = kernel(_writer(function, kernel(function)))

    def __getitem__(self, blocks: int) -> Callable[..., None]:
        return functools.partial(self._run, blocks)

    def _run(self, blocks: int, *arguments: Any) -> None:
        if blocks < 1:
            return
        program: Program | None = getattr(_own, "program", None)
        memory = _memory() if program is None else np.empty(ROOM, np.int64)
        self._write(memory, blocks, *arguments)
        if program is None:
            team.run(memory[: team.WORDS].reshape(1, team.WORDS), threads.workers())
        else:
            program.add(memory, arguments)


def _memory() -> Array:
    """Of the calling thread's own, for a step that runs at once."""
    if not hasattr(_own, "memory"):
        _own.memory = np.empty(ROOM, np.int64)
    return _own.memory


step: Any = None  # in a writer's globals, its own


def _write(memory, blocks, *arguments):  # type: ignore[no-untyped-def]
    memory[0] = step(memory, arguments)
    memory[1] = address(memory, HEAD)
    memory[2] = blocks


def _writer(function: Callable[..., Any], body: Any) -> Callable[..., Any]:
    """What writes a step of `function`: no closure, for Numba's own cache, where it has to serve, finds none again."""
    writer = FunctionType(_write.__code__, {**globals(), "step": _step_of(body)})
    writer.__qualname__ = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
    return writer


def _step_of(body: Any) -> Any:
    """What writes arguments to memory[HEAD:] and gives the address of what computes blocks with them from there."""

    @intrinsic
    def step(typing_context, memory, arguments):  # type: ignore[no-untyped-def]
        of_block = types.int64, types.int64, *arguments.types
        signature = typing_context.resolve_function_type(numba.typeof(body), of_block, {})

        def generate(context, builder, _, values):  # type: ignore[no-untyped-def]
            compiled = body.overloads[signature.args]
            context.add_linking_libs((compiled.library,))
            callee = context.declare_function(builder.module, compiled.fndesc)
            given, array = values[1], context.make_array(memory)(context, builder, values[0])
            for i, kind in enumerate(arguments.types):
                value = _borrowed(context, builder, kind, builder.extract_value(given, i))
                given = builder.insert_value(given, value, i)
            assert context.get_abi_sizeof(given.type) <= 8 * (ROOM - HEAD), "the arguments do not fit"
            place = builder.gep(array.data, [INT(HEAD)])
            builder.store(given, builder.bitcast(place, given.type.as_pointer()), align=8)

            def call(b: ir.IRBuilder, block: ir.Value, worker: ir.Value, given: ir.Value) -> ir.Value:
                words = [block, worker, *(b.extract_value(given, i) for i in range(len(arguments.types)))]
                status, _ = context.call_conv.call_function(
                    b, callee, compiled.signature.return_type, signature.args, words
                )
                return b.zext(status.is_error, INT)

            return builder.ptrtoint(_blocks_of(builder.module, given.type, call), INT)

        return types.int64(memory, arguments), generate

    return step


def _borrowed(context: Any, builder: ir.IRBuilder, kind: Any, value: ir.Value) -> ir.Value:
    """An argument that whoever takes it does not count as a reference: Numba's count ends with the call from Python."""
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = array.meminfo.type(None)
        return array._getvalue()
    if context.data_model_manager[kind].contains_nrt_meminfo():
        raise TypeError(f"a block kernel takes arrays, numbers and tuples of numbers, not {kind}")
    return value


def _blocks_of(module: ir.Module, given: ir.Type, call: Callable[..., ir.Value]) -> ir.Function:
    """The function (closure, first, count, worker): `call` for `count` blocks; not 0 where one failed."""
    function = ir.Function(module, ir.FunctionType(INT, [INT] * 4), "alexnet_np_blocks")
    function.linkage = "internal"
    closure, first, count, worker = function.args
    entry, body, done = (function.append_basic_block(name) for name in ("entry", "body", "done"))
    b = ir.IRBuilder(entry)
    values = b.load(b.inttoptr(closure, given.as_pointer()), align=8)
    b.branch(body)
    b.position_at_end(body)
    i, failed = b.phi(INT), b.phi(INT)
    wrong = b.or_(failed, call(b, b.add(first, i), worker, values))
    following = b.add(i, INT(1))
    for phi, start, later in ((i, INT(0), following), (failed, INT(0), wrong)):
        phi.add_incoming(start, entry)
        phi.add_incoming(later, b.block)
    b.cbranch(b.icmp_signed("<", following, count), body, done)
    b.position_at_end(done)
    b.ret(wrong)
    return function


class Program:
    """Kernels with their arguments, to be run as often as wanted while those arrays stay where they are.

    `scratch`: the workspace that they share. `found`: a kernel may set its one number, to say that results are not
    what was asked for.
    """

    def __init__(self) -> None:
        self.scratch = np.empty(0, np.float32)
        self.found = np.zeros(1, np.int64)
        self._memories: list[Array] = []
        self._kept: list[Any] = []  # the arguments, whose memory is used
        self._steps = np.empty((0, team.WORDS), np.int64)

    def __len__(self) -> int:
        return len(self._memories)

    def add(self, memory: Array, arguments: Any) -> None:
        self._memories.append(memory)
        self._kept.append(arguments)

    def replace(self, index: int, other: Program) -> None:
        """The kernel `index` becomes the only one of `other`."""
        (memory,), (arguments,) = other._memories, other._kept
        self._memories[index], self._kept[index] = memory, arguments
        if len(self._steps) == len(self):
            self._steps[index] = memory[: team.WORDS]

    def forget(self, index: int) -> None:
        """Do not hold the arguments of the kernel `index`, which has to be replaced before the next run."""
        self._kept[index] = None

    def run(self) -> None:
        if len(self._steps) != len(self):
            self._steps = np.stack([memory[: team.WORDS] for memory in self._memories])
        if len(self):
            team.run(self._steps, threads.workers())


@contextmanager
def recording(scratch: Array | None = None) -> Iterator[Program]:
    """Inside the `with`, the kernels that this thread calls do not run: they become steps of the program.

    They share a workspace of the program's own, which is `scratch` if that is large enough.
    """
    program, before = Program(), getattr(_own, "program", None)
    workspace = threads.swap_scratch(scratch)
    _own.program = program
    try:
        yield program
    finally:
        _own.program = before
        program.scratch = threads.swap_scratch(workspace)


def findings() -> Array:
    """A number, 0 now, for a kernel to set where its results are not what was asked for; the program's, if one is being
    recorded, which cannot be read before it has run."""
    program: Program | None = getattr(_own, "program", None)
    return np.zeros(1, np.int64) if program is None else program.found
