"""What stands between a launcher and the GPU: packed arguments, the executor on CuPy, cuBLAS calls, clear errors."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import re
import struct
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import cuda_shim
import numpy as np
import pytest
from cuda_shim import SHIM, Recorder, ShimExecutor
from cuda_shim.cases import launch_everything

from alexnet_np.device import clear_errors, to_gpu
from alexnet_np.errors import ArgumentError, BackendError
from alexnet_np.kernels import gemm_cuda, relu_cuda
from alexnet_np.kernels.gemm_cuda import gemm, matmul_precision
from alexnet_np.kernels.gpu import cublas, runtime
from alexnet_np.kernels.gpu.arguments import pack
from alexnet_np.kernels.gpu.executor import CupyExecutor
from alexnet_np.kernels.gpu.runtime import launch, launch_each
from alexnet_np.kernels.gpu.source import HERE
from alexnet_np.kernels.gpu.window import Window

needs_gpp = pytest.mark.skipif(cuda_shim.compiler() is None, reason="needs g++")
FLOAT = np.dtype("float32")


class Inner(NamedTuple):
    a: int
    b: float


class Outer(NamedTuple):
    inner: Inner
    flag: bool
    pair: tuple[float, float]


def test_arguments_are_packed_as_the_kernel_reads_them() -> None:
    array = np.zeros(3, np.float32)
    packed = pack((array, None, 7, 2.5, np.int32(-1), np.uint64(2**63)), ctypes.c_int, ctypes.c_float)
    kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_int, ctypes.c_uint64)
    read = [ctypes.cast(p, ctypes.POINTER(kind)).contents for p, kind in zip(packed.pointers, kinds, strict=True)]
    assert [v.value for v in read] == [array.ctypes.data, None, 7, 2.5, -1, 2**63]


@pytest.mark.parametrize(("real", "layout"), [(ctypes.c_float, "if?3x2f"), (ctypes.c_double, "i4xd?7x2d")])
def test_groups_are_packed_as_structs(real: Any, layout: str) -> None:
    packed = pack((Outer(Inner(-3, 0.5), True, (1.5, 2.5)),), ctypes.c_longlong, real)
    read = ctypes.string_at(packed.pointers[0], struct.calcsize("=" + layout))
    assert struct.unpack("=" + layout, read) == (-3, 0.5, True, 1.5, 2.5)
    with pytest.raises(BackendError, match=r"Inner\(a=2147483648, b=0.5\) has a number beyond 32 bits"):
        pack((Outer(Inner(2**31, 0.5), True, (1.5, 2.5)),), ctypes.c_longlong, real)


STRUCT = re.compile(r"^struct (\w+) \{(.*?)^\};", re.S | re.M)
FIELDS = re.compile(r"^ *(int|bool|real|[A-Z]\w+) ([^;]+);", re.M)
NAMES = {int: "int", bool: "bool", float: "real"}


def fields_of(group: type) -> list[tuple[str, str]]:
    """(name, type in C) of the fields of a NamedTuple."""
    given = get_type_hints(group).items()
    return [
        (f"{name}[{len(get_args(kind))}]", NAMES[get_args(kind)[0]])
        if get_args(kind)
        else (name, NAMES.get(kind) or kind.__name__)
        for name, kind in given
    ]


def test_every_struct_is_its_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same fields of the same types in the same order in the .cu and in every NamedTuple that is launched."""
    groups: dict[str, type] = {}
    pack = runtime.pack

    def noting(args: tuple, *kinds: Any) -> Any:
        groups.update({type(a).__name__: type(a) for a in args if isinstance(a, tuple)})
        return pack(args, *kinds)

    monkeypatch.setattr(runtime, "pack", noting)
    with runtime.use_executor(Recorder()), np.errstate(all="ignore"):
        launch_everything(("float32",))
    groups["Window"] = Window
    text = "".join(path.read_text() for pattern in ("*.cu", "*.cuh") for path in sorted(HERE.rglob(pattern)))
    structs = {name: FIELDS.findall(re.sub("//.*", "", body)) for name, body in STRUCT.findall(text)}
    assert len(groups) >= 6
    for name, group in groups.items():
        written = [(field.strip(), kind) for kind, names in structs[name] for field in names.split(",")]
        assert written == fields_of(group), name


