"""The switch: which arrays (NumPy or CuPy), and which implementation of each op on them.

        | array operations (readable) | hand-written kernels (fast)
    CPU | numpy                       | numba
    GPU | cupy                        | cuda

`numpy` and `cupy` are the same source, `xp = array_module(x)`. The array's type decides the device; the backend chosen
with `use_backend` decides which implementation of that device's. With none chosen it is the array operations.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from functools import wraps
from types import MappingProxyType
from typing import Any

from alexnet_np.arguments import shown
from alexnet_np.device import Array, clear_errors, count_gpus, on_gpu
from alexnet_np.errors import BackendError, one_line

BACKENDS = {"numpy": "cpu", "numba": "cpu", "cupy": "gpu", "cuda": "gpu"}

# Who computes which op. Each module has `compute` (the forward) and `gradients` (the backward) with the signatures of
# the array version in alexnet_np/ops; the optimizer's step has no backward. An op without a kernel of its own names the
# array version.
OPS, KERNELS = "alexnet_np.ops.", "alexnet_np.kernels."
IMPLEMENTATIONS = {
    "conv2d": {"numba": KERNELS + "conv2d_numba", "cuda": KERNELS + "conv2d_cuda"},
    "max_pool2d": {"numba": KERNELS + "max_pool2d_numba", "cuda": KERNELS + "max_pool2d_cuda"},
    "avg_pool2d": {"numba": KERNELS + "avg_pool2d_numba", "cuda": KERNELS + "avg_pool2d_cuda"},
    "adaptive_avg_pool2d": {"numba": OPS + "adaptive_avg_pool2d", "cuda": KERNELS + "adaptive_avg_pool2d_cuda"},
    "relu": {"numba": KERNELS + "relu_numba", "cuda": KERNELS + "relu_cuda"},
    "tanh": {"numba": OPS + "tanh", "cuda": KERNELS + "tanh_cuda"},
    "sigmoid": {"numba": OPS + "sigmoid", "cuda": KERNELS + "sigmoid_cuda"},
    "local_response_norm": {
        "numba": KERNELS + "local_response_norm_numba",
        "cuda": KERNELS + "local_response_norm_cuda",
    },
    "dropout": {"numba": KERNELS + "dropout_numba", "cuda": KERNELS + "dropout_cuda"},
    "linear": {"numba": KERNELS + "linear_numba", "cuda": KERNELS + "linear_cuda"},
    "softmax": {"numba": OPS + "softmax", "cuda": KERNELS + "softmax_cuda"},
    "log_softmax": {"numba": OPS + "log_softmax", "cuda": KERNELS + "log_softmax_cuda"},
    "cross_entropy": {"numba": KERNELS + "cross_entropy_numba", "cuda": KERNELS + "cross_entropy_cuda"},
    "sgd": {"numba": KERNELS + "sgd_numba", "cuda": KERNELS + "sgd_cuda"},
}
for _op, _modules in IMPLEMENTATIONS.items():  # the array versions serve both devices, so they need no row of their own
    _modules["numpy"] = _modules["cupy"] = OPS + _op

# Who computes several layers together; where nobody does, they run one by one (fusion.py). `compute` and `gradients`
# have the signatures of the layers together.
FUSED = {
    "conv2d_relu_max_pool2d": {"numba": KERNELS + "conv2d_relu_max_pool2d_numba"},
}

_usable = {"numpy"}  # backends found usable so far
_chosen: ContextVar[str | None] = ContextVar("alexnet_np_backend", default=None)
_given: ContextVar[Mapping[str, Any]] = ContextVar("alexnet_np_given", default=MappingProxyType({}))


def available_backends() -> dict[str, bool | str]:
    """Each backend: True, or one line saying why it cannot be used here."""
    return {name: _why_unavailable(name) or True for name in BACKENDS}


def _why_unavailable(name: str) -> str | None:
    if name == "numpy":
        return None
    package = "numba" if name == "numba" else "cupy"
    if importlib.util.find_spec(package) is None:
        wanted = "numba" if name == "numba" else "'cupy-cuda13x[ctk]'"  # quoted: to a shell brackets are a pattern
        return f"{package} is not installed (pip install {wanted})"
    if name == "numba":
        try:
            importlib.import_module(KERNELS + "cpu.jit")
        except Exception as error:  # no kernels without compiling; a Numba that does not fit this NumPy
            return one_line(error)
        return None
    try:
        return None if count_gpus() else "no CUDA device"
    except Exception as error:  # a missing, an old and a broken driver; a CuPy that does not load
        return one_line(error)


def check_backend(name: str) -> str:
    """`name` if that backend can be used here.

    Raises BackendError naming the choices otherwise: nothing falls back silently.
    """
    if not isinstance(name, str) or name not in BACKENDS:
        raise BackendError(f"unknown backend {shown(name)}: choose one of {', '.join(BACKENDS)}")
    reason = None if name in _usable else _why_unavailable(name)
    if reason:
        usable = ", ".join(n for n, ok in available_backends().items() if ok is True)
        raise BackendError(f"backend {name!r} is unavailable: {reason}; usable here: {usable}")
    _usable.add(name)
    return name


class use_backend:  # noqa: N801 - a `with`, as torch's no_grad
    """Ops inside the `with` run on backend `name`; None means the array operations of the array's device.

    A decorator as well: `@use_backend("numba")`. Raises BackendError.
    """

    def __init__(self, name: str | None) -> None:
        self.name = name if name is None else check_backend(name)
        self._tokens: list[Token[str | None]] = []

    def __enter__(self) -> None:
        self._tokens.append(_chosen.set(self.name))

    def __exit__(self, *exc: object) -> None:
        _chosen.reset(self._tokens.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            with use_backend(self.name):
                return function(*arguments, **options)

        return run

    def __repr__(self) -> str:
        return f"use_backend({self.name!r})"


@contextmanager
def computing(op: str, module: Any) -> Iterator[None]:
    """Inside the `with`, `op` is computed by `module`, whichever backend is chosen: one of kernels/variants.py."""
    token = _given.set({**_given.get(), op: module})
    try:
        yield
    finally:
        _given.reset(token)


def current_backend(x: Any) -> str:
    """The backend that would serve an op on `x` now."""
    chosen = _chosen.get()
    device = "gpu" if on_gpu(x) else "cpu"
    if chosen is None:
        return "cupy" if device == "gpu" else "numpy"
    if BACKENDS[chosen] != device:
        have, want = ("CuPy", "NumPy") if device == "gpu" else ("NumPy", "CuPy")
        raise BackendError(f"backend {chosen!r} takes {want} arrays, got {have}; move the array or use another backend")
    return chosen


def implementation(op: str, x: Array) -> Any:
    """The module whose `compute` and `gradients` serve `op` on the array `x` under the chosen backend.

    What CUDA and CuPy raise inside them becomes a BackendError of one line.
    """
    if op in (given := _given.get()):
        return _OnGpu(given[op], f"cuda: {op}") if on_gpu(x) else given[op]
    backend = current_backend(x)
    try:
        module = importlib.import_module(IMPLEMENTATIONS[op][backend])
    except KeyError:
        names = ", ".join(sorted(IMPLEMENTATIONS[op]))
        raise BackendError(f"{op} has no {backend!r} implementation; choose one of {names}") from None
    return _OnGpu(module, f"{backend}: {op}") if BACKENDS[backend] == "gpu" else module


def fused_implementation(unit: str, x: Array) -> Any:
    """The module that computes the layers of `unit` together on the array `x`; None where they run one by one."""
    module = FUSED[unit].get(current_backend(x))
    return None if module is None else importlib.import_module(module)


class _OnGpu:
    """A module's functions, with errors that say which op on which backend."""

    def __init__(self, module: Any, what: str) -> None:
        self.module, self.what = module, what

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.module, name)

        def run(*arguments: Any) -> Any:
            with clear_errors(self.what):
                return function(*arguments)

        return run
