"""How many threads the kernels use: one setting for the Numba kernels and NumPy's BLAS.

The Numba kernels have their own matrix product (kernels/gemm_numba.py); BLAS serves `np.matmul`, which the array
operations go through, whatever NumPy was built with.

The default is ALEXNET_NP_NUM_THREADS where it is set, else every core this process may run on. Numba's own
NUMBA_NUM_THREADS, the number of cores unless it is set, is the upper limit.

The kernels' threads are this package's own (kernels/cpu/team.py), not Numba's, and start when a kernel first needs
them; a forked child starts its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from alexnet_np import arguments
from alexnet_np.errors import ArgumentError

VARIABLE = "ALEXNET_NP_NUM_THREADS"


class Turn:
    """A lock, for `with`. A forked child finds it open: whoever held it in the parent is not there to release it."""

    _all: weakref.WeakSet[Turn] = weakref.WeakSet()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        Turn._all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    @staticmethod
    def open_all() -> None:
        for turn in Turn._all:
            turn._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Turn.open_all)

_chosen: int | None = None
_own = threading.local()


def set_num_threads(count: int) -> None:
    """Use `count` threads from now on, in every thread of this process, for Numba's kernels and for NumPy's BLAS.

    Raises ArgumentError if count is below 1 or above what Numba was started with.
    """
    global _chosen
    count = arguments.integer("set_num_threads", "count", count)
    if not 1 <= count <= limit():
        raise ArgumentError(f"threads must be from 1 to {limit()} (NUMBA_NUM_THREADS sets the limit), got {count}")
    for library in numpys_blas():
        library.set_num_threads(count)
    _chosen = count


def get_num_threads() -> int:
    """How many threads the next kernel that this thread calls will use."""
    return 1 if getattr(_own, "alone", False) else _chosen or _default()


def workers() -> int:
    """How many threads a kernel may use now: those that `parallel` has given, where this thread is inside of it."""
    return getattr(_own, "workers", None) or get_num_threads()


@contextmanager
def alone() -> Iterator[None]:
    """Inside the `with`, the kernels that this thread calls run on it alone: for workers, of which each has a core."""
    before = getattr(_own, "alone", False)
    _own.alone = True
    try:
        yield
    finally:
        _own.alone = before


def limit() -> int:
    """The most threads that kernels may use in this process."""
    import numba

    return int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


@cache
def _default() -> int:
    text = os.environ.get(VARIABLE)
    if text is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, limit())
    if not text.isdigit() or not 1 <= int(text) <= limit():
        raise ArgumentError(f"{VARIABLE} must be a number from 1 to {limit()}, got {text!r}")
    return int(text)


@contextmanager
def parallel() -> Iterator[int]:
    """Kernels inside the `with` are computed by as many threads as this gives, which is what a workspace is cut for."""
    before, count = getattr(_own, "workers", None), get_num_threads()
    _own.workers = count
    try:
        yield count
    finally:
        _own.workers = before


def scratch(floats: int) -> np.ndarray:
    """At least `floats` float32 of memory, holding anything, that are the calling thread's until its next call."""
    have: Any = getattr(_own, "scratch", None)
    if have is None or have.size < floats:
        have = _own.scratch = np.empty(floats, np.float32)
    return have


def swap_scratch(given: np.ndarray | None) -> np.ndarray:
    """Let `given` be the calling thread's scratch from now on; gives what was before."""
    before: Any = getattr(_own, "scratch", None)
    _own.scratch = given
    return np.empty(0, np.float32) if before is None else before


def numpys_blas() -> list[Any]:
    """NumPy's BLAS as threadpoolctl's controllers, with `num_threads`; none where threadpoolctl is not installed."""
    if find_spec("threadpoolctl") is None:
        return []
    import threadpoolctl

    pools = threadpoolctl.ThreadpoolController().lib_controllers
    others = "torch", "scipy_openblas32"  # the latter is the kernels' own, which runs on the thread that calls it
    return [pool for pool in pools if pool.user_api == "blas" and not any(o in (pool.filepath or "") for o in others)]


@contextmanager
def blas_alone() -> Iterator[None]:
    """Inside the `with`, NumPy's BLAS runs on one thread, in all of this process: where others keep the cores busy.

    Its threads wait for each other at every step, and one that has to wait for a core makes all of them wait.
    """
    before = [(library, library.num_threads) for library in numpys_blas()]
    try:
        for library, _ in before:
            library.set_num_threads(1)
        yield
    finally:
        for library, count in before:
            library.set_num_threads(count)


def describe_blas() -> str:
    """The library that NumPy calls, its version, and how many threads it uses where that can be asked."""
    build: dict[str, Any] = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index, call-overload, assignment]
    libraries = numpys_blas()
    return f"{build['name']} {build['version']}" + (f", {libraries[0].num_threads} threads" if libraries else "")
