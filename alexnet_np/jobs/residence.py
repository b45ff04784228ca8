"""Memory that a job keeps for its next image, or gives back to the system as soon as nobody reads it again.

On Linux with glibc; elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
REUSED = 32 << 20  # bytes of a piece; the most that glibc raises its threshold to by itself
DONTNEED = 4  # of Linux's madvise: pages of a file that nobody wrote to come from the file again when they are used


def reuse() -> None:
    """Let the next image have the memory of the last one, from now on, where MALLOC_TRIM_THRESHOLD_ is set.

    glibc learns how large pieces are that a program takes again and again, and keeps them; not where that is set, as
    Dask sets it for its workers. Then every pixel's memory is given back and asked for anew: 700 page faults an image,
    a sixth of a worker's time.
    """
    choose = _glibc("mallopt") if "MALLOC_TRIM_THRESHOLD_" in os.environ else None
    if choose is not None:
        choose(MMAP_THRESHOLD, REUSED)
        choose(TRIM_THRESHOLD, 2 * REUSED)


def trim() -> None:
    """Give back the free pieces between those in use, which the C library keeps for itself."""
    give_back = _glibc("malloc_trim")
    if give_back is not None:
        give_back(0)


def _glibc(function: str) -> Any:
    """A function that glibc alone has, or None."""
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None


def drop_compiler() -> None:
    """Take LLVM's code out of this process's memory, some 50 MB, once the kernels are loaded that it was needed for.

    It stays in the system's file cache, from which a page comes back when it runs again: 9 MB of it for a kernel more.
    """
    llvm = sys.modules.get("llvmlite")
    if sys.platform != "linux" or llvm is None:
        return
    folder, advise = f"{Path(str(llvm.__file__)).parent}/", ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        addresses, rights, *_, file = line.split(maxsplit=5)
        if rights == "r-xp" and file.startswith(folder):  # code, which nobody writes to
            first, end = (int(address, 16) for address in addresses.split("-"))
            advise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), DONTNEED)
