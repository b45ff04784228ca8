"""Where an array lives: NumPy's memory on the CPU, or CuPy's on a GPU. CuPy is never imported to find out.

What CUDA says where something is wrong, or missing, becomes one line here, for everybody who asks it for anything.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import numpy as np

from alexnet_np.arguments import shown
from alexnet_np.errors import AlexNetError, BackendError, DtypeError, one_line

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


def float_dtype(where: str, dtype: Any) -> np.dtype:
    """`dtype` if it is float32 or float64, however it is named. Raises DtypeError."""
    wanted = None
    with suppress(Exception):  # whatever NumPy makes of something that is no dtype
        wanted = None if dtype is None else np.dtype(dtype)
    if wanted is None or wanted not in (np.float32, np.float64):
        raise DtypeError(f"{where}: dtype must be float32 or float64, got {shown(dtype)}")
    return wanted


def to_cpu(x: Array) -> Array:
    """`x` as a NumPy array, once everything queued before has run; itself if it is one."""
    with clear_errors("cuda: moving an array to the CPU"):
        return x.get() if on_gpu(x) else x


def to_gpu(x: Array, device: int | None = None) -> Array:
    """`x` on GPU `device`; itself if it is there already. By default on CuPy's current one, or on that where it is.

    Raises BackendError: no CuPy, no driver, no such device, no memory.
    """
    if device is None and on_gpu(x):
        return x
    cupy, where = import_cupy(), "the GPU" if device is None else f"GPU {device}"
    with clear_errors(f"cuda: moving {x.nbytes:,} bytes to {where}"):
        device = cupy.cuda.runtime.getDevice() if device is None else device
        count = cupy.cuda.runtime.getDeviceCount()
        if not 0 <= device < count:
            raise BackendError(f"cuda: there is no GPU {device}: this machine has {count}, numbered from 0")
        with cupy.cuda.Device(device):
            return cupy.asarray(x)


def beside(x: Array, like: Array) -> Array:
    """`x` where `like` is: on the CPU, or on CuPy's current GPU. Raises BackendError."""
    return to_gpu(x) if on_gpu(like) else to_cpu(x)


def check_on_gpu(x: Array) -> None:
    if not on_gpu(x):
        raise BackendError("cuda takes CuPy arrays, got a NumPy array; move it with to_gpu, or choose another backend")


def import_cupy() -> Any:
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise BackendError(f"cuda needs CuPy (pip install 'cupy-cuda13x[ctk]'): {one_line(error)}") from error


def count_gpus() -> int:
    """The GPUs that CUDA sees. Raises BackendError: no CuPy, no driver, none that fits."""
    with clear_errors("CUDA"):
        return import_cupy().cuda.runtime.getDeviceCount()


# What CUDA's own messages mean and what to do, by a sign in the error's class name or text (case and _ aside).
REMEDIES = {
    "outofmemory": "out of GPU memory; use a smaller batch, or free arrays that are no longer needed",
    "memoryallocation": "out of GPU memory; use a smaller batch, or free arrays that are no longer needed",
    "insufficientdriver": "no NVIDIA driver, or one too old for this CUDA; install a newer one, or an older CuPy",
    "unsupportedptx": "the NVIDIA driver is older than this CUDA; install a newer driver, or CuPy for an older CUDA",
    "nodevice": "no NVIDIA GPU is visible; look at nvidia-smi and CUDA_VISIBLE_DEVICES",
    "invaliddevice": "there is no GPU of that number; look at nvidia-smi and CUDA_VISIBLE_DEVICES",
    "compileexception": "the kernel did not compile for this GPU",
}


@contextmanager
def clear_errors(what: str) -> Iterator[None]:
    """CUDA's errors inside the `with` become BackendErrors of one line, beginning with `what`."""
    try:
        yield
    except AlexNetError:
        raise
    except Exception as error:
        kind = type(error)
        if not (kind.__module__.startswith("cupy") or isinstance(error, MemoryError)):
            raise
        text = f"{kind.__name__} {error}".lower().replace("_", "")
        remedy = next((r for sign, r in REMEDIES.items() if sign in text), None)
        raise BackendError(f"{what}: {remedy + ': ' if remedy else ''}{one_line(error)}") from error
