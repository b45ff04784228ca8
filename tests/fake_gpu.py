"""A stand-in for the Gpu of benchmarks/gpu.py on this machine's CPU: what is timed is real, the times are not.

The CUDA kernels run under the shim, CuPy's array operations are NumPy's, and torch computes on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cuda_shim
import numpy as np


class FakeGpu:
    backends = {"cupy": "numpy", "cuda": cuda_shim.NAME}
    torch_device = "cpu"
    l2_bytes = 1 << 20

    def __init__(self) -> None:
        self.did: list[str] = []

    def place(self, array: np.ndarray) -> np.ndarray:
        return array.copy()

    def seconds(self, run: Callable[[], Any]) -> float:
        self.did.append("seconds")
        run()
        return 1e-3

    def synchronize(self) -> None:
        self.did.append("synchronize")

    def overwrite(self) -> None:
        self.did.append("overwrite")

    def about(self) -> dict[str, Any]:
        return {"gpu": "no GPU", "cpu": "a CPU", "cores": 1, "python": "3", "versions": {"numpy": np.__version__}}
