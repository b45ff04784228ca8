"""cuBLAS through ctypes: matrix products and nothing else.

CuPy has bindings of its own, but refuses to call cuBLAS while a stream is captured into a CUDA graph, and its matmul
copies transposed batches and reads its precision from the environment. Here the handle, its stream, its workspace and
the arithmetic of every product are ours.
"""

from __future__ import annotations

import ctypes
import importlib
from contextlib import suppress
from typing import Any, NamedTuple

from alexnet_np.errors import BackendError

# cublas_api.h, library_types.h
OP_N, OP_T = 0, 1
R_32F, R_64F = 0, 1
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
GEMM_DEFAULT = -1


class Operand(NamedTuple):
    """A batch of column-major matrices."""

    address: int
    transposed: bool
    leading: int  # elements from a column to the next
    step: int  # elements from a matrix to the next; 0: the same one for all


class Cublas:
    """A handle bound to one stream, with a workspace that the caller provides (device memory, kept by `owner`)."""

    def __init__(self, library: ctypes.CDLL, stream: int, workspace: int, workspace_bytes: int, owner: Any = None) -> None:
        self.library, self.owner, self.handle = library, owner, ctypes.c_void_p()
        self.call("cublasCreate_v2", ctypes.byref(self.handle))
        self.call("cublasSetStream_v2", self.handle, ctypes.c_void_p(stream))  # takes any workspace away, so goes first
        self.call("cublasSetWorkspace_v2", self.handle, ctypes.c_void_p(workspace), ctypes.c_size_t(workspace_bytes))

    def gemm(
        self, m: int, n: int, k: int, a: Operand, b: Operand, c: Operand, batch: int, double: bool, compute: int, beta: float
    ) -> None:
        """c = op(a) · op(b) + beta * c for each of `batch` column-major matrices: (m,k) · (k,n) -> (m,n)."""
        scalar = ctypes.c_double if double else ctypes.c_float
        kind = R_64F if double else R_32F
        integers = (m, n, k, a.leading, b.leading, c.leading, batch)
        if max(integers) > 0x7FFFFFFF:
            raise BackendError(f"cuda: a matrix product of {m} x {k} by {k} x {n} has a side beyond 32 bits; split the batch")
        self.call(
            "cublasGemmStridedBatchedEx",
            self.handle,
            OP_T if a.transposed else OP_N,
            OP_T if b.transposed else OP_N,
            *(m, n, k),
            ctypes.byref(scalar(1.0)),
            *(ctypes.c_void_p(a.address), kind, a.leading, ctypes.c_longlong(a.step)),
            *(ctypes.c_void_p(b.address), kind, b.leading, ctypes.c_longlong(b.step)),
            ctypes.byref(scalar(beta)),
            *(ctypes.c_void_p(c.address), kind, c.leading, ctypes.c_longlong(c.step)),
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
    """The cuBLAS that CuPy uses: once CuPy has loaded it, its name alone finds it."""
    with suppress(ImportError):
        importlib.import_module("cupy_backends.cuda.libs.cublas")
    for name in ("libcublas.so.13", "libcublas.so.12", "libcublas.so.11", "cublas64_13.dll", "cublas64_12.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise BackendError("cuda: cuBLAS was not found; install CuPy with its libraries (pip install 'cupy-cuda13x[ctk]')")
