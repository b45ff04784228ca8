"""Images as bytes to a network's input on the GPU; see preprocess.cu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.device import Array
from alexnet_np.errors import DtypeError, ShapeError
from alexnet_np.kernels.gpu.runtime import contiguous, empty, launch_each

MOST_CHANNELS = 4


class Normalisation(NamedTuple):
    """The twin of `struct Normalisation` in preprocess.cu."""

    C: int
    area: int
    scale: float
    mean: tuple[float, float, float, float]
    std: tuple[float, float, float, float]
    order: tuple[int, int, int, int]


def compute(
    pixels: Array,
    scale: float,
    mean: Sequence[float],
    std: Sequence[float],
    order: Sequence[int] = range(MOST_CHANNELS),
    dtype: str = "float32",
) -> Array:
    """x[n,c,h,w] = (pixels[n,h,w,order[c]] / scale - mean[c]) / std[c]: uint8 (N,H,W,C) on the GPU -> (N,C,H,W).

    `order` is that of the pixels unless given. With a recipe's scale, mean, std and order (alexnet_np/data/recipe.py)
    and `dtype` it gives the bits of `preprocess`.
    Raises ShapeError, DtypeError, BackendError.
    """
    if pixels.dtype != np.uint8:
        raise DtypeError(f"normalise: pixels must be uint8, got {pixels.dtype}")
    if pixels.ndim != 4 or not len(mean) == len(std) == pixels.shape[3] <= MOST_CHANNELS:
        raise ShapeError(
            f"normalise: pixels must be (N,H,W,C), with the channels of mean ({len(mean)}) and std ({len(std)}) and "
            f"at most {MOST_CHANNELS}, got {pixels.shape}"
        )
    N, H, W, C = pixels.shape
    out = empty((N, C, H, W), pixels, np.dtype(dtype))
    compute_into(contiguous(pixels), scale, mean, std, out, order)
    return out


def compute_into(
    pixels: Array,
    scale: float,
    mean: Sequence[float],
    std: Sequence[float],
    out: Array,
    order: Sequence[int] = range(MOST_CHANNELS),
) -> None:
    """`compute` into `out`; both in C order."""
    C, area = out.shape[1], out.shape[2] * out.shape[3]
    n = Normalisation(C, area, scale, four(mean, 1.0), four(std, 1.0), four(order, 0))
    launch_each("preprocess", "preprocess_normalise", out.size, pixels, out, n, real=out.dtype)


def four(values: Sequence[Any], filler: Any) -> tuple[Any, Any, Any, Any]:
    a, b, c, d = (*values, filler, filler, filler, filler)[:MOST_CHANNELS]
    return a, b, c, d
