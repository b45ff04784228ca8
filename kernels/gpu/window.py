"""The geometry of a sliding window, as the kernels of convolution and pooling are told of it; see window.cuh."""

from typing import NamedTuple


class Window(NamedTuple):
    """The twin of `struct Window` in window.cuh."""

    C: int
    H: int
    W: int
    OH: int
    OW: int
    KH: int = 1
    KW: int = 1
    SH: int = 1
    SW: int = 1
    DH: int = 1
    DW: int = 1
    top: int = 0
    left: int = 0


Pair = tuple[int, int]


def sliding(shape: tuple[int, ...], output: Pair, kernel: Pair, steps: tuple[Pair, Pair], before: Pair) -> Window:
    """Over an input (N,C,H,W); `steps`: stride and dilation, `before`: the padding above and to the left."""
    _, C, H, W = shape
    return Window(C, H, W, *output, *kernel, *steps[0], *steps[1], *before)
