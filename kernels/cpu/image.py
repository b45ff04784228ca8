"""Channels-last images in flat memory: how the fast kernels are told where pixels lie."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels.cpu import memory


class Image(NamedTuple):
    """Where a batch of (H,W,C) images lies in a flat float32 array, counted in floats.

    Around each image `before` and `after` rows and columns of zeros may be read: a border then needs no care.
    """

    at: int  # of pixel (0, 0) of the first image
    image: int  # from one image to the next
    row: int
    col: int
    H: int
    W: int
    before: int = 0  # zeros above and to the left
    after: int = 0  # zeros below and to the right

    def skip(self, images: int) -> Image:
        """The same from the image number `images` on."""
        return self._replace(at=self.at + images * self.image)

    def channels_from(self, channel: int) -> Image:
        return self._replace(at=self.at + channel)


class Step(NamedTuple):
    """How many floats a pixel lies from the one below it, and from the one to the right."""

    row: int
    col: int


class Inside(NamedTuple):
    """Of the pixels (i,j) of a tile those with top <= i < bottom and left <= j < right lie in the image."""

    top: int
    bottom: int
    left: int
    right: int


def framed(C: int, H: int, W: int, before: int = 0, after: int = 0) -> Image:
    """Images of (H,W,C) packed one after another, each in its frame of zeros."""
    row = (before + W + after) * C
    return Image(before * (row + C), (before + H + after) * row, row, C, H, W, before, after)


def channels_last(x: Array) -> tuple[Array, Image]:
    """x (N,C,H,W) as flat channels-last memory: without a copy where it already lies so."""
    N, C, H, W = x.shape
    last = x.transpose(0, 2, 3, 1)
    if not last.flags.c_contiguous or not last.flags.writeable:  # kernels are compiled for writeable arrays
        last = last.copy()
    return last.reshape(-1), framed(C, H, W)


def lies_channels_last(x: Array) -> bool:
    """Whether x (N,C,...) is float32 memory that the channels-last kernels take as it is."""
    return x.dtype == np.float32 and np.moveaxis(x, 1, -1).flags.c_contiguous and x.flags.writeable


def packed(x: Array) -> Array:
    """x (N,C,H,W) as channels-last memory without gaps."""
    if x.transpose(0, 2, 3, 1).flags.c_contiguous:
        return x
    N, C, H, W = x.shape
    last = memory.empty((N, H, W, C), x.dtype.type)
    last[...] = x.transpose(0, 2, 3, 1)
    return last.transpose(0, 3, 1, 2)


def filled_up(x: Array, channels: int) -> Array:
    """x (N,C,H,W) with channels of zeros up to `channels`, channels-last."""
    N, C, H, W = x.shape
    if channels == C:
        return x
    wide = memory.empty((N, H, W, channels), x.dtype.type)
    wide[..., :C] = x.transpose(0, 2, 3, 1)
    wide[..., C:] = 0
    return wide.transpose(0, 3, 1, 2)
