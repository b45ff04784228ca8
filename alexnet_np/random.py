"""One counter-based random generator for every backend: Philox4x32-10.

The i-th block of four 32-bit words is a pure function of (seed, stream, i): no state to carry, no order to keep, so the
same seed gives the same dropout mask in array operations, in Numba and in CUDA.

    round:  (c0, c1, c2, c3) -> (hi(M1*c2) ^ c1 ^ k0,  lo(M1*c2),  hi(M0*c0) ^ c3 ^ k1,  lo(M0*c0)),   ten times,
    with the key (k0, k1) increased by the Weyl constants before every round but the first

    counter = (low 32 bits of i, high 32 bits of i, low 32 bits of stream, high 32 bits of stream)
    key     = (low 32 bits of seed, high 32 bits of seed)
    element e of an array takes word e % 4 of block e // 4, in C order of a (N,C,H,W) or (N,features) array;
    its uniform number is (word >> 8) * 2**-24, in [0, 1).

What is drawn once and in bulk, on the CPU whatever the backend (`generator`: initial weights), comes from NumPy's
Philox4x64-10, of the same paper and as much a function of (seed, stream) alone, in compiled code.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011); tested on their known answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
MASK = 0xFFFFFFFF


def philox(counter: Any, key: tuple[int, int]) -> Any:
    """Ten rounds on `counter`, four uint64 arrays holding 32-bit words; returns four such arrays."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product0, product1 = c0 * np.uint64(M0), c2 * np.uint64(M1)
        low = np.uint64(MASK)
        c0, c1, c2, c3 = (
            (product1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            product1 & low,
            (product0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            product0 & low,
        )
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


def uniform(size: int, seed: int, stream: int = 0, xp: Any = np, first: int = 0) -> Any:
    """`size` float32 numbers in [0, 1), multiples of 2**-24, from number `first` on; the same on every backend."""
    skipped = first % 4
    blocks = xp.arange((skipped + size + 3) // 4, dtype=np.uint64) + np.uint64(first // 4)
    zero = xp.zeros_like(blocks)
    counter = (
        blocks & np.uint64(MASK),
        blocks >> np.uint64(32),
        zero + np.uint64(stream & MASK),
        zero + np.uint64((stream >> 32) & MASK),
    )
    words = xp.stack(philox(counter, (seed & MASK, (seed >> 32) & MASK)), axis=1).reshape(-1)[skipped : skipped + size]
    return (words >> np.uint64(8)).astype(np.float32) * np.float32(2**-24)


def generator(seed: int, stream: int = 0) -> np.random.Generator:
    """NumPy's own generator on its Philox, at the beginning of `stream`: for initial weights (initialisation.py).

    No two streams of a seed meet: each has 2**192 blocks.
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, stream]))
