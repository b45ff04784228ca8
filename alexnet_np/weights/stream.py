"""A weight file read in small steps: by us, some kilobytes ahead, or by a library that wants a file."""

from __future__ import annotations

import io
import os
from typing import Any

from alexnet_np.errors import WeightsError
from alexnet_np.weights.leaves import Run
from alexnet_np.weights.source import Source

WINDOW = 1 << 16  # bytes read ahead
MAX_LINE = 4096  # bytes of a line, in a pickle's names and decimal numbers
MAX_TEXT = 1 << 24  # bytes that are read at once


class Stream:
    """A source from `place` on."""

    def __init__(self, source: Source, place: int = 0) -> None:
        self.source, self.place = source, place
        self.window, self.at = b"", 0  # the bytes read ahead, and how many of them are used; `place` is behind them all

    def tell(self) -> int:
        return self.place - len(self.window) + self.at

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises WeightsError where there are fewer."""
        end = self.at + size
        if end > len(self.window):
            self._ahead(size)
            end = size
        start, self.at = self.at, end
        return self.window[start:end]

    def byte(self) -> int:
        if self.at == len(self.window):
            self._ahead(1)
        self.at += 1
        return self.window[self.at - 1]

    def _ahead(self, size: int) -> None:
        """Let the window begin here and have `size` bytes at least."""
        if size > MAX_TEXT:
            raise WeightsError(f"refused: a text of {size} bytes, where weights have names")
        here = self.tell()
        ahead = min(max(size, WINDOW), self.source.size - here)
        if ahead < size:
            raise WeightsError("damaged: cut short")
        self.window, self.at, self.place = self.source.read(here, ahead), 0, here + ahead

    def readline(self) -> bytes:
        """Up to the end of a line, which pickletools' readers want to see."""
        line = bytearray()
        while not line.endswith(b"\n"):
            line.append(self.byte())
            if len(line) > MAX_LINE:
                raise WeightsError("refused: a line in it is too long")
        return bytes(line)

    def run(self, size: int) -> Run:
        """The next `size` bytes, stepped over."""
        here = self.tell()
        self.source.check(here, size)
        if self.at + size <= len(self.window):
            self.at += size
        else:
            self.window, self.at, self.place = b"", 0, here + size
        return Run(self.source, here, size)


class SourceFile(io.RawIOBase):
    """A source as a file for a library, which may ask for `most` bytes at once."""

    def __init__(self, source: Source, most: int) -> None:
        self.source, self.most, self.place = source, most, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.source.size}[whence])
        return self.place

    def tell(self) -> int:
        return self.place

    def read(self, size: int | None = -1) -> bytes:
        wanted = self._left() if size is None or size < 0 else size
        if wanted > self.most:
            raise WeightsError(f"refused: it claims {wanted} bytes in one piece, where weights take some thousand")
        content = self.source.read(self.place, min(wanted, self._left()))
        self.place += len(content)
        return content

    def readinto(self, room: Any) -> int:
        view = memoryview(room).cast("B")[: self._left()]
        self.source.fill(self.place, view)
        self.place += len(view)
        return len(view)

    def _left(self) -> int:
        return max(0, self.source.size - self.place)
