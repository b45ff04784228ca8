"""Networks and images for the tests of the GPU plans, and the fixture of where those run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import alexnet_np as anp
from cuda_shim import machines

WIDTH = 1 / 16


@pytest.fixture(params=machines.PARAMETERS)
def machine(request: pytest.FixtureRequest) -> Iterator:
    with machines.machine_called(request.param) as found:
        yield found


def build(preset: str = "torchvision", **options: object) -> anp.models.AlexNet:
    return anp.alexnet(preset, width=WIDTH, num_classes=10, seed=3, **options).eval()


def images(N: int, C: int = 3, size: tuple[int, int] = (99, 99), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((N, C, *size), dtype=np.float32)


def photographs(N: int, C: int = 3, size: tuple[int, int] = (99, 99)) -> np.ndarray:
    return np.random.default_rng(N).integers(0, 256, (N, *size, C), np.uint8)
