"""Runs the project's CUDA kernels on the CPU: an executor for kernels/gpu/runtime.py that takes NumPy arrays.

Each .cu is compiled with g++ under cuda_shim.h into a shared library, once a build (dtype, defines) and content, and
launched through ctypes with the launcher's own grid, block and packed arguments. A launch fails here where it would on
a GPU: a grid or block beyond the limits, arguments that are not the kernel's, a barrier that not every thread reaches.
Arrays come filled with NaN, so that an element nobody wrote shows.

With CUDA_SHIM_SANITIZE=1 the libraries are built with the address and undefined-behaviour sanitizers, for a process
that preloads them (`sanitizer_environment`).
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from alexnet_np import backend
from alexnet_np.device import Array
from alexnet_np.errors import BackendError
from alexnet_np.kernels.gpu.arguments import Kernel, Parameters, Shape, address, is_array
from alexnet_np.kernels.gpu.cublas import Cublas
from alexnet_np.kernels.gpu.runtime import use_executor
from alexnet_np.kernels.gpu.source import HERE as KERNELS

NAME = "cuda-shim"
SHIM = Path(__file__).parent
CACHE = Path(os.environ.get("CUDA_SHIM_CACHE", Path(tempfile.gettempdir()) / f"alexnet-np-cuda-shim-{os.getuid()}"))
SANITIZE = os.environ.get("CUDA_SHIM_SANITIZE") == "1"
ORDERS = {"forward": 0, "reverse": 1, "random": 2}

FLAGS = ["-std=c++17", "-shared", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fsanitize-sections=cuda_shared"]

GRID_LIMITS, BLOCK_LIMITS, MOST_THREADS = (2**31 - 1, 65535, 65535), (1024, 1024, 64), 1024
NEEDS_FIBRES = 1  # Status in cuda_shim.h

# void name(...) after __global__, whatever stands between them
GLOBAL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\((?P<bound>[\w *]+)\)\s+)?(?P<name>\w+)\s*\(")


def compiler() -> str | None:
    return shutil.which("g++")


def sanitizer_environment() -> dict[str, str]:
    """What a process needs in its environment to load libraries built with the sanitizers."""
    found = subprocess.run([str(compiler()), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    options = "detect_leaks=0:detect_stack_use_after_return=0"
    return {"LD_PRELOAD": found.stdout.strip(), "ASAN_OPTIONS": options, "CUDA_SHIM_SANITIZE": "1"}


def sources() -> dict[str, str]:
    """Every .cu by its stem, as launchers name it."""
    return {str(path.relative_to(KERNELS).with_suffix("")): path.read_text() for path in KERNELS.rglob("*.cu")}


def global_functions(text: str) -> dict[str, str | None]:
    """The kernels of a source: name and launch bound (a number, a macro's name, a product of them)."""
    return {match["name"]: match["bound"] for match in GLOBAL.finditer(text)}


def build(text: str, name: str, flags: list[str], dependencies: list[Path]) -> Path:
    """`text` compiled as C++ to a shared library; from the cache if nothing it depends on has changed."""
    flags = [*FLAGS, *([*SANITIZERS, "-g", "-O1"] if SANITIZE else ["-O2"]), *flags]
    parts = [text, *flags, *(path.read_text() for path in dependencies)]
    library = CACHE / f"{name}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            made = Path(folder) / "made.so"
            command = [str(compiler()), *flags, "-x", "c++", "-", "-o", str(made)]
            result = subprocess.run(command, input=text, capture_output=True, text=True)
            if result.returncode:
                raise RuntimeError(f"{name}: {' '.join(command)}\n{result.stderr}")
            made.rename(library)  # at once and whole, whoever else is building the same
    return library


def build_kernels(path: Path, defines: tuple[tuple[str, str], ...]) -> ctypes.CDLL:
    """A .cu as a library with, for each kernel, `shim_launch_NAME` and `shim_signature_NAME`."""
    doors = "\n".join(
        f'extern "C" int shim_launch_{name}(const unsigned* shape, bool fibres, int order, void** arguments)\n'
        f"{{ return shim::launch({name}, shape, fibres, order, arguments); }}\n"
        f'extern "C" const char* shim_signature_{name}() {{ return shim::signature({name}); }}\n'
        for name in visible_kernels(path.read_text(), dict(defines))
    )
    text = f'#include "cuda_shim.h"\n#include "{path}"\n{doors}'
    flags = [f"-I{SHIM}", f"-I{KERNELS}", *(f"-D{name}={value}" for name, value in defines)]
    return ctypes.CDLL(
        str(build(text, path.stem, flags, [SHIM / "cuda_shim.h", *sorted(KERNELS.rglob("*.cuh")), path]))
    )


def visible_kernels(text: str, defines: dict[str, str]) -> list[str]:
    """The kernels that the preprocessor leaves of a source in which `#ifndef NAME ... #else ... #endif` chooses."""
    for name, without, given in re.findall(r"^#ifndef (\w+)$(.*?)^#else$(.*?)^#endif$", text, re.S | re.M):
        if "__global__" in without or "__global__" in given:
            text = text.replace(without if name in defines else given, "")
    return list(global_functions(text))


class ShimExecutor:
    """executor.Executor on NumPy arrays. Remembers in `launched` every kernel that ran."""

    def __init__(self, order: str = "forward", folder: Path = KERNELS) -> None:
        self.order, self.folder = ORDERS[order], folder
        self.launched: set[Kernel] = set()
        self.with_barriers: set[Kernel] = set()
        self.libraries: dict[tuple[str, tuple[tuple[str, str], ...]], ctypes.CDLL] = {}
        self.handle: Cublas | None = None

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, like: Array) -> Array:
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[:] = 0xFF  # NaN, -1, 255; a bool that is neither true nor false
        return array.view(DeviceArray) if isinstance(like, DeviceArray) else array

    def zero(self, array: Array) -> None:
        array.fill(0)

    def device_name(self) -> str:
        return "shim"

    def queue(self, like: Array) -> ShimQueue:
        if not isinstance(like, DeviceArray):
            raise BackendError("cuda takes CuPy arrays, got a NumPy array")
        return ShimQueue(self)

    def launch(self, kernel: Kernel, grid: Shape, block: Shape, args: Parameters) -> None:
        key = kernel.stem, kernel.defines
        if key not in self.libraries:
            self.libraries[key] = build_kernels(self.folder / f"{kernel.stem}.cu", kernel.defines)
        library = self.libraries[key]
        check_shape(kernel, grid, block, global_functions((self.folder / f"{kernel.stem}.cu").read_text())[kernel.name])
        check_arguments(kernel, library, args)
        function = getattr(library, f"shim_launch_{kernel.name}")
        shape = (ctypes.c_uint * 6)(*grid, *block)
        status = NEEDS_FIBRES
        if kernel not in self.with_barriers:
            status = function(shape, ctypes.c_bool(False), self.order, args.pointers)
        if status == NEEDS_FIBRES:  # its first thread met a barrier and went no further
            self.with_barriers.add(kernel)
            status = function(shape, ctypes.c_bool(True), self.order, args.pointers)
        if status:
            raise AssertionError(f"{kernel.name} has a barrier that not all threads of a block reach")
        self.launched.add(kernel)

    def cublas(self, like: Array) -> Cublas:
        if self.handle is None:
            library = build((SHIM / "fake_cublas.cpp").read_text(), "fake_cublas", [], [])
            self.handle = Cublas(ctypes.CDLL(str(library)), stream=0, workspace=1, bytes=1)
        return self.handle