def test_an_index_is_wide_only_where_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(runtime, "LONG", 100)
    with runtime.use_executor(recorder):
        relu_cuda.compute(np.zeros(99, np.float32))
        relu_cuda.compute(np.zeros(100, np.float64))
    builds = {tuple(value for _, value in kernel.defines[:2]) for kernel in recorder.launched}
    assert builds == {("float", "int"), ("double", "long long")}


def test_nothing_is_launched_over_nothing() -> None:
    recorder = Recorder()
    with runtime.use_executor(recorder):
        launch_each("relu", "relu_forward", 0, np.zeros(0, np.float32), np.zeros(0, np.float32), real=FLOAT)
    assert not recorder.launched


def test_a_strided_array_is_refused() -> None:
    with (
        runtime.use_executor(Recorder()),
        pytest.raises(BackendError, match="relu_forward takes arrays in C order"),
    ):
        launch("relu", "relu_forward", (1,), (32,), np.zeros((4, 4), np.float32).T, real=FLOAT)


def test_numpy_arrays_are_refused_without_the_shim() -> None:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("needs CuPy")
    with pytest.raises(BackendError, match="cuda takes CuPy arrays, got a NumPy array") as caught:
        relu_cuda.compute(np.zeros(3, np.float32))
    assert "\n" not in str(caught.value)


def test_without_cupy_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    for act in (lambda: relu_cuda.compute(np.zeros(3, np.float32)), lambda: to_gpu(np.zeros(3))):
        with pytest.raises(BackendError, match=r"cuda needs CuPy \(pip install"):
            act()


