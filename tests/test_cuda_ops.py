"""The ops' own tests, comparisons with torch included, once more with the CUDA kernels run on the CPU.

Every test of those files that takes `backend` is collected here too, under the fixture below.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

import pytest

import cuda_shim

FILES = (
    "adaptive_avg_pool2d",
    "conv2d",
    "cross_entropy",
    "dropout",
    "linear",
    "local_response_norm",
    "max_pool2d",
    "relu",
    "softmax",
)

pytestmark = pytest.mark.skipif(cuda_shim.compiler() is None, reason="needs g++ to compile the CUDA sources as C++")


@pytest.fixture
def backend() -> Iterator[str]:
    with cuda_shim.as_backend() as name:
        yield name


for _file in FILES:
    for _name, _test in vars(importlib.import_module(f"test_{_file}")).items():
        if _name.startswith("test_") and "backend" in inspect.signature(_test).parameters:
            globals()[f"test_{_file}_{_name.removeprefix('test_')}"] = _test


def test_every_file_gave_tests() -> None:
    for file in FILES:
        assert any(name.startswith(f"test_{file}_") for name in globals()), file
