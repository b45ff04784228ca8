"""The zip file that torch.save has written since 1.6: a pickle, and each storage in a member of its own.

    name/data.pkl    the pickle; a tensor in it names its storage
    name/data/0 ...  the storages, stored without compression and aligned to 64 bytes
    name/byteorder   "little" or "big", since torch 2.1

Nothing is extracted: the file is mapped into memory, copy on write, and the arrays are views of the map. zipfile reads
the directory only. Every member that is used has its CRC-32 checked, which torch.load does not do.
"""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from zipfile import ZIP_STORED

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights import pickled
from alexnet_np.weights.state_dict import tensors_of
from alexnet_np.weights.tensors import Storage, numbers, views
from alexnet_np.weights.zips import directory

LOCAL_HEADER, LENGTHS = 30, 26  # bytes of a member's own header; where in it the lengths of the two fields after it are


class Archive:
    """The members of a zip file by name, as views of one memory map."""

    def __init__(self, path: Path) -> None:
        members = directory(path)
        with path.open("rb") as file:
            self.map = memoryview(mmap(file.fileno(), 0, access=ACCESS_COPY))
        self.members = {member.filename: member for member in members}
        if len(self.members) < len(members):
            raise WeightsError("damaged: two members of the zip file have the same name")
        claimed = sum(member.file_size for member in members)
        if claimed > len(self.map):
            raise WeightsError(f"refused: {claimed} bytes in a file of {len(self.map)}; torch.save compresses nothing")
        # torch.serialization.set_crc32_options(False) makes torch write 0 for every checksum
        self.has_checksums = any(member.CRC for member in members)

    def __getitem__(self, name: str) -> memoryview:
        """A member's bytes, checked. Raises WeightsError."""
        member = self.members.get(name)
        if member is None:
            raise WeightsError(f"damaged: the zip file has no member {quoted(name)}")
        if member.compress_type != ZIP_STORED:
            raise WeightsError(f"refused: {quoted(name)} is compressed, which torch.save never does")
        lengths = self.map[member.header_offset + LENGTHS : member.header_offset + LOCAL_HEADER]
        start = member.header_offset + LOCAL_HEADER + sum(struct.unpack("<HH", lengths))
        content = self.map[start : start + member.file_size]
        if self.has_checksums and zlib.crc32(content) != member.CRC:
            raise WeightsError(f"damaged: the checksum of {quoted(name)} does not match; fetch the file again")
        return content


def read(path: Path) -> dict[str, np.ndarray]:
    """The state dict in a zip file of torch.save. Raises WeightsError."""
    archive = Archive(path)
    prefix = next(name for name in archive.members if name.endswith("data.pkl")).removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in archive.members:
        raise WeightsError("a TorchScript program, not weights: load it with torch.jit.load and save its state_dict()")
    script = archive[f"{prefix}data.pkl"]
    if len(script) > pickled.MAX_PICKLE:
        raise WeightsError(f"refused: its pickle has {len(script)} bytes, a state dict's has some thousand")
    big_endian = f"{prefix}byteorder" in archive.members and archive[f"{prefix}byteorder"] == b"big"
    tensors = tensors_of(pickled.load(io.BytesIO(script), pickled.Storages()))

    def load(storage: Storage) -> np.ndarray:
        raw = archive[f"{prefix}data/{storage.key}"]
        if len(raw) < storage.nbytes:
            raise WeightsError(
                f"damaged: storage {quoted(storage.key)} claims {storage.nbytes} bytes and has {len(raw)}"
            )
        return numbers(raw[: storage.nbytes], storage.dtype, big_endian)

    storages = list(dict.fromkeys(tensor.storage for tensor in tensors.values()))
    with ThreadPoolExecutor() as pool:  # the checksums take the time, and zlib computes them outside of the GIL
        return views(tensors, dict(zip(storages, pool.map(load, storages), strict=True)))
