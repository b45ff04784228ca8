"""From a launcher to the GPU: find the .cu, compile it, check the arguments, launch. CuPy is imported on first use.

A launcher knows arrays and geometry, never who executes: it calls `launch` here, and `gemm` in gemm_cuda.py. The
executor does the rest. `CupyExecutor` compiles with NVRTC and launches on the GPU; the tests put in one that compiles
the same source as C++ and runs it on NumPy arrays, with the same grid, block and packed arguments.

A kernel's arguments, in Python: an array is a pointer and None a null pointer; an int is an `index_t` and a float a
`real`, whatever those are in this build; a NumPy scalar or a ctypes structure is itself.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from alexnet_np.device import Array, on_gpu
from alexnet_np.errors import AlexNetError, BackendError, one_line
from alexnet_np.kernels.gpu.cublas import Cublas, load_cublas

HERE = Path(__file__).parent.parent  # where the .cu files lie beside their launchers
BLOCK = 256  # threads a block, where a kernel has no reason for another number
LONG = 1 << 30  # from this many elements on, indices take 64 bits
WORKSPACE_BYTES = 32 << 20  # what cuBLAS asks for on Hopper; one a stream

Shape = tuple[int, int, int]  # of a grid or a block: x, y, z

REALS = {np.dtype("float32"): ("float", ctypes.c_float), np.dtype("float64"): ("double", ctypes.c_double)}


class Window(ctypes.Structure):
    """The twin of `struct Window` in common.cuh."""

    _fields_ = [
        (name, ctypes.c_int) for name in ("C", "H", "W", "OH", "OW", "KH", "KW", "SH", "SW", "DH", "DW", "top", "left")
    ]


class Kernel(NamedTuple):
    """One `__global__` function of one .cu file, compiled with `defines`."""

    stem: str
    name: str
    defines: tuple[tuple[str, str], ...]


class Parameters(NamedTuple):
    """Packed arguments: what cuLaunchKernel takes, a pointer to a pointer to each value."""

    arguments: tuple[Any, ...]  # kept so that arrays outlive the launch
    values: list[Any]  # ctypes values
    pointers: Any  # void*[]


class Executor(Protocol):
    def empty(self, shape: tuple[int, ...], dtype: np.dtype, like: Array) -> Array: ...

    def zero(self, array: Array) -> None: ...

    def launch(self, kernel: Kernel, grid: Shape, block: Shape, args: Parameters) -> None: ...

    def cublas(self, like: Array) -> Cublas: ...

    def queue(self, like: Array) -> Any: ...


def launch(
    stem: str, name: str, grid: tuple[int, ...], block: tuple[int, ...], *args: Any, real: np.dtype, **defines: Any
) -> None:
    """Run kernel `name` of `stem`.cu, compiled for `real` with `defines`, over `grid` blocks of `block` threads.

    Does nothing over an empty grid. Raises BackendError.
    """
    if 0 in grid:
        return
    arrays = [a for a in args if is_array(a)]
    for array in arrays:
        if not array.flags.c_contiguous:
            raise BackendError(f"cuda: {name} takes arrays in C order, got strides {array.strides} of {array.shape}")
    long = max(a.size for a in arrays) >= LONG
    index = ("long long", ctypes.c_longlong) if long else ("int", ctypes.c_int)
    defines = {"REAL": REALS[real][0], "INDEX": index[0], **defines}
    kernel = Kernel(stem, name, tuple((key, str(value)) for key, value in defines.items()))
    current_executor().launch(kernel, three(grid), three(block), pack(args, index[1], REALS[real][1]))


def launch_each(stem: str, name: str, count: int, *args: Any, real: np.dtype, **defines: Any) -> None:
    """`launch` with a thread for each of `count` elements; the kernel's last argument is `count`."""
    launch(stem, name, (ceil_div(count, BLOCK),), (BLOCK,), *args, count, real=real, **defines)


def three(sides: tuple[int, ...]) -> Shape:
    x, y, z = (*sides, 1, 1)[:3]
    return x, y, z


def pack(args: tuple[Any, ...], index: Any, real: Any) -> Parameters:
    values = [to_c(a, index, real) for a in args]
    pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
    return Parameters(args, values, pointers)


def relocated(args: Parameters, move: Callable[[Array], Array]) -> Parameters:
    """The same arguments, but of every array `a` it is `move(a)`."""
    arguments = tuple(move(a) if is_array(a) else a for a in args.arguments)
    pairs = zip(arguments, args.values, strict=True)
    values = [ctypes.c_void_p(address(a)) if is_array(a) else value for a, value in pairs]
    pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
    return Parameters(arguments, values, pointers)


def to_c(argument: Any, index: Any, real: Any) -> Any:
    if argument is None:
        return ctypes.c_void_p(0)
    if is_array(argument):
        return ctypes.c_void_p(address(argument))
    if isinstance(argument, ctypes.Structure):
        return argument
    if isinstance(argument, np.generic):
        kind: Any = np.ctypeslib.as_ctypes_type(argument.dtype.str)
        return kind(argument.item())
    return index(argument) if isinstance(argument, int) else real(argument)


def is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray) or on_gpu(x)


def address(x: Array) -> int:
    return x.data.ptr if on_gpu(x) else x.ctypes.data


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def contiguous(x: Array) -> Array:
    """`x` in C order, copied only if it is not."""
    if x.flags.c_contiguous:
        return x
    with clear_errors("cuda: a contiguous copy"):
        return x.copy(order="C")


def empty(shape: tuple[int, ...], like: Array, dtype: Any = None) -> Array:
    """An array not yet written, beside `like` and of its dtype unless another is given."""
    dtype = np.dtype(dtype or like.dtype)
    with clear_errors(f"cuda: {math.prod(shape) * dtype.itemsize:,} bytes for an array of shape {shape}"):
        return current_executor().empty(shape, dtype, like)


