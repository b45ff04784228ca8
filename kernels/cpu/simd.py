"""Vector instructions for Numba: write a function on float32 lanes once, call it from compiled code.

Numba can only hope that LLVM vectorises a loop. A GEMM microkernel and the Winograd transforms must keep dozens of
vectors in registers, so they are written as vectors: a Python function gets an `Emitter` and emits straight-line code
on <LANES x float>, and `vector_function` compiles it (vector_library.py) into what Numba functions call as

    f(variant, array, offset, ..., integer, ..., group, ...)

where a pointer parameter takes two arguments, a 1-D array and an offset, and a group is a NamedTuple of integers.

How wide a vector is, and how large a GEMM tile, is data chosen from the host's features (or NUMBA_CPU_FEATURES).
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import llvmlite.binding
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from alexnet_np.kernels.cpu.vector_library import PREFIX, link, offer

INT = ir.IntType(64)
FLOAT = ir.FloatType()


class Machine(NamedTuple):
    """The vector unit: floats in a register, and the GEMM tile (rows, vectors a row) that fits its registers."""

    lanes: int
    rows: int
    vectors: int


# The accumulators (rows * vectors) plus one row of B and a broadcast must fit the architectural registers.
MACHINES = {
    "avx512": Machine(lanes=16, rows=12, vectors=2),  # 32 registers; 14x2 leaves none to schedule with and spills
    "avx2": Machine(lanes=8, rows=6, vectors=2),  # 16 registers
    "neon": Machine(lanes=4, rows=8, vectors=3),  # 32 registers
    "sse": Machine(lanes=4, rows=6, vectors=2),  # 16 registers
}


def host() -> str:
    """Which of MACHINES the code is compiled for."""
    if config.CPU_FEATURES is not None:
        features = {f[1:] for f in config.CPU_FEATURES.split(",") if f.startswith("+")}
    else:
        features = {name for name, has in llvmlite.binding.get_host_cpu_features().items() if has}
    if "avx512f" in features:
        return "avx512"
    if {"avx2", "fma"} <= features:
        return "avx2"
    return "neon" if "neon" in features else "sse"


MACHINE = MACHINES[host()]
LANES = MACHINE.lanes
VECTOR = ir.VectorType(FLOAT, LANES)
DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
BYTE = ir.IntType(8)
BYTES = ir.VectorType(BYTE, LANES)
SHORT = ir.IntType(16)
SHORTS = ir.VectorType(SHORT, LANES)
INTS = ir.VectorType(ir.IntType(32), LANES)


class Emitter:
    """Emits one LLVM function. Offsets and sizes count floats; vectors need no alignment."""

    def __init__(self, builder: ir.IRBuilder, vector: ir.Type = VECTOR) -> None:
        self.builder = builder
        self.vector = vector  # what arithmetic is done in; memory holds floats

    def in_double(self) -> Emitter:
        """The same, but arithmetic in float64: loads widen, stores round."""
        return Emitter(self.builder, DOUBLES)

    def int(self, value: Any) -> ir.Value:
        return INT(value) if isinstance(value, int) else value

    def mul(self, a: Any, b: Any) -> ir.Value:
        return self.builder.mul(self.int(a), self.int(b))

    def add(self, a: Any, b: Any) -> ir.Value:
        return self.builder.add(self.int(a), self.int(b))

    def sub(self, a: Any, b: Any) -> ir.Value:
        return self.builder.sub(self.int(a), self.int(b))

    def less(self, a: Any, b: Any) -> ir.Value:
        return self.builder.icmp_signed("<", self.int(a), self.int(b))

    def at(self, pointer: ir.Value, offset: Any) -> ir.Value:
        return self.builder.gep(pointer, [self.int(offset)])

    def load(self, pointer: ir.Value, offset: Any = 0) -> ir.Value:
        """LANES floats from pointer + offset."""
        address = self.builder.bitcast(self.at(pointer, offset), VECTOR.as_pointer())
        loaded = self.builder.load(address, align=4)
        return self.widen(loaded)

    def store(self, value: ir.Value, pointer: ir.Value, offset: Any = 0) -> None:
        address = self.builder.bitcast(self.at(pointer, offset), VECTOR.as_pointer())
        rounded = value if self.vector == VECTOR else self.builder.fptrunc(value, VECTOR)
        self.builder.store(rounded, address, align=4)

    def broadcast(self, pointer: ir.Value, offset: Any = 0) -> ir.Value:
        """One float from pointer + offset in every lane."""
        return self.spread(self.builder.load(self.at(pointer, offset)))

    def constant(self, value: float) -> ir.Value:
        return ir.Constant(self.vector, [value] * LANES)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a*b + c, in one instruction where the machine has it."""
        return self._call("llvm.fmuladd", a, b, c)

    def plus(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fadd(a, b)

    def minus(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fsub(a, b)

    def product(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fmul(a, b)

    def times(self, a: ir.Value, factor: float) -> ir.Value:
        return self.builder.fmul(a, self.constant(factor))

    def sqrt(self, a: ir.Value) -> ir.Value:
        return self._call("llvm.sqrt", a)

    def absolute(self, a: ir.Value) -> ir.Value:
        return self._call("llvm.fabs", a)

    def with_sign(self, a: ir.Value, sign: ir.Value) -> ir.Value:
        """a with the sign of `sign`, lane by lane."""
        return self._call("llvm.copysign", a, sign)

    def power(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self._call("llvm.pow", a, b)

    def exp(self, a: ir.Value) -> ir.Value:
        """e**a of floats a <= 0, within one unit in the last place (0.94); 0 below -87.7; NaN of NaN.

        a = k*log(2) + r with |r| <= log(2)/2; 2**k is written as bits, e**r is Taylor's sum to the 7th power.
        """
        low = self.constant(-88.0)
        a = self.builder.select(self.builder.fcmp_ordered("<", a, low), low, a)
        k = self._call("llvm.rint", self.times(a, 1 / math.log(2)))
        high = 355 / 512  # log(2) in so few bits that k * high is exact
        r = self.fma(k, self.constant(high - math.log(2)), self.fma(k, self.constant(-high), a))
        power = self.constant(1 / math.factorial(7))
        for n in range(6, -1, -1):
            power = self.fma(power, r, self.constant(1 / math.factorial(n)))
        name = f"llvm.fptosi.sat.v{LANES}i32.v{LANES}f32"  # NaN becomes 0; what it multiplies stays NaN
        convert = _declared(self.builder.module, ir.FunctionType(INTS, [VECTOR]), name)
        exponent = self.builder.add(self.builder.call(convert, [k]), ir.Constant(INTS, [127] * LANES))
        bits = self.builder.shl(exponent, ir.Constant(INTS, [23] * LANES))
        return self.builder.fmul(power, self.builder.bitcast(bits, VECTOR))

    def larger(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The larger of a and b, and b where either is NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def equal(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fcmp_ordered("==", a, b)

    def widen(self, a: ir.Value) -> ir.Value:
        """Floats as what arithmetic is done in."""
        return a if self.vector == VECTOR else self.builder.fpext(a, self.vector)

    def across(self, combine: Callable[[ir.Value, ir.Value], ir.Value], a: ir.Value) -> ir.Value:
        """One number from the lanes of `a`, combined one after another."""
        lanes = [self.builder.extract_element(a, ir.IntType(32)(i)) for i in range(LANES)]
        return functools.reduce(combine, lanes)

    def relu(self, a: ir.Value) -> ir.Value:
        """max(a, 0) that keeps NaN: "not below zero" is true for it."""
        positive = self.builder.fcmp_unordered(">=", a, self.constant(0.0))
        return self.builder.select(positive, a, self.constant(0.0))

    def beats(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Lane by lane: a > b, or a is NaN."""
        return self.builder.or_(self.builder.fcmp_ordered(">", a, b), self.builder.fcmp_unordered("uno", a, a))

    def select(self, condition: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.select(condition, a, b)

    def spread(self, scalar: ir.Value, vector: ir.Type = VECTOR) -> ir.Value:
        """`scalar` in every lane."""
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.IntType(32)(0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(INTS, [0] * LANES))

    def interleave(self, a: ir.Value, b: ir.Value, first: Any) -> ir.Value:
        """a[first], b[first], a[first+1], b[first+1], ... as many as fit a vector."""
        order = [first + i // 2 + i % 2 * LANES for i in range(LANES)]
        return self.builder.shuffle_vector(a, b, ir.Constant(INTS, order))

    def as_floats(self, integer: ir.Value) -> ir.Value:
        """An integer, as a float, in every lane."""
        return self.spread(self.builder.sitofp(integer, FLOAT))

    def load_bytes(self, pointer: ir.Value, offset: Any) -> ir.Value:
        """LANES bytes, counted in bytes, as floats."""
        address = self.builder.gep(self.builder.bitcast(pointer, BYTE.as_pointer()), [self.int(offset)])
        loaded = self.builder.load(self.builder.bitcast(address, BYTES.as_pointer()), align=1)
        return self.builder.sitofp(self.builder.zext(loaded, INTS), VECTOR)

    def load_shorts(self, pointer: ir.Value, offset: Any) -> ir.Value:
        """LANES signed 16-bit integers, counted as such, as floats."""
        address = self.builder.gep(self.builder.bitcast(pointer, SHORT.as_pointer()), [self.int(offset)])
        loaded = self.builder.load(self.builder.bitcast(address, SHORTS.as_pointer()), align=2)
        return self.builder.sitofp(self.builder.sext(loaded, INTS), VECTOR)

    def store_bytes(self, value: ir.Value, pointer: ir.Value, offset: Any) -> None:
        """LANES floats that are integers of 0 to 255, as bytes."""
        address = self.builder.gep(self.builder.bitcast(pointer, BYTE.as_pointer()), [self.int(offset)])
        narrow = self.builder.trunc(self.builder.fptosi(value, INTS), BYTES)
        self.builder.store(narrow, self.builder.bitcast(address, BYTES.as_pointer()), align=1)

    def variable(self, value: ir.Value) -> ir.Value:
        """A mutable slot, which LLVM keeps in a register."""
        with self.builder.goto_entry_block():
            slot = self.builder.alloca(value.type)
            self.builder.store(value.type(None), slot)
        self.builder.store(value, slot)
        return slot

    def get(self, slot: ir.Value) -> ir.Value:
        return self.builder.load(slot)

    def set(self, slot: ir.Value, value: ir.Value) -> None:
        self.builder.store(value, slot)

    @contextmanager
    def when(self, condition: ir.Value) -> Iterator[None]:
        with self.builder.if_then(condition):
            yield

    @contextmanager
    def loop(self, count: Any) -> Iterator[ir.Value]:
        """for index in range(count)"""
        b = self.builder
        check, body, end = (b.append_basic_block(f"loop.{part}") for part in ("check", "body", "end"))
        before, count = b.block, self.int(count)
        b.branch(check)
        b.position_at_end(check)
        index = b.phi(INT)
        b.cbranch(b.icmp_signed("<", index, count), body, end)
        b.position_at_end(body)
        yield index
        index.add_incoming(INT(0), before)
        index.add_incoming(b.add(index, INT(1), flags=["nsw"]), b.block)
        b.branch(check)
        b.position_at_end(end)

    def vectors(self, count: ir.Value, body: Callable[[ir.Value], None]) -> None:
        """body(first float) for as many vectors as cover `count` >= LANES floats; the last one overlaps the one before.

        So nothing is read or written beyond `count`, and what overlaps is computed twice with the same result: the
        body must not read what it writes.
        """
        slots = self.builder.udiv(self.add(count, LANES - 1), INT(LANES))
        last = self.sub(count, LANES)
        with self.loop(slots) as i:
            start = self.mul(i, LANES)
            body(self.builder.select(self.less(last, start), last, start))

    def _call(self, name: str, *values: ir.Value) -> ir.Value:
        signature = ir.FunctionType(self.vector, [self.vector] * len(values))
        bits = 32 if self.vector == VECTOR else 64
        function = _declared(self.builder.module, signature, f"{name}.v{LANES}f{bits}")
        return self.builder.call(function, values)


def _declared(module: ir.Module, signature: ir.FunctionType, name: str) -> ir.Function:
    """The function `name` of elsewhere, declared once a module."""
    return module.globals.get(name) or ir.Function(module, signature, name)


POINTER, INTEGER = "pointer", "integer"
Kind = str | type[tuple]  # of a parameter: POINTER, INTEGER, or a NamedTuple class whose fields are integers
Emit = Callable[..., None]  # emit(emitter, *arguments) writes the body of a function


def emit_variants(module: ir.Module, name: str, kinds: Sequence[Kind], variants: Mapping[int, Emit]) -> None:
    """The function `name` of (variant, *arguments), which calls variants[variant], each a function of its own."""
    parameters = [FLOAT.as_pointer() if kind == POINTER else INT for kind in kinds for _ in range(fields(kind))]
    entry = ir.Function(module, ir.FunctionType(ir.VoidType(), [INT, *parameters]), name)
    chooser = ir.IRBuilder(entry.append_basic_block("entry"))
    done = entry.append_basic_block("done")
    switch = chooser.switch(entry.args[0], done)
    ir.IRBuilder(done).ret_void()
    for variant, emit in variants.items():
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), parameters), f"{name}_{variant}")
        function.linkage = "internal"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        emit(Emitter(builder), *grouped(kinds, function.args))
        builder.ret_void()
        block = entry.append_basic_block(f"variant_{variant}")
        switch.add_case(INT(variant), block)
        caller = ir.IRBuilder(block)
        caller.call(function, entry.args[1:], tail=True)
        caller.ret_void()


def fields(kind: Kind) -> int:
    """How many machine words a parameter is."""
    return 1 if isinstance(kind, str) else len(kind._fields)  # type: ignore[attr-defined]


def grouped(kinds: Sequence[Kind], words: Sequence[ir.Value]) -> list[Any]:
    """The words of a function's parameters as its emitter takes them: those of a NamedTuple as one."""
    rest = iter(words)
    taken = [[next(rest) for _ in range(fields(kind))] for kind in kinds]
    return [some[0] if isinstance(kind, str) else kind(*some) for kind, some in zip(kinds, taken, strict=True)]


def vector_function(name: str, kinds: Sequence[Kind], variants: Mapping[int, Emit]) -> Any:
    """What Numba code calls as f(variant, *arguments): the function that variants[variant] emits, compiled here.

    An unknown variant does nothing.
    """
    symbol = f"{PREFIX}{name}"
    offer(symbol, lambda module: emit_variants(module, symbol, kinds, variants))

    def typed(typing_context: Any, variant: Any, *arguments: Any) -> Any:
        return types.void(types.intp, *arguments), generate

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        link(symbol)
        values = [arguments[0], *words_of(context, builder, kinds, signature.args[1:], arguments[1:])]
        prototype = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(_declared(builder.module, prototype, symbol), values)
        return context.get_dummy_value()

    # Numba reads the parameters off the signature: the typing context, the variant, then ours.
    count = 2 + sum(2 if kind == POINTER else 1 for kind in kinds)
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    typed.__signature__ = inspect.Signature([inspect.Parameter(f"a{i}", positional) for i in range(count)])  # type: ignore
    typed.__name__ = typed.__qualname__ = name
    return intrinsic(typed)


def words_of(
    context: Any, builder: ir.IRBuilder, kinds: Sequence[Kind], kinds_of: Any, arguments: Any
) -> list[ir.Value]:
    """Numba's arguments as LLVM's: each (array, offset) becomes one pointer, each NamedTuple its fields."""
    values, rest = [], list(zip(kinds_of, arguments, strict=True))
    for kind in kinds:
        numba_type, value = rest.pop(0)
        if kind == POINTER:
            array = context.make_array(numba_type)(context, builder, value)
            offset_type, offset = rest.pop(0)
            place = builder.gep(array.data, [context.cast(builder, offset, offset_type, types.intp)])
            values.append(builder.bitcast(place, FLOAT.as_pointer()))
        elif kind == INTEGER:
            values.append(context.cast(builder, value, numba_type, types.intp))
        else:
            assert numba_type.instance_class is kind, f"{numba_type} where {kind} is expected"
            words = enumerate(numba_type.types)
            values += [context.cast(builder, builder.extract_value(value, i), t, types.intp) for i, t in words]
    return values
