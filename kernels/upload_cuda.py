"""A few numbers from the host into device memory, as a kernel's argument; see upload.cu."""

from __future__ import annotations

import ctypes

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import launch

WORDS = 64  # a launch takes so many: WORDS in upload.cu


class Chunk(ctypes.Structure):
    """The twin of `struct Chunk` in upload.cu."""

    _fields_ = [("at", ctypes.c_ulonglong * WORDS)]


def upload(words: np.ndarray, to: Array) -> None:
    """Copy `words`, uint64 on the host, to `to`, as many on the GPU. `words` may be changed as soon as this returns."""
    for first in range(0, words.size, WORDS):
        part = words[first : first + WORDS]
        chunk = Chunk()
        ctypes.memmove(chunk.at, np.ascontiguousarray(part).ctypes.data, part.nbytes)
        launch("upload", "upload", (1,), (WORDS,), to, chunk, first, part.size, real=np.dtype(np.float32))
