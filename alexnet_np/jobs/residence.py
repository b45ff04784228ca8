"""Memory that a job gives back to the system as soon as nobody reads it again.

On Linux with glibc; elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

DONTNEED = 4  # of Linux's madvise: pages of a file that nobody wrote to come from the file again when they are used


def trim() -> None:
    """Give back the free pieces between those in use, which the C library keeps for itself."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if give_back is not None:
        give_back(0)


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
