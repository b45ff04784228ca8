"""A few numbers from the host into device memory, as a kernel's argument; see upload.cu."""

from __future__ import annotations

import ctypes

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import launch

WORDS = 64  # that a launch takes
FLOAT = np.dtype(np.float32)  # which the kernel has nothing of


class Chunk(ctypes.Structure):
    """The twin of `struct Chunk` in upload.cu."""

    _fields_ = [("at", ctypes.c_ulonglong * WORDS)]


def upload(words: np.ndarray, to: Array) -> None:
    """Copy `words`, uint64 on the host, to `to`, as many on the GPU. `words` may be changed as soon as this returns."""
    for first in range(0, words.size, WORDS):
        part = words[first : first + WORDS]
        chunk = Chunk()
        ctypes.memmove(chunk.at, np.ascontiguousarray(part).ctypes.data, part.nbytes)
        launch("gpu/upload", "upload", (1,), (WORDS,), to, chunk, first, part.size, real=FLOAT, WORDS=WORDS)
