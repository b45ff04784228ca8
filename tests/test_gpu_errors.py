"""What a user's mistakes and a machine's lacks become on the GPU backends: one clear line each, never a traceback.

CuPy is a stand-in that raises what CuPy raises; its arrays are NumPy's under another type.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from oracles import refused
from typer.testing import CliRunner

import alexnet_np as anp
from alexnet_np import backend, ops
from alexnet_np.cli.app import app
from alexnet_np.device import clear_errors
from alexnet_np.errors import BackendError

RUNTIME, PTX = "cupy_backends.cuda.api.runtime", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
DEVICE_ERRORS = [  # what cudaGetDeviceCount fails with, in CuPy's words, and in ours
    (
        "CUDARuntimeError",
        "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
        "no NVIDIA driver, or one too old for this CUDA; install a newer one",
    ),
    ("CUDARuntimeError", "cudaErrorNoDevice: no CUDA-capable device is detected", "no NVIDIA GPU is visible; look at"),
    ("CUDADriverError", f"{PTX}: the provided PTX\nwas compiled", "the NVIDIA driver is older than this CUDA"),
    ("CUDARuntimeError", "cudaErrorSystemDriverMismatch: two\nversions", "CUDA: cudaErrorSystemDriverMismatch"),
]


def raised_by_cupy(name: str, message: str, base: type[Exception] = RuntimeError, module: str = RUNTIME) -> Exception:
    return type(name, (base,), {"__module__": module})(message)


def out_of_memory(*_: Any, **__: Any) -> Any:
    message = "Out of memory allocating 151,003,136 bytes\n(allocated so far: 84,000,000,000 bytes)."
    raise raised_by_cupy("OutOfMemoryError", message, MemoryError, "cupy.cuda.memory")


class GpuArray(np.ndarray):
    device = SimpleNamespace(id=0)

    def get(self) -> np.ndarray:
        return self.view(np.ndarray)


def on_gpu(array: Any) -> Any:
    return np.array(array).view(GpuArray)


def giving_gpu_arrays(function: Any) -> Any:
    def run(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        return result.view(GpuArray) if type(result) is np.ndarray else result

    return run


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Device:
        def __init__(self, index: int) -> None:
            self.id = index

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    module: Any = ModuleType("cupy")
    for name, value in vars(np).items():
        if not name.startswith("__"):
            function = callable(value) and not isinstance(value, type)
            setattr(module, name, giving_gpu_arrays(value) if function else value)
    module.__spec__ = ModuleSpec("cupy", None)
    module.ndarray, module.asarray = GpuArray, on_gpu
    runtime = SimpleNamespace(getDeviceCount=lambda: 1, getDevice=lambda: 0)
    module.cuda = SimpleNamespace(Device=Device, runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(backend, "_usable", {"numpy"})  # what was found of the real one
    return module


@pytest.fixture
def model() -> Any:
    return anp.alexnet("d2l", width=1 / 32, seed=0)


# No GPU to use


@pytest.mark.parametrize(("kind", "message", "words"), DEVICE_ERRORS)
@pytest.mark.parametrize("name", ["cupy", "cuda"])
def test_a_driver_or_device_that_cannot_be_used(cupy: Any, name: str, kind: str, message: str, words: str) -> None:
    def fails() -> int:
        raise raised_by_cupy(kind, message)

    cupy.cuda.runtime.getDeviceCount = fails
    reason = backend.available_backends()[name]
    assert isinstance(reason, str)
    assert words in reason
    assert message.split(":")[0] in reason  # CUDA's own word, to search for
    for act in (lambda: anp.alexnet("d2l", width=1 / 32, backend=name), lambda: backend.use_backend(name).__enter__()):
        with refused(BackendError, f"backend '{name}' is unavailable: .*; usable here: numpy"):
            act()
    result = CliRunner().invoke(app, ["classify", "-", "-w", "random", "--backend", name], input=b"")
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert result.stderr.splitlines()[-1].startswith("alexnet: ")


def test_cupys_own_classes() -> None:
    """Not stand-ins: what CuPy itself makes of CUDA's error numbers."""
    runtime = pytest.importorskip("cupy_backends.cuda.api.runtime")
    memory = pytest.importorskip("cupy.cuda.memory")
    compiler = pytest.importorskip("cupy.cuda.compiler")
    for error, words in [
        (runtime.CUDARuntimeError(35), "no NVIDIA driver, or one too old for this CUDA"),
        (runtime.CUDARuntimeError(100), "no NVIDIA GPU is visible"),
        (runtime.CUDARuntimeError(101), "there is no GPU of that number"),
        (runtime.CUDARuntimeError(2), "out of GPU memory"),
        (memory.OutOfMemoryError(1024, 4096, 0), "out of GPU memory; .*Out of memory allocating 1,024 bytes"),
        (compiler.CompileException("x.cu(1): error", "", "x.cu", ()), "the kernel did not compile for this GPU"),
    ]:
        with refused(BackendError, f"what: {words}"), clear_errors("what"):
            raise error