def zeros(shape: tuple[int, ...], like: Array) -> Array:
    array = empty(shape, like)
    current_executor().zero(array)
    return array


def source(stem: str) -> str:
    """The text of `stem`.cu with its `#include`s written out: CuPy's cache of compiled kernels does not see headers."""

    def written_out(match: re.Match[str]) -> str:
        return f'#line 1 "{match[1]}"\n' + (HERE / match[1]).read_text().replace("#pragma once\n", "\n")

    text = (HERE / f"{stem}.cu").read_text()
    line = text[: text.index("#include")].count("\n") + 2
    return re.sub(r'#include "(\w+\.cuh)"\n', lambda m: written_out(m) + f'#line {line} "{stem}.cu"\n', text)


def compile_options(kernel: Kernel) -> tuple[str, ...]:
    return ("--std=c++17", *(f"-D{name}={value}" for name, value in kernel.defines))


class CupyExecutor:
    """On the GPU: NVRTC through CuPy (which keeps compiled kernels on disk), the current stream, the array's device."""

    def __init__(self) -> None:
        self.functions: dict[tuple[Kernel, int], Any] = {}
        self.handles: dict[tuple[int, int, int], Cublas] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, like: Array) -> Array:
        cupy = import_cupy()
        check_on_gpu(like)
        with cupy.cuda.Device(like.device.id):
            return cupy.empty(shape, dtype)

    def zero(self, array: Array) -> None:
        cupy = import_cupy()
        with clear_errors("cuda: zeros"), cupy.cuda.Device(common_device("zero", [array])):
            array.data.memset_async(0, array.nbytes)  # on the current stream; in C order, as all arrays made here are

    def launch(self, kernel: Kernel, grid: Shape, block: Shape, args: Parameters) -> None:
        cupy = import_cupy()
        driver = importlib.import_module("cupy_backends.cuda.api.driver")
        device = common_device(kernel.name, [a for a in args.arguments if is_array(a)])
        with clear_errors(f"cuda: {kernel.name}"), cupy.cuda.Device(device):
            key = kernel, device
            if key not in self.functions:
                module = cupy.RawModule(code=source(kernel.stem), options=compile_options(kernel))
                self.functions[key] = module.get_function(kernel.name).kernel
            stream = cupy.cuda.get_current_stream().ptr
            driver.launchKernel(self.functions[key].ptr, *grid, *block, 0, stream, ctypes.addressof(args.pointers), 0)

    def cublas(self, like: Array) -> Cublas:
        """The handle of this device, stream and thread, with a workspace of its own: results do not vary from run to
        run, and a stream being captured into a graph may use it."""
        cupy = import_cupy()
        check_on_gpu(like)
        with clear_errors("cuda: cuBLAS"), cupy.cuda.Device(like.device.id):
            stream = cupy.cuda.get_current_stream().ptr
            key = like.device.id, stream, threading.get_ident()
            if key not in self.handles:
                workspace = cupy.empty(WORKSPACE_BYTES, np.uint8)
                self.handles[key] = Cublas(load_cublas(), stream, address(workspace), WORKSPACE_BYTES, owner=workspace)
            return self.handles[key]

    def queue(self, like: Array) -> Any:
        """Where a plan runs: alexnet_np/kernels/gpu/queue.py."""
        return importlib.import_module("alexnet_np.kernels.gpu.queue").CudaQueue(like)


_executor: Executor = CupyExecutor()
_recorder: ContextVar[Executor | None] = ContextVar("alexnet_np_cuda_recorder", default=None)


def current_executor() -> Executor:
    return _recorder.get() or _executor


@contextmanager
def use_executor(executor: Executor) -> Iterator[None]:
    """Launches inside the `with` go to `executor`, those of every thread."""
    global _executor
    before, _executor = _executor, executor
    try:
        yield
    finally:
        _executor = before


@contextmanager
def recording(recorder: Executor) -> Iterator[None]:
    """Launches inside the `with` go to `recorder`, those of this thread and no other."""
    token = _recorder.set(recorder)
    try:
        yield
    finally:
        _recorder.reset(token)


def import_cupy() -> Any:
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise BackendError(f"cuda needs CuPy (pip install 'cupy-cuda13x[ctk]'): {one_line(error)}") from error


def check_on_gpu(x: Array) -> None:
    if not on_gpu(x):
        raise BackendError("cuda takes CuPy arrays, got a NumPy array; move it with to_gpu, or choose another backend")


def common_device(name: str, arrays: list[Array]) -> int:
    """The one device all `arrays` are on."""
    for array in arrays:
        check_on_gpu(array)
    devices = sorted({array.device.id for array in arrays})
    if len(devices) > 1:
        raise BackendError(f"cuda: {name} was given arrays of GPUs {devices}; move them to one")
    return devices[0]


def to_gpu(x: Array, device: int = 0) -> Array:
    """`x` on GPU `device`; itself if it is there already. Raises BackendError: no driver, no such device, no memory."""
    cupy = import_cupy()
    with clear_errors(f"cuda: moving {x.nbytes:,} bytes to GPU {device}"):
        count = cupy.cuda.runtime.getDeviceCount()
        if not 0 <= device < count:
            raise BackendError(f"cuda: there is no GPU {device}: this machine has {count}, numbered from 0")
        with cupy.cuda.Device(device):
            return cupy.asarray(x)


def to_cpu(x: Array) -> Array:
    """`x` as a NumPy array, once everything queued before has run."""
    with clear_errors("cuda: moving an array to the CPU"):
        return x.get() if on_gpu(x) else x


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