def raised_by_cupy(error: str) -> Exception:
    name, message = error.split(": ", 1)
    return type(name, (RuntimeError,), {"__module__": "cupy_backends.cuda.api.runtime"})(message)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("CUDARuntimeError: cudaErrorInsufficientDriver: CUDA driver version is", "no NVIDIA driver, or one too old"),
        ("CUDARuntimeError: cudaErrorNoDevice: no CUDA-capable device", "no NVIDIA GPU is visible"),
        ("CUDARuntimeError: cudaErrorInvalidDevice: invalid device ordinal", "there is no GPU of that number"),
        ("CUDARuntimeError: cudaErrorMemoryAllocation: out of memory", "out of GPU memory; use a smaller batch"),
        ("OutOfMemoryError: Out of memory allocating 1,024 bytes", "out of GPU memory; use a smaller batch"),
        ("CUDADriverError: CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the PTX", "the NVIDIA driver is older than this CUDA"),
        ("CompileException: relu.cu(3): error: x\n\n1 error", "not compile for this GPU: relu.cu(3): error: x 1 error"),
        ("CUDARuntimeError: cudaErrorIllegalAddress: an illegal access", "what: cudaErrorIllegalAddress"),
    ],
)
def test_cudas_errors_are_one_clear_line(error: str, words: str) -> None:
    with pytest.raises(BackendError) as caught, clear_errors("what"):
        raise raised_by_cupy(error)
    assert str(caught.value).startswith("what: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_errors_of_our_own_pass_unchanged() -> None:
    for error in (BackendError("ours"), TypeError("a bug")):
        with pytest.raises(type(error), match=str(error)), clear_errors("what"):
            raise error


# CupyExecutor against a stand-in for CuPy that writes down what it is asked for.


class FakeCupyArray:
    def __init__(self, device: int = 0, shape: tuple[int, ...] = (4,), dtype: Any = np.float32) -> None:
        self.device, self.shape, self.dtype = types.SimpleNamespace(id=device), shape, np.dtype(dtype)
        self.data = types.SimpleNamespace(ptr=0x1000 * (device + 1))
        self.size, self.nbytes = int(np.prod(shape)), int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.flags = types.SimpleNamespace(c_contiguous=True)


@pytest.fixture
def fake_cupy(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    cupy = types.ModuleType("cupy")
    cupy.current, cupy.modules, cupy.launches, cupy.devices = [], [], [], 2

    class Device:
        def __init__(self, index: int) -> None:
            self.index = index

        def __enter__(self) -> None:
            cupy.current.append(self.index)

        def __exit__(self, *_: object) -> None:
            cupy.current.pop()

    class RawModule:
        def __init__(self, code: str, options: tuple[str, ...]) -> None:
            cupy.modules.append((code, options))

        def get_function(self, name: str) -> Any:
            return types.SimpleNamespace(kernel=types.SimpleNamespace(ptr=name))

    def launch_kernel(function: str, *numbers: int) -> None:
        cupy.launches.append((cupy.current[-1], function, numbers))

    cupy.ndarray, cupy.RawModule = FakeCupyArray, RawModule
    cupy.empty = lambda shape, dtype: FakeCupyArray(cupy.current[-1], shape, dtype)
    cupy.asarray = lambda x: FakeCupyArray(cupy.current[-1], x.shape, x.dtype)
    cupy.ascontiguousarray = lambda x: x
    cupy.cuda = types.SimpleNamespace(
        Device=Device,
        get_current_stream=lambda: types.SimpleNamespace(ptr=77),
        runtime=types.SimpleNamespace(getDeviceCount=lambda: cupy.devices),
    )
    driver = types.ModuleType("driver")
    driver.launchKernel = launch_kernel
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.api.driver", driver)
    return cupy


def test_a_launch_on_the_gpu(fake_cupy: Any) -> None:
    """One compilation for each build; the array's own device and the current stream; no shared memory on request."""
    with runtime.use_executor(CupyExecutor()):
        for _ in range(2):
            relu_cuda.compute(FakeCupyArray(device=1, shape=(3, 200)))
    (code, options) = fake_cupy.modules[0]
    assert len(fake_cupy.modules) == 1
    assert "relu_forward" in code
    assert "#include" not in code
    assert options == ("--std=c++17", "-DREAL=float", "-DINDEX=int", "-DBLOCK=256")
    device, function, numbers = fake_cupy.launches[0]
    assert (device, function, numbers[:8]) == (1, "relu_forward", (3, 1, 1, 256, 1, 1, 0, 77))
    assert numbers[9] == 0
    assert len(fake_cupy.launches) == 2


def test_arrays_of_two_gpus(fake_cupy: Any) -> None:
    refused = pytest.raises(BackendError, match=r"relu_backward was given arrays of GPUs \[0, 1\]")
    with runtime.use_executor(CupyExecutor()), refused:
        relu_cuda.gradients(FakeCupyArray(0), FakeCupyArray(1))


def test_a_mix_of_cpu_and_gpu_arrays(fake_cupy: Any) -> None:
    refused = pytest.raises(BackendError, match="cuda takes CuPy arrays, got a NumPy array")
    with runtime.use_executor(CupyExecutor()), refused:
        relu_cuda.gradients(np.zeros(4, np.float32), FakeCupyArray(0))


def test_moving_to_a_gpu(fake_cupy: Any) -> None:
    assert to_gpu(np.zeros(3, np.float32), device=1).device.id == 1
    for wrong in (2, -1):
        with pytest.raises(BackendError, match=f"there is no GPU {wrong}: this machine has 2"):
            to_gpu(np.zeros(3, np.float32), device=wrong)


def test_moving_to_a_gpu_that_is_not_there() -> None:
    cupy = pytest.importorskip("cupy")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except RuntimeError:
        count = 0
    with pytest.raises(BackendError) as caught:
        to_gpu(np.zeros(3, np.float32), device=count)
    assert "\n" not in str(caught.value)


# Matrix products.


@needs_gpp
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("sides", [(5, 7, 3), (1, 7, 3), (5, 1, 3), (5, 7, 1), (1, 1, 1), (5, 0, 3), (0, 7, 3)])
@pytest.mark.parametrize("layout", ["plain", "a transposed", "b transposed", "both", "strided", "one b for all"])
def test_gemm(dtype: str, accumulate: bool, sides: tuple[int, int, int], layout: str) -> None:
    M, K, N = sides
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, M, K)).astype(dtype), rng.standard_normal((2, K, N)).astype(dtype)
    if layout in ("a transposed", "both"):
        a = np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2)
    if layout in ("b transposed", "both"):
        b = np.ascontiguousarray(b.swapaxes(1, 2)).swapaxes(1, 2)
    if layout == "strided":
        a, b = np.repeat(a, 2, axis=2)[:, :, ::2], np.repeat(b, 2, axis=1)[:, ::2]
    if layout == "one b for all":
        b = b[:1]
    out = rng.standard_normal((2, M, N)).astype(dtype) if accumulate else np.full((2, M, N), np.nan, dtype)
    expected = a.astype(float) @ b.astype(float) + (out if accumulate else 0)
    with runtime.use_executor(ShimExecutor()):
        gemm(a, b, out, accumulate)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5 if dtype == "float32" else 1e-13)


