"""A weight file that is compressed as a whole: by gzip, or as the one member `data` of a zip file.

cuda-convnet could write the second and read both. What comes out is read as if it were a file; the arrays share its
memory where they can.

Source: dnouri/cuda-convnet, util.py.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO

from alexnet_np.errors import WeightsError
from alexnet_np.weights.formats import pickle_file, zips
from alexnet_np.weights.leaves import Contents
from alexnet_np.weights.source import Source

EXPANSION = 20  # times the file's size that it may become
SMALL = 64 << 20  # bytes that it may become in any case
CHUNK = 1 << 20


def read_gzip(source: Source) -> Contents:
    """What gzip packed. Raises WeightsError."""
    return _unpacked(_inflated(source), source.size)


def read_zip(source: Source) -> Contents:
    """What the member `data` of a zip file holds. Raises WeightsError."""
    with zips.opened(source).open("data") as member:
        return _unpacked(_pieces(member), source.size)


def _inflated(source: Source) -> Iterator[bytes]:
    machine = zlib.decompressobj(16 + zlib.MAX_WBITS)
    for chunk in source.chunks(0, source.size):
        piece = machine.decompress(chunk.data, CHUNK)
        while piece:
            yield piece
            piece = machine.decompress(machine.unconsumed_tail, CHUNK)
    if not machine.eof:
        raise WeightsError("damaged: its compressed contents are cut short")


def _pieces(member: IO[bytes]) -> Iterator[bytes]:
    while piece := member.read(CHUNK):
        yield piece


def _unpacked(pieces: Iterator[bytes], size: int) -> Contents:
    whole = bytearray()
    for piece in pieces:
        whole += piece
        if len(whole) > max(SMALL, EXPANSION * size):
            raise WeightsError(f"refused: its {size} bytes become more than {len(whole)}")
    if whole[:1] != b"\x80":
        raise WeightsError("is compressed, and no pickle: unpack it first")
    return pickle_file.read(Source(whole, 0, len(whole)))
