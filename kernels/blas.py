"""Which BLAS the array operations call (NumPy's), said aloud, and its threads.

The fast kernels have their own matrix product (gemm_numba.py), in training too; BLAS serves `np.matmul`, which the
array operations go through, whatever NumPy was built with.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np


def describe() -> str:
    """One line: the library NumPy calls, its version, and how many threads it uses where that can be asked."""
    build: dict[str, Any] = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index, call-overload, assignment]
    line = f"{build['name']} {build['version']}, through np.matmul"
    pools = _controllers()
    return f"{line}, {pools[0].num_threads} threads" if pools else line


def set_num_threads(count: int) -> None:
    """Tell NumPy's BLAS to use `count` threads, where threadpoolctl is installed to reach it."""
    for pool in _controllers():
        pool.set_num_threads(count)


def _controllers() -> list[Any]:
    if find_spec("threadpoolctl") is None:
        return []
    import threadpoolctl

    pools = threadpoolctl.ThreadpoolController().lib_controllers
    return [pool for pool in pools if pool.user_api == "blas" and "torch" not in (pool.filepath or "")]
