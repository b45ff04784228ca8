"""Where compiled kernels are kept from one process to the next: Numba's and the vector library's alike.

One file is one kernel, for one signature and one processor. It lies in a folder named after the contents of what the
kernels are made of, so nothing in it is ever stale, whatever copy of the package compiles, or replaced by anything
else. A file appears under its name only when it is whole: any number of processes may compile into the folder at once.

The folder is in the first of these that can be written: $NUMBA_CACHE_DIR, the user's cache ($XDG_CACHE_HOME, ~/.cache),
$ALEXNET_NP_HOME, and among the system's temporary files one that nobody else can write into, for what is read is run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

from alexnet_np.files import own_cache, package, replacing, user_cache

GENERATIONS = 16  # folders of other contents that stay beside ours: other versions of the package, a developer's edits

# What machine code is made of: this folder with its workshop, and where kernels take constants from.
KERNELS = Path(__file__).parent.parent
CONSTANTS = ("random.py", "backend.py", "ops/conv2d.py")


def sources() -> list[Path]:
    """Every file that a change of must not leave a compiled kernel as it was."""
    kernels = (file for file in (*KERNELS.glob("*.py"), *KERNELS.glob("cpu/*.py")) if not file.stem.endswith("_cuda"))
    return [*sorted(kernels), *(package() / name for name in CONSTANTS)]


@cache
def stamp() -> str:
    """A hash of the sources. Their times say nothing: a fresh checkout or container has the same kernels."""
    total = hashlib.sha256()
    for file in sources():
        contents = file.read_bytes()
        total.update(f"{file.parent.name}/{file.name} {len(contents)}\n".encode() + contents)
    return total.hexdigest()[:16]


@cache
def places() -> list[Path]:
    """The folders that may hold compiled kernels."""
    return [*_lasting(), *(place for place in _temporary() if _is_private(place.parent))]


@cache
def folder() -> tuple[Path | None, bool]:
    """Where kernels compiled now are kept, None if nothing can be written; and whether that lasts."""
    for place in _lasting():
        if _can_write(place):
            return place, True
    for place in _temporary():
        with contextlib.suppress(OSError):
            place.parent.mkdir(mode=0o700, exist_ok=True)
        if _is_private(place.parent) and _can_write(place):
            return place, False
    return None, False


def _lasting() -> list[Path]:
    given = os.environ.get("NUMBA_CACHE_DIR")
    parents = [Path(given) / "alexnet-np"] if given else []
    for where in (lambda: user_cache() / "alexnet-np", own_cache):
        with contextlib.suppress(RuntimeError):  # a user without a home
            parents.append(where() / "kernels")
    return [parent / stamp() for parent in dict.fromkeys(parents)]


def _temporary() -> list[Path]:
    try:
        parent = Path(tempfile.gettempdir())
    except OSError:  # there is none
        return []
    return [parent / f"alexnet-np-kernels-{os.getuid() if hasattr(os, 'getuid') else ''}" / stamp()]


def _is_private(folder: Path) -> bool:
    """Whether `folder` is there, and nobody else can write into it."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    others = hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022)
    return stat.S_ISDIR(found.st_mode) and not others


def _can_write(place: Path) -> bool:
    try:
        new = not place.exists()
        place.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place).close()
    except OSError:
        return False
    if new:
        _drop_old(place)
    return True


def _drop_old(newest: Path) -> None:
    """Leave of the folders beside `newest` those written last."""
    with contextlib.suppress(OSError):
        others = [other for other in newest.parent.iterdir() if other != newest]
        for other in sorted(others, key=lambda other: other.stat().st_mtime)[:-GENERATIONS]:
            shutil.rmtree(other, ignore_errors=True)


def read(name: str) -> bytes | None:
    for place in places():
        with contextlib.suppress(OSError):
            return (place / name).read_bytes()
    return None


def write(name: str, code: bytes) -> None:
    """Raises OSError where it cannot be written. Without any folder there is nothing to do."""
    place, _ = folder()
    if place is not None:
        with replacing(place / name) as file:
            file.write_bytes(code)
