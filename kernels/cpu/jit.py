"""How this package's Numba kernels are compiled: one decorator, so that every kernel has the same options.

Machine code is kept on disk (code_cache.py); numba_internals.py says what for, and what of Numba it takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba

from alexnet_np import threads
from alexnet_np.errors import BackendError
from alexnet_np.kernels.cpu import compiling
from alexnet_np.kernels.cpu.numba_internals import compiled

if numba.config.DISABLE_JIT:
    raise BackendError(
        "the Numba kernels are made of vector instructions and cannot run with NUMBA_DISABLE_JIT; unset it, or step "
        "through the numpy backend, which computes the same in Python"
    )


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for one thread; callable from other kernels."""
    return compiled(function, _options(parallel=False))


def _options(parallel: bool) -> dict[str, Any]:
    # contract: a*b + c may be one instruction. Nothing else of fastmath: NaN and infinity keep their meaning.
    return {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}, "parallel": parallel}


class parallel_kernel:
    """Compile with `prange` loops over all threads; call it from Python, under `threads.parallel()`.

    In a child that cannot have those threads (threads.forked) it is compiled a second time, for one.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.py_func = function
        self._threaded = compiled(function, _options(parallel=True))

    def __call__(self, *arguments: Any) -> Any:
        return (self._alone if threads.forked else self._threaded)(*arguments)

    @functools.cached_property
    def _alone(self) -> Any:
        compiling.notice(
            "this process was forked from one that had used OpenMP's threads: kernels run on one thread here; fork "
            "before the first use, or spawn, to have them all"
        )
        return compiled(self.py_func, _options(parallel=False))
