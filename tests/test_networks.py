"""Every preset as published: beside an independent torch module in float64, on the CPU's two backends, and compiled."""

from __future__ import annotations

import cuda_shim
import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np.backend import implementation, use_backend
from alexnet_np.layers import LocalResponseNorm
from alexnet_np.presets import PRESETS
from alexnet_np.study.torch_net import TorchNet

WIDTH = 1 / 8


def small_input(preset: str, count: int = 2) -> np.ndarray:
    """Of the preset's own channels, as spread as its recipe's pixels are."""
    recipe = PRESETS[preset].preprocessing
    side = (
        recipe.crop if recipe.crop < 100 else recipe.crop - 96
    )  # smaller, with the same remainder of the first stride
    spread = 60 if recipe.scale == 1 else 1
    return spread * np.random.default_rng(0).standard_normal((count, recipe.channels, side, side))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("preset", PRESETS)
def test_forward_and_every_gradient_are_torchs(preset: str, backend: str) -> None:
    model = anp.alexnet(preset, width=WIDTH, num_classes=7, dtype="float64", seed=1, backend=backend).eval()
    x = small_input(preset)
    dy = np.random.default_rng(1).standard_normal((len(x), 7))
    _, _, want = TorchNet(model, "float64").run(x, dy)
    have = {"logits": model(x), "dx": model.backward(dy)}
    have |= {name: parameter.grad for name, parameter in model.named_parameters()}
    assert list(have) == list(want)
    for name, array in want.items():
        np.testing.assert_allclose(have[name], array, rtol=1e-10, atol=1e-10 * np.abs(array).max(), err_msg=name)


@pytest.mark.parametrize("width", [WIDTH, 1 / 2])
@pytest.mark.parametrize("preset", PRESETS)
def test_plan(preset: str, width: float) -> None:
    model = anp.alexnet(preset, width=width, num_classes=7, seed=1).eval()
    x = small_input(preset, 3).astype(np.float32)
    with anp.no_grad():
        want = model.astype("float64")(x.astype(np.float64))
    plan = anp.compile(model.astype("float32"), max_batch=4, size=x.shape[2:])
    np.testing.assert_allclose(plan(x), want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("preset", [name for name in PRESETS if PRESETS[name].lrn])
def test_normalisation_counts(preset: str) -> None:
    """With other constants the logits are others: the layers are not passed over."""
    model = anp.alexnet(preset, width=WIDTH, num_classes=7, seed=1).eval()
    x = small_input(preset).astype(np.float32)
    with anp.no_grad():
        before = model(x)
        for layer in model.features:
            if isinstance(layer, LocalResponseNorm):
                layer.k += 1.0
                layer.convention = "torch"
        assert np.abs(model(x) - before).max() > 1e-3 * np.abs(before).max()


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_cuda_kernels_layer_by_layer(preset: str) -> None:
    """The CUDA sources compiled for the CPU: forward and every gradient in float64."""
    if cuda_shim.compiler() is None:
        pytest.skip("needs g++ to compile the CUDA sources as C++")
    model = anp.alexnet(preset, width=1 / 16, num_classes=7, dtype="float64", seed=1).eval()
    x, dy = small_input(preset, 1), np.random.default_rng(1).standard_normal((1, 7))
    _, _, want = TorchNet(model, "float64").run(x, dy)
    with cuda_shim.as_backend() as name, use_backend(name):
        assert implementation("conv2d", x).__name__ == "alexnet_np.kernels.conv2d_cuda"
        have = {"logits": model(x), "dx": model.backward(dy)}
    have |= {name: parameter.grad for name, parameter in model.named_parameters()}
    for quantity, array in want.items():
        close = {"rtol": 1e-10, "atol": 1e-10 * np.abs(array).max()}
        np.testing.assert_allclose(have[quantity], array, **close, err_msg=quantity)
