"""The directory of a zip file from a stranger, and members that are stored in it as they are."""

from __future__ import annotations

import struct
import zlib
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np

from alexnet_np.errors import WeightsError, one_line
from alexnet_np.text import quoted
from alexnet_np.weights.source import Source
from alexnet_np.weights.stream import SourceFile

# Bytes that are read at once. zipfile asks for as many as the file claims that its directory has; these are some 50,000
# members, whose objects take a dozen times as much memory.
MAX_DIRECTORY = 4 << 20
LOCAL_HEADER, LENGTHS = 30, 26  # bytes of a member's own header; where in it the lengths of the two fields after it are
STEP = 1 << 20  # bytes between two looks at the checksum, few enough to be still in the processor's cache


def opened(source: Source) -> ZipFile:
    """The zip file, its directory read. Raises WeightsError."""
    try:
        return ZipFile(SourceFile(source, MAX_DIRECTORY))
    except BadZipFile as error:
        raise WeightsError(f"cut short or damaged ({one_line(error)}): fetch the file again") from error


def directory(source: Source) -> list[ZipInfo]:
    """The members of a zip file. Raises WeightsError."""
    return opened(source).infolist()


def stored(source: Source, member: ZipInfo, checked: bool = True) -> np.ndarray:
    """The bytes of a member that is not compressed, read straight into memory of their own.

    zipfile would copy them twice. Raises WeightsError where the CRC-32 is another, unless it is not to be `checked`.
    """
    lengths = source.read(member.header_offset + LENGTHS, LOCAL_HEADER - LENGTHS)
    start = member.header_offset + LOCAL_HEADER + sum(struct.unpack("<HH", lengths))
    source.check(start, member.file_size)
    content = np.empty(member.file_size, np.uint8)
    checksum = 0
    for offset in range(0, member.file_size, STEP):
        piece = content[offset : offset + STEP]
        source.fill(start + offset, piece.data)
        checksum = zlib.crc32(piece.data, checksum) if checked else 0
    if checked and checksum != member.CRC:
        raise WeightsError(
            f"damaged: the checksum of {quoted(member.filename)} does not match; fetch or write the file again"
        )
    return content
