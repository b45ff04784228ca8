"""The zip file that torch.save has written since 1.6: a pickle, and each storage in a member of its own.

    name/data.pkl    the pickle; a tensor in it names its storage
    name/data/0 ...  the storages, stored without compression and aligned to 64 bytes
    name/byteorder   "little" or "big", since torch 2.1

TorchScript's archive is the same and holds a program besides (name/code, name/constants.pkl, compressed), which is left
alone. Nothing is extracted: zipfile reads the directory only, and each storage is read straight into its array. Every
member that is used has its CRC-32 checked, which torch.load does not do.
"""

from __future__ import annotations

import json
from threading import Lock
from zipfile import ZIP_STORED

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.formats import pickled, zips
from alexnet_np.weights.formats.torch_tensors import Storage, Storages
from alexnet_np.weights.formats.torch_write import METADATA
from alexnet_np.weights.leaves import Contents, numbers
from alexnet_np.weights.source import Source
from alexnet_np.weights.stream import Stream

MAX_PICKLE = 16 << 20  # bytes; AlexNet's is 1.4 kB, a network's of a thousand layers some 100 kB


class Archive:
    """The members of a zip file by name, read and checked."""

    def __init__(self, source: Source) -> None:
        self.source = source
        members = zips.directory(source)
        self.members = {member.filename: member for member in members}
        if len(self.members) < len(members):
            raise WeightsError("damaged: two members of the zip file have the same name")
        # torch.serialization.set_crc32_options(False) makes torch write 0 for every checksum
        self.has_checksums = any(member.CRC for member in members)
        self.lock, self.left = Lock(), source.size

    def __getitem__(self, name: str) -> np.ndarray:
        """A member's bytes, checked, in memory of their own. Raises WeightsError."""
        member = self.members.get(name)
        if member is None:
            raise WeightsError(f"damaged: the zip file has no member {quoted(name)}")
        if member.compress_type != ZIP_STORED:
            raise WeightsError(f"refused: {quoted(name)} is compressed, which torch.save never does")
        with self.lock:  # members may share their bytes, and many that do would together take more than the file has
            self.left -= member.file_size
            if self.left < 0:
                raise WeightsError(
                    f"refused: its members are together larger than the file; {quoted(name)} is too much"
                )
        return zips.stored(self.source, member, self.has_checksums)


def read(source: Source) -> Contents:
    """What torch.save or torch.jit.save wrote. Raises WeightsError."""
    archive = Archive(source)
    prefix = next(name for name in archive.members if name.endswith("data.pkl")).removesuffix("data.pkl")
    script = archive.members[f"{prefix}data.pkl"]
    if script.file_size > MAX_PICKLE:
        raise WeightsError(f"refused: its pickle has {script.file_size} bytes, a state dict's has some thousand")
    order = f"{prefix}byteorder"
    big_endian = order in archive.members and archive[order].tobytes() == b"big"

    def fetch(storage: Storage) -> np.ndarray:
        raw = archive[f"{prefix}data/{storage.key}"]
        if len(raw) < storage.nbytes:
            raise WeightsError(
                f"damaged: storage {quoted(storage.key)} claims {storage.nbytes} bytes and has {len(raw)}"
            )
        return numbers(raw[: storage.nbytes], storage.dtype, big_endian)

    raw = bytearray(archive[script.filename])
    tree = pickled.load(Stream(Source(raw, 0, len(raw))), Storages(fetch))
    is_program = f"{prefix}constants.pkl" in archive.members
    kind = "TorchScript archive" if is_program else "torch.save, zip"
    return Contents(kind, tree, metadata=_metadata(archive, f"{prefix}{METADATA}"))


def _metadata(archive: Archive, name: str) -> dict[str, str]:
    """What torch_write.py noted beside the arrays. Raises WeightsError."""
    if name not in archive.members:
        return {}
    found = json.loads(archive[name].tobytes())
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise WeightsError("damaged: its metadata is not text")
    return found
