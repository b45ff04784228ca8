"""A pickle's opcodes, one after the other, with every long run of bytes left where it lies.

pickletools knows each opcode and how to read its argument, which runs nothing. Here it reads from a stream that knows
how much is left, so that no argument can claim more, and bytes beyond some thousand are stepped over: what comes
instead of them is a `Run`, which says where they are.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import Any

from alexnet_np.errors import WeightsError
from alexnet_np.weights.leaves import Run
from alexnet_np.weights.source import Source

WINDOW = 1 << 16  # bytes read ahead
MAX_LINE = 4096  # of the arguments that end with a line, names and decimal numbers
MAX_TEXT = 1 << 24  # bytes of one string
LARGE = 4096  # bytes that are rather left where they are
OPCODES: dict[int, tuple[str, Any]] = {
    ord(opcode.code): (opcode.name, opcode.arg and opcode.arg.reader) for opcode in pickletools.opcodes
}
LINES = {"GLOBAL": 2, "INST": 2, "PERSID": 1, "STRING": 1}  # of text, whose escapes are nobody's business
LENGTHS = {"BINBYTES": 4, "BINSTRING": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}  # bytes of the length before the bytes


class Stream:
    """A source from `place` on, read in small steps. What pickletools' readers read from."""

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
            raise WeightsError(f"refused: a string of {size} bytes in a pickle")
        here = self.tell()
        ahead = min(max(size, WINDOW), self.source.size - here)
        if ahead < size:
            raise WeightsError("damaged: its pickle is cut short")
        self.window, self.at, self.place = self.source.read(here, ahead), 0, here + ahead

    def readline(self) -> bytes:
        """Up to the end of a line, which pickletools' readers want to see."""
        line = bytearray()
        while not line.endswith(b"\n"):
            line.append(self.byte())
            if len(line) > MAX_LINE:
                raise WeightsError("refused: a line in its pickle is too long")
        return bytes(line)

    def run(self, size: int) -> Run:
        """The next `size` bytes, stepped over."""
        here = self.tell()
        self.source.check(here, size)
        self.window, self.at, self.place = b"", 0, here + size
        return Run(self.source, here, size)


def opcodes(stream: Stream) -> Iterator[tuple[str, Any]]:
    """(name, argument) until STOP. Raises WeightsError, ValueError."""
    name = ""
    while name != "STOP":
        code = stream.byte()
        if code not in OPCODES:
            raise WeightsError(f"damaged: {code} is no opcode of a pickle")
        name, read_argument = OPCODES[code]
        if name in LENGTHS:
            size = int.from_bytes(stream.read(LENGTHS[name]), "little")
            yield name, stream.run(size) if size > LARGE else stream.read(size)
        elif name in LINES:
            yield name, " ".join(stream.readline()[:-1].decode() for _ in range(LINES[name]))
        else:
            yield name, read_argument and read_argument(stream)
