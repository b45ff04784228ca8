"""How this package's Numba kernels are compiled: one decorator, so that every kernel has the same options.

Machine code is kept on disk (code_cache.py); numba_internals.py says what for, and what of Numba it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

from alexnet_np.errors import BackendError
from alexnet_np.kernels.cpu.numba_internals import compiled

if numba.config.DISABLE_JIT:
    raise BackendError(
        "the Numba kernels are made of vector instructions and cannot run with NUMBA_DISABLE_JIT; unset it, or step "
        "through the numpy backend, which computes the same in Python"
    )


OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
# contract: a*b + c may be one instruction. Nothing else of fastmath: NaN and infinity keep their meaning.


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for one thread; callable from other kernels. For many threads: blocks.py."""
    return compiled(function, OPTIONS)
