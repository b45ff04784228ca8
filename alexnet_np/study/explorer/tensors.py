"""Arrays in a page: base64(gzip(bytes)), the bytes shuffled so that those of equal significance lie together.

float32's exponents repeat and its mantissas do not: side by side the exponents pack well (9% less in all).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from alexnet_np.device import Array, to_cpu
from alexnet_np.threads import get_num_threads

LEVEL = 6  # of gzip


class Encoded(NamedTuple):
    id: str
    type: str  # "f4", "f8", "u1", "u2", "u4": kind and bytes, little-endian
    text: str


class Tensors:
    """The arrays of one page. One that is added again, by another network that shares it, is kept once."""

    def __init__(self) -> None:
        self._arrays: dict[bytes, tuple[str, np.ndarray]] = {}

    def add(self, array: Array) -> str:
        """The name by which the page asks for it."""
        kept = np.ascontiguousarray(to_cpu(array))
        kept = kept.astype(kept.dtype.newbyteorder("<"), copy=False)
        key = hashlib.sha256(kept.dtype.str.encode() + kept.tobytes()).digest()
        return self._arrays.setdefault(key, (f"t{len(self._arrays)}", kept))[0]

    def encoded(self) -> Iterator[Encoded]:
        with ThreadPoolExecutor(get_num_threads()) as pool:  # zlib works without the interpreter's lock
            texts = pool.map(encode, [array for _, array in self._arrays.values()])
            for (name, array), text in zip(self._arrays.values(), texts, strict=True):
                yield Encoded(name, array.dtype.str[1:], text)


def encode(array: np.ndarray) -> str:
    by_significance = array.reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T
    return base64.b64encode(gzip.compress(by_significance.tobytes(), LEVEL, mtime=0)).decode()
