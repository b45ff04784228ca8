"""cuBLAS through ctypes: matrix products and nothing else.

CuPy has bindings of its own, but refuses to call cuBLAS while a stream is captured into a CUDA graph, and its matmul
copies transposed batches and reads its precision from the environment. Here the handle, its stream, its workspace and
the arithmetic of every product are ours.
"""

from __future__ import annotations

import ctypes
import importlib
import weakref
from contextlib import suppress
from typing import Any, NamedTuple

from alexnet_np.errors import BackendError

# cublas_api.h, library_types.h
OP_N, OP_T = 0, 1
R_32F, R_64F = 0, 1
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
GEMM_DEFAULT = -1

WORKSPACE_BYTES = 32 << 20  # what cuBLAS asks for on Hopper; one a stream

Sides = tuple[int, int, int]  # m, n, k


class Operand(NamedTuple):
    """A batch of column-major matrices."""

    address: int
    transposed: bool
    leading: int  # elements from a column to the next
    step: int  # elements from a matrix to the next; 0: the same one for all


class Product(NamedTuple):
    """out = op(a) · op(b), plus what out held if `accumulate`, for a batch of matrices: (m,k) · (k,n) -> (m,n)."""

    sides: Sides
    batch: int
    a: Operand
    b: Operand
    out: Operand
    compute: int  # the arithmetic, one of COMPUTE_...
    accumulate: bool


class Cublas:
    """A handle bound to one stream, with a workspace that the caller provides (device memory, kept by `owner`)."""

    def __init__(self, library: ctypes.CDLL, stream: int, workspace: int, bytes: int, owner: Any = None) -> None:
        self.library, self.owner, self.handle = library, owner, ctypes.c_void_p()
        self.call("cublasCreate_v2", ctypes.byref(self.handle))
        # Destroyed with this object, but not by a process that ends: CUDA may be gone by then.
        weakref.finalize(self, library.cublasDestroy_v2, self.handle).atexit = False
        self.call("cublasSetStream_v2", self.handle, ctypes.c_void_p(stream))  # takes any workspace away, so goes first
        self.call("cublasSetWorkspace_v2", self.handle, ctypes.c_void_p(workspace), ctypes.c_size_t(bytes))

    def gemm(self, product: Product) -> None:
        (m, n, k), batch, a, b, out, compute, accumulate = product
        double = compute == COMPUTE_64F
        scalar = ctypes.c_double if double else ctypes.c_float
        kind = R_64F if double else R_32F
        if max(m, n, k, batch) > 0x7FFFFFFF:
            raise BackendError(
                f"cuda: a product of {m} x {k} by {k} x {n} has a side beyond 32 bits; use a smaller batch"
            )
        self.call(
            "cublasGemmStridedBatchedEx",
            self.handle,
            OP_T if a.transposed else OP_N,
            OP_T if b.transposed else OP_N,
            *(m, n, k),
            ctypes.byref(scalar(1.0)),
            *(ctypes.c_void_p(a.address), kind, a.leading, ctypes.c_longlong(a.step)),
            *(ctypes.c_void_p(b.address), kind, b.leading, ctypes.c_longlong(b.step)),
            ctypes.byref(scalar(accumulate)),
            *(ctypes.c_void_p(out.address), kind, out.leading, ctypes.c_longlong(out.step)),
            *(batch, compute, GEMM_DEFAULT),
        )

    def call(self, name: str, *args: Any) -> None:
        status = getattr(self.library, name)(*args)
        if status:
            raise BackendError(f"cuda: {name} failed with cuBLAS status {status} ({status_name(self.library, status)})")


def status_name(library: ctypes.CDLL, status: int) -> str:
    name = library.cublasGetStatusName
    name.restype = ctypes.c_char_p
    return name(status).decode()


def load_cublas() -> ctypes.CDLL:
    """The cuBLAS that CuPy uses, wherever it is installed."""
    with suppress(Exception):  # the finder comes with CuPy 14 and raises errors of its own
        found = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublas")
        return ctypes.CDLL(found.abs_path)
    with suppress(ImportError):  # an older CuPy loads it with this module; from then on the name alone finds it
        importlib.import_module("cupy_backends.cuda.libs.cublas")
    for name in ("libcublas.so.13", "libcublas.so.12", "libcublas.so.11", "cublas64_13.dll", "cublas64_12.dll"):
        with suppress(OSError):
            return ctypes.CDLL(name)
    raise BackendError("cuda: cuBLAS was not found; install CuPy with its libraries (pip install 'cupy-cuda13x[ctk]')")
