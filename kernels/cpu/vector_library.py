"""Compile emitted vector functions to machine code once, keep it on disk, and let Numba's code call it by name.

If the vectors were emitted into each Numba kernel that uses them, LLVM would compile the same microkernel over and
over, three times for every parallel kernel. So they are compiled apart: emitted, optimised, and kept as an object file
whose name tells the machine; a process that finds the file only links it. And none is compiled or linked before a
kernel is that calls it: inference needs nothing of what training does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir
from numba import config

from alexnet_np.errors import one_line
from alexnet_np.kernels.cpu import code_cache
from alexnet_np.kernels.cpu.compiling import compiling, notice

for _initialize in (llvm.initialize_native_target, llvm.initialize_native_asmprinter):
    _initialize()


PREFIX = "alexnet_np_"  # of every name: by it they are found in machine code
NAMES = re.compile(PREFIX.encode() + rb"\w+")

_offered: dict[str, Callable[[ir.Module], None]] = {}  # not linked yet
_early = False  # whether what is offered is linked at once


def offer(name: str, emit: Callable[[ir.Module], None]) -> None:
    """The function `name`, of the module that `emit` fills, is there to be called from Numba's code once it is linked.

    The name begins with PREFIX.
    """
    _offered[name] = emit
    if _early:
        link(name)


def link_all() -> None:
    """Whatever is offered, now and later: for machine code that is loaded where nobody sees what it calls."""
    global _early
    _early = True
    for name in list(_offered):
        link(name)


def link_what_is_called(code: bytes) -> None:
    """The functions whose names stand in machine code, which has to name what it calls."""
    for name in {found.decode() for found in NAMES.findall(code)}:
        link(name)


def link(name: str) -> None:
    """Make the function callable by its name, if that was not done before."""
    emit = _offered.pop(name, None)
    if emit is None:
        return
    cpu, features, machine, engine = _host()
    identity = repr((name, cpu, features, llvmlite.__version__))
    file = f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.o"
    code = code_cache.read(file)
    if code is None:
        with compiling(name):
            code = _compile(name, emit, machine)
        try:
            code_cache.write(file, code)
        except OSError as error:
            notice(f"compiled kernels cannot be kept: {one_line(error)}")
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    llvm.add_symbol(name, engine.get_function_address(name))


@cache
def _host() -> tuple[str, str, Any, Any]:
    """The processor, its features, what compiles for it, and what holds the linked code."""
    cpu = config.CPU_NAME or llvm.get_host_cpu_name()
    features = config.CPU_FEATURES if config.CPU_FEATURES is not None else llvm.get_host_cpu_features().flatten()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=3, codemodel="jitdefault", jit=True
    )
    return cpu, features, machine, llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _compile(name: str, emit: Callable[[ir.Module], None], machine: Any) -> bytes:
    source = ir.Module(name)
    source.triple, source.data_layout = machine.triple, str(machine.target_data)
    emit(source)
    module = llvm.parse_assembly(str(source))
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)
