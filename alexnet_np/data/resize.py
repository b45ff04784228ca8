"""OpenCV's ways to resize, by which the data sets of 2012 were made; torchvision's and ours is Pillow's bilinear.

    "area"     what lies under an output pixel, averaged by area, where the image shrinks; where it grows, cubic of four
               pixels (a = -0.75): the authors' (akrizhevsky/cuda-convnet2, make-data/pyext/src/pyext.cpp: INTER_AREA,
               INTER_CUBIC)
    "linear"   between the two nearest pixels, whatever the factor, so that shrinking skips pixels: Caffe's
               (BVLC/caffe, src/caffe/util/io.cpp: cv::resize as it is by default, INTER_LINEAR)

A resize is two matrices, one a side: y = rows @ x @ columns^T. Output pixel i has its centre at (i + 1/2) * n_in/n_out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

SHARPNESS = -0.75  # of the cubic, OpenCV's


def resized(image: Image.Image, size: tuple[int, int], way: str) -> Image.Image:
    """An RGB or grey image as one of `size` (width, height)."""
    if image.size == size:
        return image
    if way == "bilinear":
        return image.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float32)
    H, W = pixels.shape[:2]
    shrinks = size[1] <= H and size[0] <= W
    across = matrix(W, size[0], way, shrinks) @ pixels.reshape(H, W, -1)  # (H, W', C)
    down = matrix(H, size[1], way, shrinks) @ across.reshape(H, -1)
    made = np.clip(np.rint(down), 0, 255).astype(np.uint8).reshape(size[1], size[0], *pixels.shape[2:])
    return Image.fromarray(made)


@lru_cache(64)
def matrix(before: int, after: int, way: str, shrinks: bool) -> np.ndarray:
    """float32 (after, before): row i holds what every pixel of a line counts in the i-th one of the resized line."""
    scale = before / after
    edges = np.arange(after)[:, None] * scale
    pixels = np.arange(before)[None, :]
    if way == "area" and shrinks:
        under = np.minimum(edges + scale, pixels + 1) - np.maximum(edges, pixels)
        return (np.maximum(under, 0) / scale).astype(np.float32)
    centre = edges + scale / 2 - 0.5
    first = np.floor(centre).astype(int)
    taps = range(-1, 3) if way == "area" else range(2)
    found = np.zeros((after, before), np.float32)
    rows = np.arange(after)
    for tap in taps:
        weight = cubic(centre - first - tap) if way == "area" else np.maximum(0, 1 - abs(centre - first - tap))
        np.add.at(found, (rows, np.clip(first + tap, 0, before - 1)[:, 0]), weight[:, 0])
    return found


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel: 1 at 0, 0 at every other whole number."""
    d, a = np.abs(distance), SHARPNESS
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))
