"""The shim that runs CUDA kernels on the CPU finds what it is there to find; and every kernel under the sanitizers."""

from __future__ import annotations

import os
import subprocess
import sys

import cuda_shim
import numpy as np
import pytest
from cuda_shim import ORDERS, SHIM, ShimExecutor
from cuda_shim.cases import launch_everything

from alexnet_np.errors import BackendError
from alexnet_np.kernels.gpu import runtime
from alexnet_np.kernels.gpu.runtime import launch
from alexnet_np.kernels.gpu.window import Window

pytestmark = pytest.mark.skipif(cuda_shim.compiler() is None, reason="needs g++ to compile the CUDA sources as C++")

FLOAT = np.dtype("float32")


def run_planted(kernel: str, *args: object, order: str = "forward", block: int = 32) -> np.ndarray:
    y = np.full(32, np.nan, np.float32)
    with runtime.use_executor(ShimExecutor(order, folder=SHIM)):
        launch("planted", kernel, (1,), (block,), y, *args, real=FLOAT)
    return y


def test_a_race_gives_other_results_in_another_order() -> None:
    results = {run_planted("races", order=order).tobytes() for order in ORDERS}
    assert len(results) > 1


def test_shared_memory_starts_as_garbage() -> None:
    assert np.isnan(run_planted("reads_unwritten_shared")).all()


@pytest.mark.parametrize("kernel", ["diverges", "waits_on_two_lines"])
def test_a_barrier_that_not_all_threads_reach(kernel: str) -> None:
    with pytest.raises(AssertionError, match=f"{kernel} has a barrier"):
        run_planted(kernel)


def test_a_block_beyond_the_kernels_bound() -> None:
    with pytest.raises(BackendError, match=r"takes_64_threads: invalid .*; at most 64 threads a block"):
        run_planted("takes_64_threads", block=128)


@pytest.mark.parametrize(
    ("grid", "block"), [((2**31,), (32,)), ((1, 65536), (32,)), ((1,), (2048,)), ((1,), (8, 8, 128)), ((1,), (0,))]
)
def test_a_launch_beyond_the_limits(grid: tuple, block: tuple) -> None:
    with runtime.use_executor(ShimExecutor(folder=SHIM)), pytest.raises(BackendError, match="races: invalid grid"):
        launch("planted", "races", grid, block, np.zeros(32, np.float32), real=FLOAT)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((np.float32(1),), "argument 1 is f4, the kernel takes i4"),
        ((1.0,), "argument 1 is f4, the kernel takes i4"),
        ((np.int64(1),), "argument 1 is i8, the kernel takes i4"),
        ((Window(*range(13)),), "argument 1 is s52, the kernel takes i4"),
        ((None,), "argument 1 is null, the kernel takes i4"),
        ((), "takes 2 arguments, the launcher gives 1"),
    ],
)
def test_arguments_that_are_not_the_kernels(args: tuple, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        run_planted("writes_beyond_global", *args)


def test_an_array_of_another_dtype() -> None:
    refused = pytest.raises(AssertionError, match=r"\*f8, the kernel takes \*f4")
    with runtime.use_executor(ShimExecutor(folder=SHIM)), refused:
        launch("planted", "races", (1,), (32,), np.zeros(32), real=FLOAT)


# The rest runs in processes that preload the sanitizers' libraries.


def run_sanitized(*command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **cuda_shim.sanitizer_environment(), "PYTHONPATH": str(SHIM.parent)}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.mark.parametrize(
    ("call", "finding"),
    [
        ("'writes_beyond_shared', 1", "AddressSanitizer: global-buffer-overflow"),
        ("'writes_beyond_global', 1", "AddressSanitizer: heap-buffer-overflow"),
        ("'overflows_an_int', 2**30", "runtime error: signed integer overflow"),
        ("'writes_beyond_shared', 0", None),
    ],
)
def test_the_sanitizers_find_a_planted_fault(call: str, finding: str | None) -> None:
    result = run_sanitized("-c", f"import test_cuda_shim; test_cuda_shim.run_planted({call})")
    if finding is None:
        assert result.returncode == 0, result.stderr[-2000:]
    else:
        assert result.returncode != 0
        assert finding in result.stderr


@pytest.mark.slow
def test_every_kernel_under_the_sanitizers() -> None:
    """Every case of every kernel, in float32: no access out of bounds, no undefined behaviour."""
    result = run_sanitized("-c", "import test_cuda_shim; test_cuda_shim.run_everything()")
    assert result.returncode == 0, result.stderr[-6000:]


def run_everything() -> None:
    with runtime.use_executor(ShimExecutor()), np.errstate(all="ignore"):
        launch_everything(("float32",))
