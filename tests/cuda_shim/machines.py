"""Where the tests of the GPU plans run: under the shim everywhere, and on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest

from alexnet_np import plan
from alexnet_np.backend import available_backends
from alexnet_np.kernels.gpu.runtime import use_executor
from cuda_shim import DeviceArray, ShimExecutor, compiler, to_device

PARAMETERS = ["shim", pytest.param("gpu", marks=pytest.mark.gpu)]


class Cpu:
    """Where nothing has to be moved; Winograd's sums round more than the definition's."""

    bound = 3e-5

    def place(self, array: np.ndarray) -> np.ndarray:
        return array

    def fetch(self, array: np.ndarray) -> np.ndarray:
        return array

    def move(self, model: Any) -> Any:
        return model

    def move_back(self, model: Any) -> Any:
        return model


class Shim:
    bound = 3e-6

    def __init__(self, executor: ShimExecutor) -> None:
        self.executor = executor

    def place(self, array: np.ndarray) -> Any:
        return to_device(array)

    def fetch(self, array: Any) -> np.ndarray:
        return np.array(array)

    def move(self, model: Any) -> Any:
        for parameter in model.parameters():
            parameter.data, parameter.grad = to_device(parameter.data), None
        return model

    def move_back(self, model: Any) -> Any:
        for parameter in model.parameters():
            parameter.data = np.array(parameter.data)
        return model


class Gpu:
    bound = 3e-6

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy

    def place(self, array: np.ndarray) -> Any:
        return self.cupy.array(array)

    def fetch(self, array: Any) -> np.ndarray:
        return array.get()

    def move(self, model: Any) -> Any:
        return model.to("cuda")

    def move_back(self, model: Any) -> Any:
        return model.to("numpy")


@contextmanager
def machine_called(name: str) -> Iterator[Cpu | Shim | Gpu]:
    if name == "cpu":
        yield Cpu()
        return
    if name == "gpu":
        usable = available_backends()["cuda"]
        if usable is not True:
            pytest.skip(str(usable))
        yield Gpu()
        return
    if compiler() is None:
        pytest.skip("needs g++ to compile the CUDA sources as C++")
    executor = ShimExecutor()
    with ExitStack() as stack:
        stack.enter_context(use_executor(executor))
        stack.enter_context(mock.patch.object(plan, "on_gpu", lambda x: isinstance(x, DeviceArray)))
        yield Shim(executor)
