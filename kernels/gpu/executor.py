"""Who runs what launchers launch. On a GPU it is CuPy; the tests put in one that runs the same source on the CPU."""

from __future__ import annotations

import ctypes
import importlib
import threading
from typing import Any, Protocol

import numpy as np

from alexnet_np.device import Array, check_on_gpu, clear_errors, import_cupy
from alexnet_np.errors import BackendError
from alexnet_np.kernels.gpu.arguments import Kernel, Parameters, Shape, address, is_array
from alexnet_np.kernels.gpu.cublas import WORKSPACE_BYTES, Cublas, load_cublas
from alexnet_np.kernels.gpu.queue import CudaQueue
from alexnet_np.kernels.gpu.source import compile_options, source


class Recorder(Protocol):
    def empty(self, shape: tuple[int, ...], dtype: np.dtype, like: Array) -> Array: ...

    def zero(self, array: Array) -> None: ...

    def launch(self, kernel: Kernel, grid: Shape, block: Shape, args: Parameters) -> None: ...

    def cublas(self, like: Array) -> Any: ...


class Executor(Recorder, Protocol):
    def queue(self, like: Array) -> Any: ...

    def device_name(self) -> str: ...


class CupyExecutor:
    """On the GPU: NVRTC through CuPy (which keeps compiled kernels on disk), the current stream, the array's device."""

    def __init__(self) -> None:
        self.functions: dict[tuple[Kernel, int], Any] = {}
        self.handles: dict[tuple[int, int, int], Cublas] = {}
        self.names: dict[int, str] = {}

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
        """Where a plan runs."""
        return CudaQueue(like)

    def device_name(self) -> str:
        """Of the current GPU, or nothing."""
        try:
            runtime = import_cupy().cuda.runtime
            device = int(runtime.getDevice())
        except Exception:  # no CuPy, no driver, no GPU: each has an error of its own
            return ""
        if device not in self.names:
            self.names[device] = runtime.getDeviceProperties(device)["name"].decode()
        return self.names[device]


def common_device(name: str, arrays: list[Array]) -> int:
    """The one device all `arrays` are on."""
    for array in arrays:
        check_on_gpu(array)
    devices = sorted({array.device.id for array in arrays})
    if len(devices) > 1:
        raise BackendError(f"cuda: {name} was given arrays of GPUs {devices}; move them to one")
    return devices[0]
