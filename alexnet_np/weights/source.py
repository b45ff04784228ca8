"""A weight file while it is read: one descriptor, read at any place by any thread, and never mapped into memory.

A map of a file that somebody cuts short kills the process that looks at it (SIGBUS), and one of a file that somebody
rewrites shows new numbers among old ones. So every array gets memory of its own, the file's bytes are read straight
into it, and where the file was changed meanwhile the reading ends in an error.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np

from alexnet_np.errors import WeightsError

CHUNK = 4 << 20  # bytes that are read at a time where they go elsewhere afterwards


class Source:
    """The bytes of a weight file, of a piece of one, or of what one was unpacked to.

    `start` and `size`: which part of `holder` this is. `holder`: an open file, or memory that arrays may share.
    """

    def __init__(self, holder: BinaryIO | bytearray, start: int, size: int, lock: Lock | None = None) -> None:
        self.holder, self.start, self.size = holder, start, size
        self.path: Path | None = None  # of the file, for those that keep their numbers in another one beside it
        self.lock = lock or Lock()  # where the system cannot read at a place, seeking and reading must not be parted

    def part(self, start: int, size: int) -> Source:
        """A piece of it. Raises WeightsError where it would reach beyond the end."""
        self.check(start, size)
        return Source(self.holder, self.start + start, size, self.lock)

    def check(self, start: int, size: int) -> None:
        if start < 0 or size < 0 or start + size > self.size:
            raise WeightsError(f"damaged: cut short, or it claims {size} bytes at {start} where it has {self.size}")

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start` on. Raises WeightsError where there are fewer."""
        self.check(start, size)
        if isinstance(self.holder, bytearray):
            return bytes(memoryview(self.holder)[self.start + start : self.start + start + size])
        content = bytearray(size)
        self.fill(start, memoryview(content))
        return bytes(content)

    def head(self, size: int) -> bytes:
        """The first `size` bytes, or all where there are fewer."""
        return self.read(0, min(size, self.size))

    def array(self, start: int, size: int) -> np.ndarray:
        """`size` bytes from `start` on, as a writable array of uint8 that nothing but this array's owner changes."""
        self.check(start, size)
        if isinstance(self.holder, bytearray):
            return np.frombuffer(self.holder, np.uint8, size, self.start + start)
        content = np.empty(size, np.uint8)
        self.fill(start, content.data)
        return content

    def fill(self, start: int, room: memoryview) -> None:
        """Read from `start` on into `room`, until it is full. Raises WeightsError where the file ends before."""
        self.check(start, room.nbytes)
        if isinstance(self.holder, bytearray):
            room[:] = memoryview(self.holder)[self.start + start : self.start + start + room.nbytes]
            return
        done = 0
        while done < room.nbytes:
            count = self._read_at(self.start + start + done, room[done:])
            if not count:
                raise WeightsError("damaged: cut short, perhaps while it was read: fetch or write it again")
            done += count

    def chunks(self, start: int, size: int) -> Iterator[np.ndarray]:
        """`size` bytes from `start` on, some megabytes at a time, in one buffer that is used again and again."""
        self.check(start, size)
        buffer = np.empty(min(size, CHUNK), np.uint8)
        for offset in range(0, size, CHUNK):
            part = buffer[: min(CHUNK, size - offset)]
            self.fill(start + offset, part.data)
            yield part

    def _read_at(self, place: int, room: memoryview) -> int:
        assert not isinstance(self.holder, bytearray)
        if hasattr(os, "preadv"):
            return os.preadv(self.holder.fileno(), [room], place)
        with self.lock:
            self.holder.seek(place)
            return self.holder.readinto(room) or 0  # type: ignore[attr-defined]


@contextmanager
def source_of(path: Path) -> Iterator[Source]:
    """The file at `path`, open. Raises WeightsError where it is none, or where it changed before the block ended."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise WeightsError("is a directory, not a file" if stat.S_ISDIR(status.st_mode) else "is not a regular file")
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        source = Source(file, 0, before.st_size)
        source.path = path
        yield source
        after = os.fstat(file.fileno())
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise WeightsError("changed while it was read: read it again when it is whole")
