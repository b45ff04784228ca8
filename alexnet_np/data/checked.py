"""Which pictures of a folder can be read: each is looked into once, and again when it has changed.

What was found good stands in the user's cache, a file a folder: a 64-bit mark of each picture's path, size and time,
of Pillow's version and of its guard against bombs. A picture of none of the marks is looked into.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from alexnet_np.data.preprocess import check_image
from alexnet_np.errors import ImageError
from alexnet_np.files import own_cache, replacing

WORTH = 500  # pictures in a folder: fewer are looked into within a second


def faults(root: Path, files: Sequence[str], workers: int) -> list[ImageError | None]:
    """Why each of `files`, which lie below `root`, cannot be read to its last pixel; None where it can."""
    marks = np.array([_mark(file) for file in files], np.uint64)
    good = np.isin(marks, _known(root)) & (marks > 0)
    unknown = np.flatnonzero(~good).tolist()
    found: list[ImageError | None] = [None] * len(files)
    with ThreadPoolExecutor(workers) as pool:
        for i, fault in zip(unknown, pool.map(check_image, [files[i] for i in unknown]), strict=True):
            found[i] = fault
    if unknown and len(files) >= WORTH:
        _remember(root, marks[[fault is None for fault in found]])
    return found


def _mark(file: str) -> int:
    """0 where there is no such file: then it is looked into, and the fault found."""
    try:
        status = Path(file).stat()
    except OSError:
        return 0
    said = f"{Path(file).absolute()}\0{status.st_size} {status.st_mtime_ns} {PIL.__version__} {Image.MAX_IMAGE_PIXELS}"
    return int.from_bytes(hashlib.blake2b(said.encode("utf-8", "surrogateescape"), digest_size=8).digest())


def _place(root: Path) -> Path:
    name = hashlib.blake2b(str(root.absolute()).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return own_cache() / "checked" / f"{name}.npy"


def _known(root: Path) -> np.ndarray:
    with suppress(OSError, RuntimeError, ValueError, EOFError):  # no home, nothing there, damaged: nothing is known
        found = np.load(_place(root))
        if found.dtype == np.uint64:
            return found
    return np.empty(0, np.uint64)


def _remember(root: Path, marks: np.ndarray) -> None:
    with suppress(OSError, RuntimeError):  # a cache that cannot be written to only costs the looking next time
        place = _place(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as temporary, temporary.open("wb") as file:
            np.save(file, np.sort(marks))
