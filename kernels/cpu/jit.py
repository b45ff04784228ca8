"""How this package's Numba kernels are compiled: one decorator, so that every kernel has the same options.

Machine code is cached on disk, in Numba's cache, with two changes (`KernelCache`): its stamp covers every CPU file of
kernels/, and reading it does not prepare Numba's compiler.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache
from numba.core.runtime import rtsys


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for one thread; callable from other kernels."""
    return _compiled(function, parallel=False)


def parallel_kernel(function: Callable[..., Any]) -> Any:
    """Compile with `prange` loops over all threads; call it under `threads.parallel()`."""
    return _compiled(function, parallel=True)


def _compiled(function: Callable[..., Any], parallel: bool) -> Any:
    # contract: a*b + c may be one instruction. Nothing else of fastmath: NaN and infinity keep their meaning.
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}, "parallel": parallel}
    dispatcher = numba.njit(**options)(function)
    if dispatcher is not function:  # with NUMBA_DISABLE_JIT it is
        dispatcher._cache = KernelCache(function)
    return dispatcher


class KernelCache(FunctionCache):
    """Numba's cache of one kernel (what `cache=True` would make), never stale and quicker to read.

    Numba's own only sees edits in a kernel's own file (numba#9304), but kernels are built from other files' generators.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file._source_stamp = source_stamp()

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The kernel from the disk, or None.

        Numba would first load all it knows about types and lowering, and with that SciPy where it is installed: 0.2 s.
        Machine code needs none of it, only the names of the run-time functions that it calls. If a kernel is not on
        the disk, the compiler loads the rest itself.
        """
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(signature, target_context)


@cache
def source_stamp() -> tuple[tuple[str, float, int], ...]:
    """Changes with any file of this folder; takes the place of Numba's (time, size) of one file."""
    kernels = Path(__file__).parent.parent
    flat = (file for file in kernels.glob("*.py") if not file.stem.endswith("_cuda"))
    files = sorted((*flat, *kernels.glob("cpu/*.py")))
    return tuple((file.name, file.stat().st_mtime, file.stat().st_size) for file in files)


def announce(name: str) -> None:
    """Say on standard error what is being compiled rather than read from the cache: a silent wait is worse."""
    global _announced
    if sys.stderr is None:
        return
    if sys.stderr.isatty():
        print(f"\r\x1b[Kcompiling for this machine, once: {name}", end="", flush=True, file=sys.stderr)
        if not _announced:
            atexit.register(print, "\r\x1b[K", end="", file=sys.stderr)
    elif not _announced:
        print("alexnet-np: compiling kernels for this machine, once", flush=True, file=sys.stderr)
    _announced = True


_announced = False


class _Progress(event.Listener):
    def on_start(self, event: event.Event) -> None:
        function = event.data["dispatcher"].py_func
        if function.__module__.startswith("alexnet_np."):
            announce(function.__name__)

    def on_end(self, event: event.Event) -> None:
        """Called for every kernel; the next line overwrites what was said of this one."""


event.register("numba:compile", _Progress())