class DeviceArray(np.ndarray):
    """What plays an array on the GPU for the plans, which tell those apart from arrays on the host."""


def to_device(array: np.ndarray) -> DeviceArray:
    return array.copy().view(DeviceArray)


class ShimQueue:
    """queue.CudaQueue on NumPy arrays. Writes down in `events` what happened in which order.

    Nothing may be queued outside a turn or allocated inside one, and a graph holds nothing but the calls captured.
    """

    def __init__(self, executor: ShimExecutor) -> None:
        self.executor, self.events = executor, []
        self.in_turn = False
        self._cublas = executor.cublas(np.zeros(1))

    @property
    def cublas(self) -> Cublas:
        return self._cublas

    def owns(self, x: Array) -> bool:
        return isinstance(x, DeviceArray)

    def name_of(self, x: Array) -> str:
        return "on GPU 0" if isinstance(x, DeviceArray) else "on the CPU"

    def allocate(self, nbytes: int) -> Array:
        assert not self.in_turn
        self.events.append("allocate")
        return self.executor.empty((nbytes,), np.dtype(np.uint8), np.zeros(1)).view(DeviceArray)

    def pinned(self, nbytes: int) -> np.ndarray:
        self.events.append("pinned")
        return np.empty(nbytes, np.uint8)

    def fence(self) -> ShimFence:
        return ShimFence(self)

    @contextmanager
    def turn(self) -> Iterator[None]:
        assert not self.in_turn
        self.in_turn = True
        try:
            yield
        finally:
            self.in_turn = False

    def copy(self, source: Array, to: Array) -> None:
        assert self.in_turn
        assert source.nbytes == to.nbytes
        assert source.flags.c_contiguous
        assert to.flags.c_contiguous
        assert self.owns(to)
        self.events.append("copy")
        ctypes.memmove(address(to), address(source), to.nbytes)

    def capture(self, calls: list[Any]) -> Any:
        """The calls are not run, as in a capture; the graph runs them."""
        assert self.in_turn
        self.events.append("capture")

        def launch() -> None:
            assert self.in_turn
            self.events.append("graph")
            for call in calls:
                call()

        return launch


