"""The two formats that torch.save wrote before the zip file: one stream (0.1.10 to 1.5), and a tar file (before).

The stream is five pickles (a magic number, the version, the system, the object, the keys of the storages in order),
then every storage: its number of elements in 8 bytes, and the elements. It is still written on request
(`_use_new_zipfile_serialization=False`). The tar file has three members: `storages`, pickles and elements in turn;
`tensors`, pickles and sizes in turn; `pickle`, in which a tensor is the number that it has in the other two. The
weights that torchvision published in January 2017 are tar files.

Neither aligns the elements, so they are read rather than mapped, and neither has checksums, so a flipped bit among the
elements goes unnoticed.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights import pickled
from alexnet_np.weights.state_dict import tensors_of
from alexnet_np.weights.tensors import Storage, Tensor, numbers, views

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
SMALL_PICKLE = 1 << 16  # bytes; a pickle in the tar file's first two members holds three items
MAX_TENSORS = 10_000  # in a tar file
MAX_MEMBERS = 100

Places = dict[Storage, int]  # where in the file each storage's elements begin


def read_stream(path: Path) -> dict[str, np.ndarray]:
    """The state dict in a file of torch.save with _use_new_zipfile_serialization=False. Raises WeightsError."""
    known = pickled.Storages()
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(pickled.MAX_PICKLE))
        magic, version = pickled.load(stream), pickled.load(stream)
        if magic != MAGIC or version != VERSION:
            raise WeightsError("damaged: not the magic number or the version that torch.save writes")
        pickled.load(stream)  # the system that wrote it; the elements are little-endian on all of them
        tensors = tensors_of(pickled.load(stream, known))
        order = [known[pickled.key(key)] for key in pickled.load(stream)]
        file.seek(stream.tell())
        places: Places = {}
        for storage in order:
            numel = _numel(file)
            if numel != storage.numel:
                raise WeightsError(f"damaged: a storage of {storage.numel} elements begins with the number {numel}")
            places[storage] = _pass_over(file, storage)
        return _arrays(file, places, tensors)


def read_tar(path: Path) -> dict[str, np.ndarray]:
    """The state dict in a file of torch.save before 0.1.10. Raises WeightsError."""
    with path.open("rb") as file:
        members = _members(file)
        file.seek(members["storages"])
        places, starts = _tar_storages(file)
        file.seek(members["tensors"])
        by_key = _tar_tensors(file, starts)

        def tensor(identity: Any) -> Tensor:
            if type(identity) is tuple:
                raise WeightsError("holds a whole pickled model, not its weights: save model.state_dict() instead")
            return by_key[pickled.key(identity)]

        file.seek(members["pickle"])
        saved = pickled.load(io.BytesIO(file.read(pickled.MAX_PICKLE)), tensor)
        return _arrays(file, places, tensors_of(saved))


def _members(file: io.BufferedReader) -> dict[str, int]:
    """Where the members of a tar file begin. (TarFile itself follows sizes and links that lead it in circles.)"""
    members, start = {}, 0
    for _ in range(MAX_MEMBERS):
        file.seek(start)
        block = file.read(tarfile.BLOCKSIZE)
        if not block.strip(b"\0"):
            break
        header = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        members[header.name] = start + tarfile.BLOCKSIZE
        start += tarfile.BLOCKSIZE * (1 - (-max(header.size, 0) // tarfile.BLOCKSIZE))
    if not {"storages", "tensors", "pickle"} <= members.keys():
        raise WeightsError("a tar file, but not one that torch.save wrote: unpack it first")
    return members


def _tar_storages(file: io.BufferedReader) -> tuple[Places, dict[str, tuple[Storage, int]]]:
    """The storages, and for every key the storage that it means and the element at which it starts."""
    places: Places = {}
    starts = {}
    for _ in range(_count(file)):
        key, _location, kind = _next_pickle(file)
        storage = pickled.new_storage(kind, key, _numel(file))
        places[storage] = _pass_over(file, storage)
        starts[storage.key] = (storage, 0)
    for key, root, offset, _numel_of_view in _next_pickle(file):
        storage, _ = starts[pickled.key(root)]
        starts[pickled.key(key)] = (storage, pickled.size(offset))
    return places, starts


def _tar_tensors(file: io.BufferedReader, starts: dict[str, tuple[Storage, int]]) -> dict[str, Tensor]:
    tensors = {}
    for _ in range(_count(file)):
        key, storage_key, _kind = _next_pickle(file)
        storage, start = starts[pickled.key(storage_key)]
        (ndim,) = struct.unpack("<i4x", file.read(8))
        if not 0 <= ndim <= pickled.MAX_AXES:
            raise WeightsError(f"damaged: a tensor of {ndim} axes")
        *extents, offset = struct.unpack(f"<{2 * ndim + 1}q", file.read(8 * (2 * ndim + 1)))
        shape, stride = pickled.sizes(extents[:ndim]), pickled.sizes(extents[ndim:])
        tensors[pickled.key(key)] = Tensor(storage, start + pickled.size(offset), shape, stride)
    return tensors


def _next_pickle(file: io.BufferedReader) -> Any:
    start = file.tell()
    stream = io.BytesIO(file.read(SMALL_PICKLE))
    value = pickled.load(stream)
    file.seek(start + stream.tell())
    return value


def _count(file: io.BufferedReader) -> int:
    count = pickled.size(_next_pickle(file))
    if count > MAX_TENSORS:
        raise WeightsError(f"refused: it claims {count} tensors")
    return count


def _numel(file: io.BufferedReader) -> int:
    """The number of elements that stands before a storage's elements."""
    return struct.unpack("<q", file.read(8))[0]


def _pass_over(file: io.BufferedReader, storage: Storage) -> int:
    """Step over a storage's elements; returns where they begin."""
    start = file.tell()
    if start + storage.nbytes > os.fstat(file.fileno()).st_size:
        raise WeightsError(f"damaged: cut short, or storage {quoted(storage.key)} claims more than the file holds")
    file.seek(start + storage.nbytes)
    return start


def _arrays(file: io.BufferedReader, places: Places, tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Read the storages that the tensors need, no others."""
    storages = {}
    for storage in {tensor.storage for tensor in tensors.values()}:
        if storage not in places:
            raise WeightsError(f"damaged: storage {quoted(storage.key)} is missing")
        raw = np.empty(storage.nbytes, np.uint8)
        file.seek(places[storage])
        if file.readinto(raw.data) < raw.size:
            raise WeightsError(f"damaged: storage {quoted(storage.key)} is cut short")
        storages[storage] = numbers(raw, storage.dtype)
    return views(tensors, storages)
