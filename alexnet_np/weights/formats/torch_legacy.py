"""The two formats that torch.save wrote before the zip file: one stream (0.1.10 to 1.5), and a tar file (before).

The stream is five pickles (a magic number, the version, the system, the object, the keys of the storages in order),
then every storage: its number of elements in 8 bytes, and the elements. It is still written on request
(`_use_new_zipfile_serialization=False`), and within the pickle of a tensor that torch.save did not write. The tar file
has three members: `storages`, pickles and elements in turn; `tensors`, pickles and sizes in turn; `pickle`, in which a
tensor is the number that it has in the other two. The weights that torchvision published in January 2017 are tar files.

Neither has checksums, so a flipped bit among the elements goes unnoticed.
"""

from __future__ import annotations

import struct
import tarfile
from typing import Any

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.formats import pickled
from alexnet_np.weights.formats.torch_tensors import Storage, Storages, key, size, sizes, tensor
from alexnet_np.weights.leaves import MAX_AXES, Contents, Leaf, Run, numbers
from alexnet_np.weights.source import Source
from alexnet_np.weights.stream import Stream

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
BEGINNING = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number, pickled
MAX_TENSORS = 10_000  # in a tar file
MAX_MEMBERS = 100

Places = dict[str, int]  # where each storage's elements begin, by its key


def read_stream(source: Source) -> Contents:
    """What torch.save with _use_new_zipfile_serialization=False wrote. Raises WeightsError."""
    return Contents("torch.save, legacy stream", _stream(source))


def storage_in(raw: Any) -> Storage:
    """The storage in the bytes of such a stream, as a tensor's pickle has it. Raises WeightsError."""
    if type(raw) is Run:
        found = _stream(raw.source.part(raw.start, raw.nbytes))
    elif type(raw) is bytes:
        found = _stream(Source(bytearray(raw), 0, len(raw)))
    else:
        found = None
    if type(found) is not Storage:
        raise WeightsError("damaged: its pickle has a tensor without a storage")
    return found


def _stream(source: Source) -> Any:
    stream = Stream(source)
    magic, version = pickled.load(stream), pickled.load(stream)
    if magic != MAGIC or version != VERSION:
        raise WeightsError("damaged: not the magic number or the version that torch.save writes")
    places: Places = {}
    known = Storages(_reader(source, places))
    pickled.load(stream)  # the system that wrote it; the elements are little-endian on all of them
    tree = pickled.load(stream, known)
    for name in pickled.load(stream):
        storage = known[key(name)]
        (numel,) = struct.unpack("<q", stream.read(8))
        if numel != storage.numel:
            raise WeightsError(f"damaged: a storage of {storage.numel} elements begins with the number {numel}")
        places[storage.key] = stream.run(storage.nbytes).start
    for name in known:
        if name not in places:
            raise WeightsError(f"damaged: storage {quoted(name)} is missing")
    return tree


def _reader(source: Source, places: Places) -> Any:
    """Reads a storage from its place."""

    def fetch(storage: Storage) -> np.ndarray:
        return numbers(source.array(places[storage.key], storage.nbytes), storage.dtype)

    return fetch


def read_tar(source: Source) -> Contents:
    """What torch.save before 0.1.10 wrote. Raises WeightsError."""
    members = _members(source)
    starts = _tar_storages(source, Stream(source, members["storages"]))
    by_key = _tar_tensors(Stream(source, members["tensors"]), starts)

    def meant(identity: Any) -> Any:
        return identity[0] if type(identity) is tuple else by_key[key(identity)]  # a tuple: a class and its file

    return Contents("torch.save, tar", pickled.load(Stream(source, members["pickle"]), meant))


def _members(source: Source) -> dict[str, int]:
    """Where the members of a tar file begin. (TarFile itself follows sizes and links that lead it in circles.)"""
    members, start = {}, 0
    for _ in range(MAX_MEMBERS):
        block = source.read(start, min(tarfile.BLOCKSIZE, max(0, source.size - start)))
        if not block.strip(b"\0"):
            break
        header = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        members[header.name] = start + tarfile.BLOCKSIZE
        start += tarfile.BLOCKSIZE * (1 - (-max(header.size, 0) // tarfile.BLOCKSIZE))
    if not {"storages", "tensors", "pickle"} <= members.keys():
        raise WeightsError("a tar file, but not one that torch.save wrote: unpack it first")
    return members


def _tar_storages(source: Source, stream: Stream) -> dict[str, tuple[Storage, int]]:
    """For every key the storage that it means and the element at which it starts."""
    places: Places = {}
    known = Storages(_reader(source, places))
    starts = {}
    for _ in range(_count(stream)):
        name, _location, kind = pickled.load(stream)
        storage = known.add(kind, name, *struct.unpack("<q", stream.read(8)))
        if type(storage) is not Storage:
            raise WeightsError("damaged: a storage of a type that torch did not have")
        places[storage.key] = stream.run(storage.nbytes).start
        starts[storage.key] = (storage, 0)
    for name, root, offset, _numel_of_view in pickled.load(stream):
        storage, _ = starts[key(root)]
        starts[key(name)] = (storage, size(offset))
    return starts


def _tar_tensors(stream: Stream, starts: dict[str, tuple[Storage, int]]) -> dict[str, Leaf]:
    tensors = {}
    for _ in range(_count(stream)):
        name, storage_key, _kind = pickled.load(stream)
        storage, start = starts[key(storage_key)]
        (ndim,) = struct.unpack("<i4x", stream.read(8))
        if not 0 <= ndim <= MAX_AXES:
            raise WeightsError(f"damaged: a tensor of {ndim} axes")
        *extents, offset = struct.unpack(f"<{2 * ndim + 1}q", stream.read(8 * (2 * ndim + 1)))
        tensors[key(name)] = tensor(storage, start + size(offset), sizes(extents[:ndim]), sizes(extents[ndim:]))
    return tensors


def _count(stream: Stream) -> int:
    count = size(pickled.load(stream))
    if count > MAX_TENSORS:
        raise WeightsError(f"refused: it claims {count} tensors")
    return count
