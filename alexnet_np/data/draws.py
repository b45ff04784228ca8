"""Random numbers for the data, each a pure function of (seed, purpose, epoch, sample).

No state is carried, so the order of the samples and what happens to each of them is the same whatever the number of
threads, and an epoch can be entered in its middle. The generator is the package's own, `alexnet_np.random.philox`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alexnet_np.random import MASK, philox

# The highest counter word: what the numbers are for. Distinct purposes never share a number.
SHUFFLE, AUGMENT, SYNTHETIC, SPLIT, SAMPLE = 0xDA7A0001, 0xDA7A0002, 0xDA7A0003, 0xDA7A0004, 0xDA7A0005


def words(seed: int, purpose: int, epoch: int, samples: Any, count: int) -> np.ndarray:
    """`count` random 32-bit words for each of `samples` (n indices below 2**32): uint64 (n, count)."""
    samples = np.asarray(samples, np.uint64)[:, None]
    blocks = np.arange(-(-count // 4), dtype=np.uint64)[None]
    samples, blocks = np.broadcast_arrays(samples, blocks)
    constant = np.zeros_like(samples)
    counter = (samples, blocks, constant + np.uint64(epoch), constant + np.uint64(purpose))
    found = np.stack(philox(counter, (seed & MASK, (seed >> 32) & MASK)), axis=-1)  # (n, blocks, 4)
    return found.reshape(len(samples), -1)[:, :count]


def uniforms(seed: int, purpose: int, epoch: int, samples: Any, count: int) -> np.ndarray:
    """The same as float64 in [0, 1)."""
    return words(seed, purpose, epoch, samples, count) * 2.0**-32


def permutation(seed: int, purpose: int, epoch: int, size: int) -> np.ndarray:
    """0..size-1 in random order: the indices sorted by a random 64-bit key each."""
    keys = words(seed, purpose, epoch, np.arange(size), 2)
    return np.argsort((keys[:, 0] << np.uint64(32)) | keys[:, 1], kind="stable")
