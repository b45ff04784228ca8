""".npz, the zip file of numpy.savez and savez_compressed: one .npy member an array.

A member may be compressed and is then a thousandth of what it claims to become, so the sum of the claims is bounded
first, and no array is made before its header has been found to fit its member. Every CRC-32 is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights import seal
from alexnet_np.weights.formats import zips
from alexnet_np.weights.leaves import Contents, Inert, Leaf
from alexnet_np.weights.source import Source

CHUNK = 1 << 20
EXPANSION = 20  # times the file's size that its arrays may have: pruned weights reach some 10
SMALL = 64 << 20  # bytes that they may have in any case
MAX_COMMENT = 65535  # bytes of a zip file's comment
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read(source: Source) -> Contents:
    """The arrays in a .npz by name. Raises WeightsError."""
    archive = zips.opened(source)
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    if total > max(SMALL, EXPANSION * source.size):
        raise WeightsError(f"refused: its compressed arrays claim to become {total} bytes")
    tree = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name == member.filename or name in tree:
            raise WeightsError(f"holds {quoted(name)}, which is not an array or is there twice")
        if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise WeightsError(f"refused: {quoted(name)} is compressed in a way that NumPy never uses")
        tree[name] = _leaf(source, archive, member, name)
    return Contents(".npz of NumPy", tree, metadata=_metadata(archive.comment))


def _metadata(comment: bytes) -> dict[str, str]:
    """What is noted in the zip file's comment, where NumPy and whoever else reads the arrays never looks."""
    return {seal.KEY: comment.decode(errors="replace")} if comment.startswith(b"{") else {}


def _leaf(source: Source, archive: ZipFile, member: ZipInfo, name: str) -> Leaf | Inert:
    with archive.open(member) as stream:
        shape, fortran, dtype, start = header(stream, name)
    if dtype.kind not in "biuf":
        return Inert("pickled objects, which are refused" if dtype.hasobject else f"{dtype}, which are no numbers")
    nbytes = prod(shape) * dtype.itemsize
    if nbytes != member.file_size - start:
        raise WeightsError(f"damaged: {quoted(name)} claims {nbytes} bytes and has {member.file_size - start}")

    def read() -> np.ndarray:
        stored = member.compress_type == ZIP_STORED
        content = zips.stored(source, member) if stored else _inflated(archive, member, name)
        array = content[start:].view(dtype).reshape(shape, order="F" if fortran else "C")
        return np.require(array, dtype.newbyteorder("="), "A")

    return Leaf(shape, dtype.newbyteorder("=").name, read)


def header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether in Fortran's order, dtype, and where the numbers begin, of a .npy. Raises WeightsError."""
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise WeightsError(f"damaged: {quoted(name)} is of .npy version {version}")
    shape, fortran, dtype = HEADERS[version](stream)
    if any(n < 0 for n in shape):
        raise WeightsError(f"damaged: {quoted(name)} claims shape {shape}")
    return shape, fortran, dtype, stream.tell()


def _inflated(archive: ZipFile, member: ZipInfo, name: str) -> np.ndarray:
    """A member's bytes."""
    content, filled = np.empty(member.file_size, np.uint8), 0
    with archive.open(member) as stream:
        while part := stream.read(CHUNK):
            content[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
            filled += len(part)
    if filled < content.nbytes:
        raise WeightsError(f"damaged: {quoted(name)} is cut short")
    return content


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """What numpy.savez writes, but under any names: it takes them as keyword arguments, so that "file" is taken.

    Metadata is the archive's comment. Raises WeightsError where that is too long for one.
    """
    comment = (metadata or {}).get(seal.KEY, "").encode()
    if len(comment) > MAX_COMMENT:
        raise WeightsError(
            f"the names of the classes take {len(comment)} bytes, and a .npz has room for {MAX_COMMENT}: "
            "write .safetensors"
        )
    with ZipFile(path, "w") as archive:
        archive.comment = comment
        for name, array in arrays.items():
            plain = np.ascontiguousarray(array).reshape(array.shape)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array_header_1_0(member, npy.header_data_from_array_1_0(plain))
                member.write(plain.reshape(-1).view(np.uint8).data)  # NumPy's own way copies 16 MB at a time, twice
