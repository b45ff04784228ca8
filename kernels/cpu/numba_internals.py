"""All that this package uses of Numba's private names, in one place; where a name is gone Numba's public way serves.

Two things are worth it. Numba's cache of a kernel sees edits in the kernel's own file only (numba#9304), when kernels
are built from other files' generators, and every copy of the package has one of its own; ours (code_cache.py) does not.
And before Numba reads machine code it loads all it knows about types and lowering, and with that SciPy where that is
installed: 0.2 s. Machine code needs none of it, only the names of the run-time functions that it calls; if a kernel is
not on the disk, the compiler loads the rest itself.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

import llvmlite
import numba

from alexnet_np.errors import one_line
from alexnet_np.kernels.cpu import code_cache, compiling, vector_library

try:
    from numba.core import event
    from numba.core.compiler import CompileResult
    from numba.core.runtime import rtsys
    from numba.core.serialize import dumps

    reduce, rebuild, initialize = CompileResult._reduce, CompileResult._rebuild, rtsys.initialize
    missing = None
except (ImportError, AttributeError) as error:
    missing = one_line(error)


def compiled(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """`function` as Numba's dispatcher, which compiles it when it is first called with arguments of new types."""
    dispatcher = numba.njit(**options)(function)
    if missing is None and hasattr(dispatcher, "_cache"):
        dispatcher._cache = KernelCache(function)
        return dispatcher
    compiling.notice(
        f"Numba {numba.__version__} is not built as expected ({missing or 'no _cache'}); its own cache serves the "
        "kernels, which start more slowly"
    )
    return compiled_publicly(function, options)


def compiled_publicly(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """The same through Numba's own cache. It lies in a folder of our sources' contents, so it is not stale either."""
    vector_library.link_all()
    folder, _ = code_cache.folder()
    before = numba.config.CACHE_DIR
    try:
        numba.config.CACHE_DIR = str(folder or "")
        return numba.njit(cache=folder is not None, **options)(function)
    finally:
        numba.config.CACHE_DIR = before


def name_of(kernel: Callable[..., Any]) -> str:
    return f"{kernel.__module__.rpartition('.')[2]}.{kernel.__qualname__}"


class KernelCache:
    """What a dispatcher asks for machine code before it compiles, and gives it after."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = name_of(function)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The kernel from the disk, or None."""
        initialize(target_context)
        identity = self._identity(signature, target_context.codegen())
        code = code_cache.read(self._file(identity))
        if code is None:
            return None
        try:
            found, payload = pickle.loads(code)
            vector_library.link_what_is_called(code)
            return rebuild(target_context, *payload) if found == identity else None
        except Exception:  # a damaged file may raise anything; it is written anew
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        identity = self._identity(signature, result.codegen)
        try:
            if result.library.has_dynamic_globals:
                raise ValueError(f"{self.name} holds addresses of this process")
            code_cache.write(self._file(identity), dumps((identity, reduce(result))))
        except Exception as error:  # a full disk; a Numba that has changed
            compiling.notice(f"compiled kernels cannot be kept: {one_line(error)}")

    def _identity(self, signature: Any, codegen: Any) -> tuple[Any, ...]:
        """What machine code depends on beside the sources."""
        python = sys.implementation.cache_tag, getattr(sys, "abiflags", "")
        versions = *python, numba.__version__, llvmlite.__version__
        return self.name, signature, codegen.magic_tuple(), versions

    def _file(self, identity: tuple[Any, ...]) -> str:
        return f"{self.name}-{hashlib.sha256(repr(identity).encode()).hexdigest()[:16]}.kernel"


if missing is None:

    class Progress(event.Listener):
        """Tells of each of our kernels while Numba compiles it, and has LLVM optimise it as far as helps.

        Level 2 instead of Numba's 3, where nobody has asked for one: the time of kernels goes by in vector functions,
        which vector_library.py compiles. Cold, a plan of torchvision's net takes 2.0 s of 16 less, and runs as fast.
        """

        def __init__(self) -> None:
            self.before: list[Any] = []

        def on_start(self, event: Any) -> None:
            if self._is_ours(event):
                compiling.begin(name_of(event.data["dispatcher"]))
                self.before.append(numba.config.OPT)
                if "NUMBA_OPT" not in os.environ:
                    numba.config.OPT = type(numba.config.OPT)(2)

        def on_end(self, event: Any) -> None:
            if self._is_ours(event):
                numba.config.OPT = self.before.pop()
                compiling.end()

        @staticmethod
        def _is_ours(event: Any) -> bool:
            return event.data["dispatcher"].__module__.startswith("alexnet_np.")

    event.register("numba:compile", Progress())
