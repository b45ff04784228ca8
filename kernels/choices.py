"""Which algorithm computes which convolution: one table, read from the top, the first row that fits.

Measured on 2 cores of an EPYC Zen 4 at batch 32, in direct-equivalent GFLOP/s (the direct kernel does 140-215, its
arithmetic peak is 235): depth-F(5,3) on 11x11/4: 560; F(3,5) on 5x5: 800; F(5,3) on 3x3 at 13x13: 540-580.
With batch 1 the transformed filters are read from memory for 9 tiles only, and Winograd still wins.

    with choices.overriding(Row(kernel=5, algorithm="direct")): plan = anp.compile(model)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

Algorithm = Literal["winograd", "direct"]


class Conv(NamedTuple):
    """What a choice may depend on. `kernel` and `stride` are those of both axes, 0 where the axes differ."""

    C: int
    F: int
    kernel: int
    stride: int
    dilation: int
    groups: int
    output: tuple[int, int]
    batch: int


class Row(NamedTuple):
    """Fits a Conv whose every named quantity is equal (None: any) and whose batch is in range."""

    algorithm: Algorithm
    kernel: int | None = None
    stride: int | None = None
    tiles: tuple[int, ...] = ()  # Winograd: the output tile sizes m to consider; the least multiplications win
    batch: tuple[int, int] = (1, 1 << 30)


class Choice(NamedTuple):
    algorithm: Algorithm
    m: int = 0  # Winograd: F(m, r)
    r: int = 0

    def __str__(self) -> str:
        return f"winograd F({self.m},{self.r})" if self.algorithm == "winograd" else self.algorithm


TABLE = (
    Row("winograd", kernel=3, stride=1, tiles=(5, 6, 4)),
    Row("winograd", kernel=5, stride=1, tiles=(3,)),
    Row("winograd", kernel=11, stride=4, tiles=(5, 6, 4)),  # by space-to-depth: 3x3, stride 1
    Row("direct"),
)
EXACT = (Row("direct"),)  # what `exact=True` allows

BLOCK_TILES = 60  # Winograd tiles that one thread takes through all three steps: their V and products fit its cache
GRADIENT_TILES = 192  # Winograd tiles whose V and S are held at once for the gradient of the weights
STAGE_BYTES = 12 << 20  # a plan takes as many images at a time from pooling to pooling as fit in the shared cache
CHUNK_BYTES = 6 << 20  # and as many through all poolings as need this much between two of them: memory, not time

_overrides: ContextVar[tuple[Row, ...]] = ContextVar("alexnet_np_choices", default=())


@contextmanager
def overriding(*rows: Row) -> Iterator[None]:
    """Inside the `with`, `rows` come before TABLE (and before EXACT)."""
    token = _overrides.set(rows + _overrides.get())
    try:
        yield
    finally:
        _overrides.reset(token)


def choose(conv: Conv, exact: bool = False) -> Choice:
    """The algorithm for `conv`: the first row that fits it and can compute it."""
    for row in (*_overrides.get(), *(EXACT if exact else TABLE)):
        fits = all(want in (None, have) for want, have in ((row.kernel, conv.kernel), (row.stride, conv.stride)))
        fits = fits and row.batch[0] <= conv.batch <= row.batch[1]
        if fits and row.algorithm == "direct":
            return Choice("direct")
        if fits and conv.kernel and conv.dilation == 1:
            r = -(-conv.kernel // conv.stride)
            return Choice("winograd", min(row.tiles, key=lambda m: multiplications(conv.output, m, r)), r)
    return Choice("direct")


def multiplications(output: tuple[int, int], m: int, r: int) -> int:
    """Of F(m,r) for one pair of channels: n² for every tile, whole or cut off."""
    return -(-output[0] // m) * -(-output[1] // m) * (m + r - 1) ** 2