def test_no_device(cupy: Any) -> None:
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    assert backend.available_backends()["cuda"] == "no CUDA device"


def test_a_cupy_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return ModuleSpec(name, None)

    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr("importlib.util.find_spec", find)
    reason = str(backend.available_backends()["cuda"])
    assert reason.startswith("cuda needs CuPy (pip install 'cupy-cuda13x[ctk]'): ")
    assert "\n" not in reason


# Moving a model


def test_a_model_moves_to_the_gpu_and_back(cupy: Any, model: Any) -> None:
    x = np.random.default_rng(0).random((1, 1, 224, 224), dtype=np.float32)
    expected, before = model.eval()(x), model.state_dict()
    assert model.to("cupy").backend == "cupy"
    assert all(isinstance(p.data, GpuArray) for p in model.parameters())
    np.testing.assert_array_equal(model(on_gpu(x)).get(), expected)
    assert model.to("cuda").backend == "cuda"
    assert not any(isinstance(p.data, GpuArray) for p in model.to("numpy").parameters())
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_model_too_large_for_the_gpu_stays_whole_where_it_was(cupy: Any, model: Any) -> None:
    room = iter([True] * 5)
    cupy.asarray = lambda array: on_gpu(array) if next(room, False) else out_of_memory()
    with refused(BackendError, "cuda: moving [0-9,]+ bytes to the GPU: out of GPU memory; .*151,003,136"):
        model.to("cuda")
    assert model.backend is None
    assert not any(isinstance(p.data, GpuArray) for p in model.parameters())


def test_a_device_of_another_number(cupy: Any, model: Any) -> None:
    """CuPy's current device is where a model goes."""
    cupy.cuda.runtime.getDevice = lambda: 3
    with refused(BackendError, "cuda: there is no GPU 3: this machine has 1, numbered from 0"):
        model.to("cuda")


def test_a_gpu_lost_on_the_way_back(cupy: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any) -> np.ndarray:
        raise raised_by_cupy("CUDARuntimeError", "cudaErrorIllegalAddress: an illegal\nmemory access")

    model.to("cupy")
    monkeypatch.setattr(GpuArray, "get", fails)
    with refused(BackendError, "cuda: moving an array to the CPU: cudaErrorIllegalAddress: an illegal memory access"):
        model.to("numpy")


# At work


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("name", ["cupy", "cuda"])
def test_out_of_memory_inside_an_op(cupy: Any, monkeypatch: pytest.MonkeyPatch, name: str, direction: str) -> None:
    x = on_gpu(np.ones((2, 3), np.float32))
    module = {"cupy": "alexnet_np.ops.relu", "cuda": "alexnet_np.kernels.relu_cuda"}[name]
    y, cache = ops.relu.forward(x)
    monkeypatch.setattr(f"{module}.compute", out_of_memory)
    monkeypatch.setattr(f"{module}.gradients", out_of_memory)
    with backend.use_backend(name), refused(BackendError, f"{name}: relu: out of GPU memory; use a smaller batch"):
        ops.relu.forward(x) if direction == "forward" else ops.relu.backward(y, cache)


