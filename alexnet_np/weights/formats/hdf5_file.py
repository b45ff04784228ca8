"""HDF5: Caffe's snapshots, which hold data/<layer>/<i>, and whatever else holds arrays under names.

The h5py library reads the structure, through the descriptor that is open already. The numbers of a data set that lies
in one piece, as Caffe's do, are read from its place in the file, and not by the library.

Source: BVLC/caffe, src/caffe/net.cpp (ToHDF5).
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from alexnet_np.errors import MissingPackageError, WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.formats.safetensors_file import natural
from alexnet_np.weights.leaves import Contents, Inert, Leaf, Run, numbers
from alexnet_np.weights.source import Source
from alexnet_np.weights.stream import SourceFile

MOST = 1 << 20  # bytes of structure that the library reads at once
MAX_NAMES = 10_000
MAX_DEPTH = 20  # groups in groups
EXPANSION = 20  # times the file's size that compressed arrays may have together


def read(source: Source) -> Contents:
    """The data sets of an HDF5 file, by the names of their groups. Raises WeightsError, MissingPackageError."""
    try:
        import h5py
    except ImportError:
        raise MissingPackageError("HDF5 files need the package h5py: pip install h5py") from None
    reader = _Reader(source, h5py)
    tree = reader.group(reader.file, 0)
    if set(tree) - {"diff"} == {"data"} and all(type(layer) is dict for layer in tree["data"].values()):
        names = {"0": "weight", "1": "bias"}
        layers = {layer: {names.get(i, i): leaf for i, leaf in blobs.items()} for layer, blobs in tree["data"].items()}
        return Contents("HDF5 snapshot of Caffe", layers)
    return Contents("HDF5", tree)


class _Reader:
    def __init__(self, source: Source, library: Any) -> None:
        self.source, self.library = source, library
        self.file = library.File(SourceFile(source, MOST), "r")
        self.names_left, self.bytes_left = MAX_NAMES, EXPANSION * source.size

    def group(self, group: Any, depth: int) -> dict[str, Any]:
        """What a group holds. Links to elsewhere are not followed."""
        tree: dict[str, Any] = {}
        for name in sorted(group, key=natural):
            self.names_left -= 1
            if self.names_left < 0 or depth > MAX_DEPTH:
                raise WeightsError("refused: too many groups in an HDF5 file, or too deep")
            if type(group.get(name, getlink=True)) is not self.library.HardLink:
                tree[name] = Inert("a link")
                continue
            node = group[name]
            tree[name] = self.group(node, depth + 1) if isinstance(node, self.library.Group) else self.array(node)
        return tree

    def array(self, dataset: Any) -> Leaf | Inert:
        dtype = getattr(dataset, "dtype", None)
        if dtype is None or dtype.kind not in "iuf" or dataset.shape is None:
            return Inert(f"HDF5 data of type {dtype}")
        native, nbytes = dtype.newbyteorder("=").name, prod(dataset.shape) * dtype.itemsize
        place = dataset.id.get_offset()  # None where it is in chunks, compressed or not
        if place is not None:
            self.source.check(place, nbytes)
            run = Run(self.source, place, nbytes)
            return Leaf(dataset.shape, native, partial(_array, run, native, dtype.byteorder == ">", dataset.shape))
        self.bytes_left -= nbytes
        if self.bytes_left < 0:
            raise WeightsError(f"refused: its compressed arrays, {quoted(dataset.name)} the last, claim too many bytes")
        return Leaf(dataset.shape, native, lambda: np.asarray(dataset[...], native))


def _array(run: Run, dtype: str, big_endian: bool, shape: tuple[int, ...]) -> np.ndarray:
    return numbers(run.array(), dtype, big_endian).reshape(shape)
