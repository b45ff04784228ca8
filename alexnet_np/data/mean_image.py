"""The mean image of a training set, which the networks of 2012 had subtracted from every picture instead of a number.

    mean[h,w,c] = (1/N) * sum over the training images of pixels[h,w,c],   in bytes, RGB whatever the input's order

What a crop is rid of depends on who trained:

    "place"    the mean image's pixels where the crop was cut out, mirrored with it: the paper (sec. 2: the whole image
               is centred, then cropped) and Caffe (BVLC/caffe, src/caffe/data_transformer.cpp)
    "centre"   the mean image's central square, whatever the crop, mirrored or not: the authors' code
               (akrizhevsky/cuda-convnet2, convdata.py: data_mean_crop)

For the central crop of a test the two are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from alexnet_np.data.dataset import Dataset
from alexnet_np.errors import ShapeError

PLACES = ("place", "centre")
NAME = "mean_image"  # of the array, in the files of a run


class MeanImage:
    """`pixels`: float32 (H,W,C), in bytes and RGB or grey, of the images that crops are cut from; `at`: see above."""

    def __init__(self, pixels: np.ndarray, at: str) -> None:
        self.pixels, self.at = pixels, at
        self._as_input = lru_cache(4)(self._turned)  # of this one alone: few kinds of input are made at a time

    def below(
        self, size: tuple[int, int], place: tuple[int, int] | None, mirrored: bool, kind: tuple[Any, ...]
    ) -> np.ndarray:
        """(C,*size): what to take from a crop of `size` cut out at `place` (top, left); None is the centre.

        `kind`: (order of the channels, what the bytes are divided by, dtype) of the input. Raises ShapeError.
        """
        H, W = self.pixels.shape[:2]
        if size[0] > H or size[1] > W:
            raise ShapeError(f"the mean image is {H}x{W}, too small for an input of {size[0]}x{size[1]}")
        centred = place is None or self.at == "centre"
        top, left = place if place is not None and not centred else (round((H - size[0]) / 2), round((W - size[1]) / 2))
        cut = self._as_input(kind)[:, top : top + size[0], left : left + size[1]]
        return cut[:, :, ::-1] if mirrored and not centred else cut

    def _turned(self, kind: tuple[Any, ...]) -> np.ndarray:
        order, scale, dtype = kind
        return np.ascontiguousarray(np.moveaxis(self.pixels[..., list(order)] / scale, -1, 0), dtype)

    @property
    def channels(self) -> tuple[float, ...]:
        """The mean of each channel of the pixels, in bytes."""
        return tuple(self.pixels.mean((0, 1), dtype=np.float64).tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MeanImage) and self.at == other.at and np.array_equal(self.pixels, other.pixels)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        digest = hashlib.blake2b(np.ascontiguousarray(self.pixels).data, digest_size=8).hexdigest()
        return f"MeanImage({'x'.join(map(str, self.pixels.shape))}, {self.at!r}, {digest})"


def add_up(dataset: Dataset, begun: Callable[[np.ndarray], np.ndarray], indices: range, workers: int) -> np.ndarray:
    """The sum of some images of a data set, as `begun` makes them from their pixels: int64 (H,W,C), exact.

    In memory there are a sum and an image a worker, whatever the number of images.
    """

    from concurrent.futures import ThreadPoolExecutor  # only now: a network needs no threads to be described

    def some(mine: range) -> np.ndarray:
        total = np.zeros(begun(dataset.pixels(mine[0])).shape, np.int64)
        for index in mine:
            total += begun(dataset.pixels(index))
        return total

    parts = [part for i in range(workers) if (part := indices[i::workers])]
    with ThreadPoolExecutor(workers, thread_name_prefix="alexnet-mean") as pool:
        return sum(pool.map(some, parts))  # type: ignore[return-value]
