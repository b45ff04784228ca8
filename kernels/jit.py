"""How this package's Numba kernels are compiled: one decorator, so that every kernel has the same options.

Machine code is cached on disk. Numba's cache only sees edits in a kernel's own file (numba#9304), so the stamp here
covers every file of this folder: a kernel built from another file's generator is never stale.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import event


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for one thread; callable from other kernels."""
    return _compiled(function, parallel=False)


def parallel_kernel(function: Callable[..., Any]) -> Any:
    """Compile with `prange` loops over all threads; call it under `threads.parallel()`."""
    return _compiled(function, parallel=True)


def _compiled(function: Callable[..., Any], parallel: bool) -> Any:
    # contract: a*b + c may be one instruction. Nothing else of fastmath: NaN and infinity keep their meaning.
    options = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}, "parallel": parallel}
    dispatcher = numba.njit(**options)(function)
    cache_file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if hasattr(cache_file, "_source_stamp"):
        cache_file._source_stamp = _stamp()
    return dispatcher


@cache
def _stamp() -> tuple[tuple[str, float, int], ...]:
    """Changes with any file of this folder; takes the place of Numba's (time, size) of one file."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple((file.name, file.stat().st_mtime, file.stat().st_size) for file in files)


class _Progress(event.Listener):
    """One line on standard error per kernel that is compiled rather than read from the cache: a silent wait is worse."""

    announced = False

    def on_start(self, event: event.Event) -> None:
        function = event.data["dispatcher"].py_func
        if function.__module__.startswith("alexnet_np.") and sys.stderr is not None:
            if not self.announced:
                print("alexnet-np: compiling kernels for this machine, once:", end="", file=sys.stderr)
                self.announced = True
            print(f" {function.__name__}", end="", flush=True, file=sys.stderr)

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Progress())
