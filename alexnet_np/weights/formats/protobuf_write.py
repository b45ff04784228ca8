"""Protocol buffers of the protobuf library, written with the long runs of numbers between its bytes, as they lie.

The library would hold every number a second time in its message, and a third time in the finished file. A message
without its numbers has some thousand bytes; what it is embedded in, and the numbers, are fields of a tag, a length and
as many bytes, in whatever order.

Source of the encoding: protobuf.dev/programming-guides/encoding, length-delimited records.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from alexnet_np.weights.formats.protobuf import varint

Part = bytes | np.ndarray
LENGTH_DELIMITED = 2


def field(number: int, parts: Iterable[Part]) -> list[Part]:
    """A message, or a run of numbers, as the field `number` of the message that is around it."""
    inside = list(parts)
    size = sum(part.nbytes if isinstance(part, np.ndarray) else len(part) for part in inside)
    return [varint(number << 3 | LENGTH_DELIMITED) + varint(size), *inside]


def write(path: Path, parts: Iterable[Part]) -> None:
    """Arrays are in C order, their numbers little-endian. Raises OSError."""
    with path.open("wb") as file:
        for part in parts:
            file.write(part.reshape(-1).view(np.uint8).data if isinstance(part, np.ndarray) else part)