class ShimFence:
    def __init__(self, queue: ShimQueue) -> None:
        self.queue = queue

    def set(self) -> None:
        assert self.queue.in_turn
        self.queue.events.append("fence set")

    def wait(self) -> None:
        assert not self.queue.in_turn
        self.queue.events.append("fence wait")


@contextmanager
def as_backend() -> Iterator[str]:
    """The CUDA kernels as one more backend of NumPy arrays, `use_backend("cuda-shim")`."""
    with ExitStack() as stack:
        for op, modules in backend.IMPLEMENTATIONS.items():
            stack.enter_context(mock.patch.dict(modules, {NAME: f"alexnet_np.kernels.{op}_cuda"}))
        stack.enter_context(mock.patch.dict(backend.BACKENDS, {NAME: "cpu"}))
        stack.enter_context(mock.patch.object(backend, "_usable", {*backend._usable, NAME}))
        stack.enter_context(use_executor(ShimExecutor()))
        yield NAME


class Recorder:
    """An executor that runs nothing and only writes down what would be launched; its arrays hold zeros."""

    def __init__(self) -> None:
        self.launched: set[Kernel] = set()

    def device_name(self) -> str:
        return ""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, like: Array) -> Array:
        return np.zeros(shape, dtype)

    def zero(self, array: Array) -> None:
        pass

    def launch(self, kernel: Kernel, grid: Shape, block: Shape, args: Parameters) -> None:
        self.launched.add(kernel)

    def cublas(self, like: Array) -> Any:
        return mock.Mock()


def check_shape(kernel: Kernel, grid: Shape, block: Shape, bound: str | None) -> None:
    threads = block[0] * block[1] * block[2]
    for name, value in kernel.defines:  # of a bound like WIDTH * DEPTH
        bound = re.sub(rf"\b{name}\b", value, bound or "")
    most = math.prod(map(int, bound.split("*"))) if bound else MOST_THREADS
    fits = all(1 <= g <= limit for g, limit in zip(grid, GRID_LIMITS, strict=True))
    fits &= all(1 <= b <= limit for b, limit in zip(block, BLOCK_LIMITS, strict=True))
    if not fits or threads > most:
        raise BackendError(f"cuda: {kernel.name}: invalid grid {grid} or block {block}; at most {most} threads a block")


def check_arguments(kernel: Kernel, library: ctypes.CDLL, args: Parameters) -> None:
    """Each argument is of the parameter's very type: on a GPU nobody checks, and the kernel reads garbage."""
    signature = getattr(library, f"shim_signature_{kernel.name}")
    signature.restype = ctypes.c_char_p
    wanted = signature().decode().split()
    given = [describe(a, v) for a, v in zip(args.arguments, args.values, strict=True)]
    if len(given) != len(wanted):
        raise AssertionError(f"{kernel.name} takes {len(wanted)} arguments, the launcher gives {len(given)}: {given}")
    for i, (have, want) in enumerate(zip(given, wanted, strict=True)):
        if have != want and not (have == "null" and want.startswith("*")):
            raise AssertionError(f"{kernel.name}: argument {i} is {have}, the kernel takes {want}")


def describe(argument: Any, value: Any) -> str:
    """As `describe` in cuda_shim.h."""
    if argument is None:
        return "null"
    if is_array(argument):
        return f"*{argument.dtype.kind}{argument.dtype.itemsize}"
    if isinstance(value, ctypes.Structure):
        return f"s{ctypes.sizeof(value)}"
    return f"{np.dtype(type(value)).kind}{ctypes.sizeof(value)}"
