"""Where an array lives: NumPy's memory on the CPU, or CuPy's on a GPU. CuPy is never imported to find out."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np

from alexnet_np.errors import DtypeError, one_line

Array = Any  # a numpy.ndarray or a cupy.ndarray


def on_gpu(x: Any) -> bool:
    """True for a CuPy array. Never imports CuPy: an array of it can only exist once somebody else has."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, cupy.ndarray)


def array_module(x: Any) -> ModuleType:
    """The module whose functions work on `x`: `numpy` or `cupy`."""
    return sys.modules["cupy"] if on_gpu(x) else np


def as_array(x: Any, name: str) -> Array:
    """`x` as a NumPy or CuPy array, without a copy where it lends its memory (`__dlpack__`, then `__array__`)."""
    if isinstance(x, np.ndarray) or on_gpu(x):
        return x
    try:
        if hasattr(x, "__dlpack_device__"):
            cuda = int(x.__dlpack_device__()[0]) == 2  # kDLCUDA
            return importlib.import_module("cupy").from_dlpack(x) if cuda else np.from_dlpack(x)
        if hasattr(x, "__array__"):
            return np.asarray(x)
    except Exception as error:
        raise DtypeError(f"{name}: a {type(x).__name__} that cannot be read as an array: {one_line(error)}") from error
    raise DtypeError(f"{name} must be an array, got {type(x).__name__}; use numpy.asarray(..., dtype='float32')")
