"""Images as bytes to a network's input on the GPU; see normalise.cu."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from alexnet_np.device import Array
from alexnet_np.errors import DtypeError, ShapeError
from alexnet_np.kernels.gpu.arguments import REALS
from alexnet_np.kernels.gpu.runtime import contiguous, empty, launch_each

MOST_CHANNELS = 4


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
    numbers = (channels(mean, std, order, out.dtype), float(scale), np.int32(C), np.int32(area))
    launch_each("normalise", "normalise", out.size, pixels, out, *numbers, real=out.dtype)


def channels(mean: Sequence[float], std: Sequence[float], order: Sequence[int], dtype: np.dtype) -> ctypes.Structure:
    """The twin of `struct Channels` in normalise.cu."""
    reals, ints = REALS[dtype][1] * MOST_CHANNELS, ctypes.c_int * MOST_CHANNELS
    kind = type("Channels", (ctypes.Structure,), {"_fields_": [("mean", reals), ("std", reals), ("order", ints)]})
    return kind(reals(*mean), reals(*std), ints(*order))
