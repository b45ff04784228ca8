"""IDX files, the format of MNIST and its successors, and Fashion-MNIST itself.

    two zero bytes, a type byte, the number of dimensions D; D big-endian 32-bit sizes; the values, big-endian, C order

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "file formats".
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from alexnet_np.data.dataset import ArrayDataset
from alexnet_np.data.labels import FASHION_MNIST
from alexnet_np.download import fetch
from alexnet_np.errors import AlexNetError, ArgumentError, DataError, one_line
from alexnet_np.files import own_cache

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"


class Published(NamedTuple):
    """One file of Fashion-MNIST as its authors publish it."""

    file: str
    size: int
    sha256: str

    @property
    def url(self) -> str:
        return FASHION_MNIST_URL + self.file


# Their MD5 sums are those of the authors' README and of torchvision's FashionMNIST.resources.
FASHION_MNIST_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
FASHION_MNIST_FILES = {
    "train": (
        Published(
            "train-images-idx3-ubyte.gz", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        Published(
            "train-labels-idx1-ubyte.gz", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
    ),
    "test": (
        Published(
            "t10k-images-idx3-ubyte.gz", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        Published(
            "t10k-labels-idx1-ubyte.gz", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    ),
}
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist


def fashion_mnist(split: str, root: str | os.PathLike | None = None, progress: bool = True) -> ArrayDataset:
    """Fashion-MNIST's "train" (60,000) or "test" (10,000) images: grey, 28x28, ten classes.

    The files, gzipped or not, are those in the folder `root`. With None they are those of Debian's package, else those
    in our own cache, downloaded into it where they are missing: size and SHA-256 checked, with a progress bar if
    `progress`.
    Raises DataError for what is missing or damaged, ArgumentError for another split.
    Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST" (2017).
    """
    if split not in FASHION_MNIST_FILES:
        raise ArgumentError(f"split must be 'train' or 'test', got {split!r}")
    paths = [_locate(published, root, progress) for published in FASHION_MNIST_FILES[split]]
    images, labels = (read_idx(path) for path in paths)
    try:
        return ArrayDataset(images, labels, FASHION_MNIST)
    except AlexNetError as error:
        raise DataError(f"{paths[0]} and {paths[1].name}: not a set of images and their labels: {error}") from None


def _locate(published: Published, root: str | os.PathLike | None, progress: bool) -> Path:
    cache = own_cache() / "fashion-mnist"
    for folder in [DEBIAN_FOLDER, cache] if root is None else [Path(root)]:
        for path in folder / published.file, folder / published.file.removesuffix(".gz"):
            if path.is_file():
                return path
    if root is not None and not Path(root).is_dir():
        raise DataError(f"{root}: no such folder; name the one that holds {published.file}, or leave it out")
    if root is not None:
        raise DataError(f"{root}: {published.file} is not in this folder; fetch it from {published.url}")
    return _download(published, cache / published.file, progress)


def _download(published: Published, target: Path, progress: bool) -> Path:
    try:
        fetch(published.url, target, published.size, published.sha256, progress)
    except OSError as error:
        raise DataError(
            f"Fashion-MNIST: cannot download {published.url}: {one_line(error)}; put the file at {target}, name its "
            "folder, or install Debian's dataset-fashion-mnist"
        ) from error
    return target


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """The array in an IDX file, plain or gzipped, in the machine's byte order.

    Raises DataError for a file that is missing, damaged, truncated, longer than its header says, or not IDX.
    """
    try:
        with Path(path).open("rb") as plain:
            if plain.peek(2)[:2] != GZIP_MAGIC:
                return _parse(plain, path)
            with gzip.open(plain) as unzipped:
                return _parse(unzipped, path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from error


def _parse(file: IO[bytes] | gzip.GzipFile, path: str | os.PathLike) -> np.ndarray:
    magic = _read(file, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX_TYPES:
        raise DataError(f"{path}: not an IDX file: it begins with {magic.hex(' ') or 'nothing'}")
    dtype = np.dtype(IDX_TYPES[magic[2]])
    header = _read(file, 4 * magic[3])
    shape = tuple(np.frombuffer(header[: len(header) // 4 * 4], ">u4").tolist())
    size = math.prod(shape) * dtype.itemsize
    data = _read(file, size + 1)
    if len(header) < 4 * magic[3] or len(data) < size:
        raise DataError(f"{path}: truncated: {len(data)} of the {size} bytes of its shape {shape}; fetch it again")
    if len(data) > size:
        raise DataError(f"{path}: goes on after the {size} bytes of its shape {shape}; fetch it again")
    return np.frombuffer(data, dtype).astype(dtype.newbyteorder("=")).reshape(shape)


def _read(file: IO[bytes] | gzip.GzipFile, size: int) -> bytes:
    """Up to `size` bytes, in pieces: a damaged header must not make Python reserve memory for what is not there."""
    pieces = []
    while size > 0 and (piece := file.read(min(size, 1 << 20))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
