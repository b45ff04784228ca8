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
from alexnet_np.weights.stream import Stream

LARGE = 4096  # bytes that are rather left where they are
OPCODES: dict[int, tuple[str, Any]] = {
    ord(opcode.code): (opcode.name, opcode.arg and opcode.arg.reader) for opcode in pickletools.opcodes
}
LINES = {"GLOBAL": 2, "INST": 2, "PERSID": 1, "STRING": 1}  # of text, whose escapes are nobody's business
LENGTHS = {"BINBYTES": 4, "BINSTRING": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}  # bytes of the length before the bytes


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
