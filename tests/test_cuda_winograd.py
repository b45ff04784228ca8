"""Winograd on the GPU: values that are not ordinary, plans that choose it, and what it has no code for."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import cuda_shim
import numpy as np
import pytest
from cuda_shim import ShimExecutor
from cuda_shim.plans import build, images, machine
from oracles import refused

import alexnet_np as anp
from alexnet_np.errors import ArgumentError
from alexnet_np.kernels import choices, conv2d_winograd_cuda
from alexnet_np.kernels.choices import Row
from alexnet_np.kernels.conv2d_winograd_transforms import FAMILIES, transforms
from alexnet_np.kernels.gpu import runtime
from alexnet_np.kernels.gpu.source import HERE
from alexnet_np.ops import conv2d

__all__ = ["machine"]  # a fixture

needs_gpp = pytest.mark.skipif(cuda_shim.compiler() is None, reason="needs g++ to compile the CUDA sources as C++")
ODD = [np.nan, np.inf, -np.inf, 1e4, -3e6, 3e37]


def both(x: np.ndarray, weight: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """By Winograd in float32, and by the array operations in float64."""
    bias, r = np.arange(len(weight), dtype=np.float32), weight.shape[2]
    geometry = conv2d.find_geometry(x, weight, bias, 1, r // 2, 1, x.shape[1] // weight.shape[1])
    with runtime.use_executor(ShimExecutor()), np.errstate(all="ignore"):
        y = conv2d_winograd_cuda.compute(x, weight, bias, geometry, m=m)
    with np.errstate(all="ignore"):
        return y, conv2d.compute(*(a.astype(float) for a in (x, weight, bias)), geometry)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape, dtype=np.float32)


@needs_gpp
@pytest.mark.parametrize(("m", "r"), [(5, 3), (4, 5)])
@pytest.mark.parametrize("odd", ODD)
def test_no_output_shows_what_it_does_not_see(odd: float, m: int, r: int) -> None:
    x, weight = normal(2, 6, 13, 11), normal(4, 3, r, r)  # two groups
    plain, _ = both(x, weight, m)
    x[0, 1, 5, 5] = odd
    y, expected = both(x, weight, m)
    sees = np.zeros(y.shape, bool)
    sees[0, :2, 5 - r // 2 : 6 + r // 2, 5 - r // 2 : 6 + r // 2] = True
    assert np.array_equal(np.isfinite(y), np.isfinite(expected.astype(np.float32)))
    assert np.array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_allclose(y[~sees], plain[~sees], rtol=0, atol=1e-4)
    seen = sees & np.isfinite(expected)
    np.testing.assert_allclose(y[seen], expected[seen], rtol=1e-4, atol=1e-4 * (abs(odd) if np.isfinite(odd) else 1))


@needs_gpp
def test_what_overflows_in_a_transform_alone_is_computed_as_defined() -> None:
    x, weight = normal(1, 3, 9, 9), normal(4, 3, 3, 3)
    x[0, :, :, 4:] *= np.float32(3e36)
    y, expected = both(x, weight, 4)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y[:, :, :, :2], expected[:, :, :, :2], rtol=0, atol=1e-4)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@needs_gpp
def test_a_filter_that_is_not_finite_spoils_its_own_outputs_alone() -> None:
    x, weight = normal(1, 3, 9, 9), normal(4, 3, 3, 3)
    weight[2, 1, 1, 1] = np.inf
    y, expected = both(x, weight, 5)
    assert np.array_equal(np.isnan(y), np.isnan(expected)) and np.isinf(y[:, 2]).all()
    np.testing.assert_allclose(np.delete(y, 2, 1), np.delete(expected, 2, 1), rtol=0, atol=1e-4)


def test_a_plan_goes_by_it_where_choices_say_so(machine: Any) -> None:
    """Inference and training; not where it is to be exact, or in another arithmetic."""
    model, x = build(), images(2)
    double = anp.alexnet(width=1 / 16, num_classes=10, weights=model.state_dict(), dtype="float64").eval()
    with anp.no_grad():
        expected = double(x.astype(float))
    machine.move(model)
    with choices.overriding(Row("winograd", device="gpu", tiles=(5, 3))):
        plan = anp.compile(model, 2, size=99)
        logits = machine.fetch(plan(machine.place(x)))
        exact = anp.compile(model, 2, size=99, exact=True), anp.compile(model, 2, size=99, precision="tf32x3")
        step = anp.compile_training(model.train(), anp.SGD(model.named_parameters(), lr=0.0), 2, 99)
    assert "winograd F(5,3)" in repr(plan) and "winograd F(3,5)" in repr(plan) and "winograd F(5,3)" in repr(step)
    assert not any("winograd" in repr(other) for other in exact)
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


def test_its_matrices_are_those_of_the_cpu() -> None:
    text = (HERE / "conv2d_winograd_matrices.cuh").read_text().replace("\\\n", " ")
    of_points, of_family = text.split("#endif", 1)
    parts = re.split(r"^#(?:el)?if M \+ R == (\d)$", of_points, flags=re.M)[1:]
    inputs = {int(n): matrix for n, matrix in zip(parts[::2], parts[1::2], strict=True)}
    parts = re.split(r"^#(?:el)?if M == (\d) && R == (\d)$", of_family, flags=re.M)[1:]
    found = {(int(m), int(r)): matrices for m, r, matrices in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}
    assert set(found) == set(FAMILIES) and set(inputs) == {m + r for m, r in FAMILIES}
    for (m, r), matrices in found.items():
        lines = re.findall(r"^#define (\w+) (.*)$", matrices + inputs[m + r], flags=re.M)
        assert [name for name, _ in lines] == ["AT", "G", "BT"]
        for (_, written), matrix in zip(lines, transforms(m, r), strict=True):
            rows = [row.split(",") for row in re.findall(r"{([^{}]*)}", written)]
            assert [[Fraction(v.replace(".", "").replace(" ", "")) for v in row] for row in rows] == [
                *map(list, matrix)
            ]


def test_what_it_has_no_code_for_is_named() -> None:
    x, weight = normal(1, 2, 9, 9), normal(2, 2, 3, 3)
    geometry = conv2d.find_geometry(x, weight, None, 1, 1, 1, 1)
    with refused(ArgumentError, r"conv2d_winograd has no F\(3,3\), only F\(5,3\), F\(3,5\)"):
        conv2d_winograd_cuda.compute(x, weight, None, geometry, m=3)
