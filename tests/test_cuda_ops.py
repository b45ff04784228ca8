"""A whole network with the CUDA kernels run on the CPU. (Each op's own tests run them too: oracles.implementations.)"""

from __future__ import annotations

from collections.abc import Iterator

import cuda_shim
import numpy as np
import pytest

import alexnet_np as anp

pytestmark = pytest.mark.skipif(cuda_shim.compiler() is None, reason="needs g++ to compile the CUDA sources as C++")


@pytest.fixture
def backend() -> Iterator[str]:
    with cuda_shim.as_backend() as name:
        yield name


@pytest.mark.parametrize("preset", ["torchvision", "paper"])
def test_a_whole_network(backend: str, preset: str) -> None:
    """Forward and every parameter's gradient, dropout at work, against the same network on the array operations."""
    results = {}
    for name in ("numpy", backend):
        model = anp.alexnet(preset, num_classes=7, width=1 / 16, dtype="float64", seed=1).to(name).train()
        x = np.random.default_rng(2).standard_normal((2, 3, 99, 99))
        with anp.use_backend(name):
            loss, cache = anp.ops.cross_entropy.forward(model(x), np.array([3, 5]))
            dx = model.backward(anp.ops.cross_entropy.backward(1.0, cache))
        results[name] = {"loss": loss, "dx": dx, **{key: p.grad for key, p in model.named_parameters()}}
    for key, expected in results["numpy"].items():
        np.testing.assert_allclose(results[backend][key], expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())
