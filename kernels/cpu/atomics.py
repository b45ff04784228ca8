"""What threads that work together need of the machine, for Numba: atomic numbers, a pause, and sleep until woken.

An atomic number is an element of a 1-D int64 array; all accesses are sequentially consistent. Callable from kernels
only. Sleeping: Linux has the futex; elsewhere a sleeper looks again every NAP microseconds.
Source: LLVM's "Atomic Instructions and Concurrency Guide"; Drepper, "Futexes Are Tricky" (2011).
"""

from __future__ import annotations

import platform
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from alexnet_np.kernels.cpu.jit import kernel

INT, HALF = ir.IntType(64), ir.IntType(32)
ORDER = "seq_cst"
NAP = 50


def place(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
    """The address of arguments[0][arguments[1]]."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [context.cast(builder, arguments[1], signature.args[1], types.int64)])


def number(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any, i: int) -> ir.Value:
    return context.cast(builder, arguments[i], signature.args[i], types.int64)


@intrinsic
def load(typing_context, array, i):
    """array[i] as it is now."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(place(context, builder, signature, arguments), ORDER, 8)

    return types.int64(array, i), generate


@intrinsic
def store(typing_context, array, i, value):
    """array[i] = value."""

    def generate(context, builder, signature, arguments):
        at = place(context, builder, signature, arguments)
        builder.store_atomic(number(context, builder, signature, arguments, 2), at, ORDER, 8)
        return context.get_dummy_value()

    return types.void(array, i, value), generate


@intrinsic
def add(typing_context, array, i, value):
    """array[i] += value; gives what it was before."""

    def generate(context, builder, signature, arguments):
        at = place(context, builder, signature, arguments)
        return builder.atomic_rmw("add", at, number(context, builder, signature, arguments, 2), ORDER)

    return types.int64(array, i, value), generate


@intrinsic
def replace(typing_context, array, i, expected, value):
    """array[i] = value if it is `expected`; gives whether it was."""

    def generate(context, builder, signature, arguments):
        at = place(context, builder, signature, arguments)
        old, new = (number(context, builder, signature, arguments, k) for k in (2, 3))
        return builder.extract_value(builder.cmpxchg(at, old, new, ORDER, ORDER), 1)

    return types.boolean(array, i, expected, value), generate


PAUSES: dict[str, tuple[str, list[int]]] = {
    **dict.fromkeys(("x86_64", "amd64"), ("llvm.x86.sse2.pause", [])),
    **dict.fromkeys(("aarch64", "arm64"), ("llvm.aarch64.hint", [1])),  # yield
}


@intrinsic
def pause(typing_context):
    """Tell the core that this thread only waits."""

    def generate(context, builder, signature, arguments):
        name, operands = PAUSES.get(platform.machine().lower(), ("", []))
        if name:
            shape = ir.FunctionType(ir.VoidType(), [HALF] * len(operands))
            function = builder.module.globals.get(name) or ir.Function(builder.module, shape, name)
            builder.call(function, [HALF(operand) for operand in operands])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def address(typing_context, array, i):
    """Where array[i] lies."""

    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(place(context, builder, signature, arguments), INT)

    return types.int64(array, i), generate


@intrinsic
def call(typing_context, function, closure, first, count, worker):
    """function(closure, first, count, worker) for a function that lies at an address; see jit.py."""

    def generate(context, builder, signature, arguments):
        shape = ir.FunctionType(INT, [INT] * 4)
        return builder.call(builder.inttoptr(arguments[0], shape.as_pointer()), arguments[1:])

    return types.int64(*[types.int64] * 5), generate


FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine()) if sys.platform == "linux" else None
WAIT, WAKE, ALL = 128, 129, 2**31 - 1  # of a process's own futexes

if FUTEX is not None:
    system = types.ExternalFunction("syscall", types.int64(*[types.int64] * 7))

    @kernel
    def sleep_while(array, i, value):
        """Sleep until `wake`, unless array[i] is no longer `value`; may return early. The lower 32 bits count."""
        system(FUTEX, address(array, i), WAIT, value & 0xFFFFFFFF, 0, 0, 0)

    @kernel
    def wake(array, i):
        """Wake all who sleep at array[i]."""
        system(FUTEX, address(array, i), WAKE, ALL, 0, 0, 0)

elif sys.platform == "win32":
    nap = types.ExternalFunction("Sleep", types.void(types.uint32))

    @kernel
    def sleep_while(array, i, value):
        nap(1)

    @kernel
    def wake(array, i):
        pass

else:
    nap = types.ExternalFunction("usleep", types.int32(types.uint32))

    @kernel
    def sleep_while(array, i, value):
        nap(NAP)

    @kernel
    def wake(array, i):
        pass