def test_an_unknown_precision() -> None:
    refused = pytest.raises(ArgumentError, match="unknown matmul precision 'fast': choose one of strict, tf32, tf32x3")
    with refused, matmul_precision("fast"):
        pass
    assert gemm_cuda.precision_in_force() == "strict"


@needs_gpp
def test_what_cublas_refuses_is_an_error() -> None:
    handle = ShimExecutor().cublas(np.zeros(1))
    operand = cublas.Operand(address=0, transposed=False, leading=1, step=0)
    product = cublas.Product((2, 2, 2), 1, operand, operand, operand, cublas.COMPUTE_32F, False)
    with pytest.raises(BackendError, match=r"Ex failed with cuBLAS status 7 \(CUBLAS_STATUS_INVALID_VALUE\)"):
        handle.gemm(product)
    with pytest.raises(BackendError, match="a side beyond 32 bits"):
        handle.gemm(product._replace(sides=(2**31, 2, 2)))


@needs_gpp
def test_a_handle_is_destroyed_with_its_object() -> None:
    executor = ShimExecutor()
    handle = executor.cublas(np.zeros(1))
    gc.collect()  # those of other tests
    destroyed = ctypes.c_int.in_dll(handle.library, "destroyed_handles")
    before = destroyed.value
    del handle
    executor.handle = None
    gc.collect()
    assert destroyed.value == before + 1


@needs_gpp
def test_the_stand_in_for_cublas_has_cublas_prototypes() -> None:
    """Compiled against NVIDIA's header, where it is installed: a difference in any parameter is a compile error."""
    nvidia = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in (nvidia.submodule_search_locations if nvidia else [])]
    folders = [*(folder for place in places for folder in place.glob("*/include")), Path("/usr/local/cuda/include")]
    for header in ("cublas_api.h", "crt/host_defines.h"):
        if not any((folder / header).exists() for folder in folders):
            pytest.skip(f"needs NVIDIA's {header}")
    flags = ["-DCUBLAS_HEADER", *(f"-I{folder}" for folder in folders)]
    library = cuda_shim.build((SHIM / "fake_cublas.cpp").read_text(), "fake_cublas_checked", flags, [])
    assert ctypes.CDLL(str(library)).cublasGemmStridedBatchedEx


def test_the_real_cublas_loads_and_refuses_clearly_without_a_gpu() -> None:
    cupy = pytest.importorskip("cupy")
    library = cublas.load_cublas()
    for name in ("Create_v2", "Destroy_v2", "SetStream_v2", "SetWorkspace_v2", "GemmStridedBatchedEx", "GetStatusName"):
        assert getattr(library, f"cublas{name}")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except RuntimeError:
        with pytest.raises(BackendError, match="cublasCreate_v2 failed with cuBLAS status"):
            cublas.Cublas(library, 0, 1, 1)
