"""A stand-in for the Gpu of measure/gpu.py on this machine's CPU: what is timed is real, the times are not.

The CUDA kernels and the plans run under the shim, CuPy's array operations are NumPy's, and torch computes on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import cuda_shim
import numpy as np

from alexnet_np import models, plan


class FakeGpu:
    backends = {"cupy": "numpy", "cuda": cuda_shim.NAME}
    torch_device = "cpu"
    l2_bytes = 1 << 20

    def __init__(self) -> None:
        self.did: list[str] = []

    def place(self, array: np.ndarray) -> Any:
        return cuda_shim.to_device(array)

    def seconds(self, run: Callable[[], Any]) -> float:
        self.did.append("seconds")
        run()
        return 1e-3

    def synchronize(self) -> None:
        self.did.append("synchronize")

    def overwrite(self) -> None:
        self.did.append("overwrite")

    def release(self) -> None:
        self.did.append("release")

    def about(self) -> dict[str, Any]:
        return {"gpu": "no GPU", "cpu": "a CPU", "cores": 1, "python": "3", "versions": {"numpy": np.__version__}}


@contextmanager
def machine() -> Iterator[FakeGpu]:
    """One, with the shim as a backend, to which models move."""
    with (
        cuda_shim.as_backend(),
        mock.patch.object(models, "to_gpu", cuda_shim.to_device),
        mock.patch.object(models, "to_cpu", cuda_shim.to_device),
        mock.patch.object(plan, "on_gpu", lambda x: isinstance(x, cuda_shim.DeviceArray)),
    ):
        yield FakeGpu()