def test_errors_that_are_not_cudas_keep_their_class(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(x: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("alexnet_np.ops.relu.compute", bug)
    with pytest.raises(KeyError, match="a bug"):
        ops.relu.forward(on_gpu(np.ones(3, np.float32)))


@pytest.mark.parametrize("name", ["cupy", "cuda"])
def test_a_mix_of_cpu_and_gpu_arrays(cupy: Any, model: Any, name: str) -> None:
    x, weight = np.ones((1, 1, 224, 224), np.float32), np.ones((2, 1, 3, 3), np.float32)
    with refused(BackendError, "conv2d: x is on the GPU but weight on the CPU; move one of them"):
        ops.conv2d.forward(on_gpu(x), weight)
    with backend.use_backend(name), refused(BackendError, f"backend '{name}' takes CuPy arrays, got NumPy"):
        ops.relu.forward(x)
    with backend.use_backend("numpy"), refused(BackendError, "backend 'numpy' takes NumPy arrays, got CuPy"):
        ops.relu.forward(on_gpu(x))
    with refused(BackendError, f"backend '{name}' takes CuPy arrays, got NumPy"):
        model.to(name)(x)
    with refused(BackendError, "backend 'numpy' takes NumPy arrays, got CuPy"):
        model.to("numpy")(on_gpu(x))


# NumPy, Pillow and CuPy alone

ALONE = """
import importlib, sys
from importlib.machinery import PathFinder

ALLOWED = {"numpy", "PIL", "cupy", "cupy_backends", "cuda", "fastrlock", "alexnet_np", *sys.stdlib_module_names}

class Only(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return super().find_spec(name, path, target) if path is not None or name in ALLOWED else None

sys.meta_path[sys.meta_path.index(PathFinder)] = Only
for name in ("numba", "typer", "rich", "scipy_openblas32", "threadpoolctl", "torch"):
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} is not hidden")

import numpy as np
import alexnet_np as anp
from alexnet_np import backend
for name in dir(anp):
    getattr(anp, name)
for name in ("cuda", "cuda_training"):
    importlib.import_module(f"alexnet_np.plan.{name}")
for modules in backend.IMPLEMENTATIONS.values():
    for which in ("numpy", "cupy", "cuda"):
        importlib.import_module(modules[which])

usable = anp.available_backends()
assert "numba is not installed" in usable["numba"], usable
model = anp.alexnet("torchvision", width=1 / 16, num_classes=3, seed=0)
x = np.stack([anp.preprocess(sys.argv[1])])
optimizer = anp.SGD(model.named_parameters(), lr=0.01, momentum=0.9)
loss, cache = anp.ops.cross_entropy.forward(model(x), np.array([1]))
model.backward(anp.ops.cross_entropy.backward(1.0, cache))
optimizer.step()
for name in ("cupy", "cuda"):
    try:
        model.to(name)
    except anp.BackendError as error:
        assert usable[name] is not True and "\\n" not in str(error), error
    else:
        model(sys.modules["cupy"].asarray(x))
for name in ("gpu", "gpu_kernels", "gpu_model", "gpu_training", "gpu_peers", "markdown"):
    importlib.import_module(f"alexnet_np.measure.{name}")
print("alone")
"""


def test_numpy_pillow_and_cupy_are_enough(tmp_path: Any) -> None:
    """In a process from which everything else is hidden; without CuPy, the GPU backends say so."""
    image = anp.__path__[0] + "/assets/cat.jpg"
    done = subprocess.run([sys.executable, "-c", ALONE, image], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "alone\n"
