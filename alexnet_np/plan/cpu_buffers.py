"""The memory that a plan's steps on the CPU write and read: images in frames of zeros, and rows of a matrix."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.cpu.image import Image, framed
from alexnet_np.kernels.cpu.simd import LANES
from alexnet_np.kernels.gemm_numba import padded_width


def nothing() -> Array:
    return np.empty(0, np.float32)


@dataclass(eq=False)
class Buffer:
    """Channels-last images in frames of zeros. The frame is written once; only its inside is ever overwritten."""

    name: str
    C: int
    H: int
    W: int
    _: KW_ONLY
    whole_vectors: bool = True  # few channels are filled up with zeros to a vector, as vector code needs it
    before: int = 0
    after: int = 0
    images: int = 0
    whole_chunk: bool = True  # holds the images of a whole chunk, not only of one pass
    own: bool = False  # its memory is nobody else's
    array: Array = field(default_factory=nothing)
    image: Image = framed(0, 0, 0)  # once it is allocated

    def need(self, before: int = 0, after: int = 0, whole_vectors: bool = True) -> None:
        """What a reader needs: rows and columns of zeros around the images, whole vectors."""
        self.before, self.after = max(self.before, before), max(self.after, after)
        self.whole_vectors |= whole_vectors

    @property
    def channels(self) -> int:
        """As many as are stored."""
        return max(self.C, LANES) if self.whole_vectors else self.C

    @property
    def layout(self) -> str:
        frame = self.before + self.after
        return f"{self.H + frame}x{self.W + frame}x{self.channels}"

    @property
    def image_bytes(self) -> int:
        frame = self.before + self.after
        return 4 * (self.H + frame) * (self.W + frame) * self.channels

    def allocate(self, images: int, whole_chunk: bool = True) -> None:
        self.images, self.whole_chunk = images, whole_chunk
        self.image = framed(self.channels, self.H, self.W, self.before, self.after)
        self.array = np.zeros(images * self.image.image, np.float32)

    def at(self, first: int) -> Image:
        """Where image `first` of the chunk lies, the first of a pass."""
        return self.image.skip(first) if self.whole_chunk else self.image

    def view(self, first: int, count: int) -> Array:
        """`count` images from `first` of the chunk on, as an array (count,C,H,W)."""
        frame, start = self.before + self.after, first if self.whole_chunk else 0
        shape = (self.H + frame, self.W + frame, self.channels)
        whole = self.array[start * self.image.image :][: count * self.image.image].reshape(count, *shape)
        rows, columns = (slice(self.before, self.before + side) for side in (self.H, self.W))
        return whole[:, rows, columns, : self.C].transpose(0, 3, 1, 2)


@dataclass(eq=False)
class InputBuffer(Buffer):
    """What the images are loaded into. Where it `folds`, S x S of their pixels may become channels."""

    _: KW_ONLY
    whole_vectors: bool = False
    folds: bool = True
    S: int = 1
    corner: tuple[int, int] = (0, 0)  # rows and columns of zeros above and to the left, inside the first pixels

    def fold(self, S: int, size: tuple[int, int], corner: tuple[int, int]) -> None:
        """Hold `size` pixels of C*S*S channels from now on, for a convolution of stride S."""
        self.S, self.corner = S, corner
        self.C, (self.H, self.W) = self.C * S * S, size


@dataclass(eq=False)
class Rows:
    """A matrix, a row an image, with room for whole tiles."""

    name: str
    features: int
    images: int = 0
    array: Array = field(default_factory=nothing)

    @property
    def stride(self) -> int:
        return padded_width(self.features)

    @property
    def layout(self) -> str:
        return str(self.stride)

    def allocate(self, images: int) -> None:
        self.images = images
        self.array = np.zeros(images * self.stride, np.float32)

    def at(self, first: int) -> Image:
        """From row `first` on, as images of one pixel."""
        return Image(first * self.stride, self.stride, self.stride, self.stride, 1, 1)

    def view(self, first: int, count: int) -> Array:
        """`count` rows from `first` on, (count, features)."""
        return self.array.reshape(self.images, self.stride)[first : first + count, : self.features]


def share(buffers: list[Buffer]) -> None:
    """Let every other of `buffers` use the same memory: in a pass, each is done with when the next but one is written.

    Those with frames keep their own, for the frames must stay zeros.
    """
    for i in (0, 1):
        plain = [buffer for buffer in buffers[i::2] if not (buffer.before or buffer.after or buffer.own)]
        memory = np.empty(max((buffer.array.size for buffer in plain), default=0), np.float32)
        for buffer in plain:
            buffer.array = memory[: buffer.array.size]


def owner_of(array: Array) -> Array:
    """The array whose memory `array` shows."""
    return array if array.base is None else array.base
