"""Every CUDA kernel against the array operations, run on the CPU: the same source, launchers, grids and arguments.

Tolerances: a float32 result may differ from the array operations in float64 by 3e-6 of the largest value (a few hundred
rounding errors of sums in another order), a float64 one by 1e-13. Where only comparisons and copies happen, by nothing.
"""

from __future__ import annotations

import cuda_shim
import numpy as np
import pytest
from cuda_shim import ORDERS, ShimExecutor, global_functions
from cuda_shim.cases import (
    DROPPED,
    NORMALISATION,
    PIXELS,
    POOLING,
    ROWS,
    SEED,
    SGD_CASES,
    SHORT,
    TARGETS,
    WORDS,
    launch_everything,
    run_plan_kernels,
    run_sgd,
)
from oracles import refused

from alexnet_np import ops
from alexnet_np.data import preprocess
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.errors import ArgumentError, DtypeError, ShapeError
from alexnet_np.kernels import (
    choices,
    conv2d_cuda,
    conv2d_direct_cuda,
    conv2d_im2col_cuda,
    conv2d_implicit_cuda,
    linear_cuda,
    local_response_norm_cuda,
    preprocess_cuda,
    relu_cuda,
)
from alexnet_np.kernels.gemm_cuda import matmul_precision
from alexnet_np.kernels.gpu import runtime
from alexnet_np.kernels.gpu.upload import upload
from alexnet_np.kernels.problems import LIMITS, Problem
from alexnet_np.kernels.variants import Variant, find, using
from alexnet_np.measure.cuda_cases import CASES, Case, cuda_versions, normal, rounding, run_case
from alexnet_np.ops import conv2d, sgd
from alexnet_np.ops.sgd import Step

pytestmark = pytest.mark.skipif(cuda_shim.compiler() is None, reason="needs g++ to compile the CUDA sources as C++")

TOLERANCE = {"float32": 3e-6, "float64": 1e-13}
EXACT = {"max_pool2d", "relu", "dropout"}
PAIRS = [(case, variant) for case in CASES for variant in cuda_versions(case.op)]


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float, what: str) -> None:
    assert actual.shape == expected.shape, what
    finite = np.abs(expected[np.isfinite(expected)]) if expected.size else expected
    scale = finite.max() if finite.size else 1.0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=what)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("case", "variant"), PAIRS, ids=[f"{c.op}-{v.name}-{c.name}" for c, v in PAIRS])
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
def test_a_kernel_agrees_with_the_array_operations_in_every_order(case: Case, variant: Variant, dtype: str) -> None:
    with np.errstate(all="ignore"):
        expected = run_case(case, dtype if case.op in EXACT else "float64")
    results = {}
    for order in ORDERS:
        with runtime.use_executor(ShimExecutor(order)), using(variant):
            results[order] = run_case(case, dtype)
    for key, value in expected.items():
        actual = results["forward"][key]
        if case.op in EXACT:
            assert actual.dtype == value.dtype
            np.testing.assert_array_equal(actual, value, err_msg=key)
        else:
            assert actual.dtype == np.dtype(dtype)
            assert_close(actual, value, TOLERANCE[dtype] * rounding(variant), key)
        for order, outputs in results.items():
            assert outputs[key].tobytes() == actual.tobytes(), f"{key}: another result with threads in {order} order"


@pytest.fixture
def shim() -> ShimExecutor:
    executor = ShimExecutor()
    with runtime.use_executor(executor):
        yield executor


def test_every_kernel_of_every_file_runs(shim: ShimExecutor) -> None:
    with np.errstate(all="ignore"):
        launch_everything()
    written = {(stem, kernel) for stem, text in cuda_shim.sources().items() for kernel in global_functions(text)}
    assert written == {(kernel.stem, kernel.name) for kernel in shim.launched}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", SGD_CASES, ids=str)
def test_sgd(shim: ShimExecutor, options: dict, dtype: str) -> None:
    parameter, velocity = run_sgd(options, dtype)
    w, v = normal(300), np.zeros(300)
    for i in range(3):
        sgd.compute(w, normal(300 + i)[i:], v if "momentum" in options else None, Step(**options, first=i == 0))
    assert_close(parameter, w, TOLERANCE[dtype], "parameter")
    if "momentum" in options:
        assert_close(velocity, v, TOLERANCE[dtype], "velocity")
    else:
        assert np.isnan(velocity).all(), "a velocity was written though there is no momentum"


def expected_of_plan_kernels(dtype: str) -> dict[str, np.ndarray]:
    """By the array operations; normalisation, copies and choices in the dtype itself, the rest in float64."""
    scale, mean, std = NORMALISATION
    recipe = Preprocessing(8, 8, "RGB", scale, mean, std)
    N, H, W, C = PIXELS.shape
    x, logits = normal(3, 341).astype(dtype), normal(6, 300)
    losses, dlogits = np.full(6, np.nan), np.zeros((6, 300))
    valid = (TARGETS >= 0) & (TARGETS < 300)
    loss, cache = ops.cross_entropy.forward(logits[valid], TARGETS[valid], reduction="none", label_smoothing=0.1)
    losses[valid], dlogits[valid] = loss / 6, ops.cross_entropy.backward(np.full(valid.sum(), 1 / 6), cache)
    pooled, _ = ops.max_pool2d.forward(normal(2, 2, 9, 10).astype(dtype), **POOLING)
    parameter, velocity = run_sgd(SGD_CASES[-1], dtype)
    return expected_of_int16(dtype) | {
        "normalised": preprocess.normalise(PIXELS, recipe, np.empty((N, C, H, W), dtype)),
        "normalised, BGR": preprocess.normalise(PIXELS, recipe._replace(mode="BGR"), np.empty((N, C, H, W), dtype)),
        "words": WORDS,
        "dropped": ops.dropout.forward(x, p=DROPPED, seed=SEED)[0],
        "parameter": parameter,
        "velocity": velocity,
        "losses": losses,
        "dlogits": dlogits,
        "pooled": pooled,
    }


def expected_of_int16(dtype: str) -> dict[str, np.ndarray]:
    """The integers and scales by array operations, the layer by what they stand for."""
    found = {}
    for weight in SHORT:
        F, K = weight.shape
        blocks = [weight[:, first : first + 64].astype(dtype) for first in range(0, K, 64)]
        scales = np.stack([np.abs(block).max(1) / np.asarray(32767, dtype) for block in blocks], 1)
        integers = [np.rint(block / scales[:, i, None]) for i, block in enumerate(blocks)]
        integers = [np.where(n == 0, np.sign(block), n) for n, block in zip(integers, blocks, strict=True)]
        known = np.concatenate([scales[:, i, None].astype(float) * n for i, n in enumerate(integers)], 1)
        found |= {f"integers {K}": np.concatenate(integers, 1).astype(np.int16), f"scales {K}": scales}
        for way, N in ROWS.items():
            y = normal(N, K).astype(dtype) @ known.T + normal(F)
            found[f"int16 {K} {way}"] = np.maximum(y, 0) if way == "rows" else y
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_only_plans_launch(dtype: str) -> None:
    results = {}
    for order in ORDERS:
        with runtime.use_executor(ShimExecutor(order)):
            results[order] = run_plan_kernels(dtype)
            expected = expected_of_plan_kernels(dtype)
    for key, value in expected.items():
        actual = results["forward"][key]
        if key in ("losses", "dlogits") or key.startswith("int16"):
            np.testing.assert_array_equal(np.isnan(actual), np.isnan(value))
            assert_close(np.nan_to_num(actual), np.nan_to_num(value), TOLERANCE[dtype], key)
        else:
            assert actual.dtype == value.dtype
            np.testing.assert_array_equal(actual, value, err_msg=key)
        for order, outputs in results.items():
            assert outputs[key].tobytes() == actual.tobytes(), f"{key}: another result with threads in {order} order"


def test_uploaded_words_may_change_at_once(shim: ShimExecutor) -> None:
    words, to = WORDS[::2].copy(), np.zeros(len(WORDS[::2]), np.uint64)
    upload(words, to)
    words[:] = 0
    np.testing.assert_array_equal(to, WORDS[::2])


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (PIXELS.astype(np.float32), DtypeError, "normalise: pixels must be uint8, got float32"),
        (PIXELS[0], ShapeError, r"normalise: pixels must be \(N,H,W,C\).*got \(5, 7, 3\)"),
        (PIXELS[..., :2], ShapeError, r"the channels of mean \(3\) and std \(3\) and at most 4, got \(2, 5, 7, 2\)"),
    ],
)
def test_pixels_that_cannot_be_normalised(shim: ShimExecutor, pixels: np.ndarray, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        preprocess_cuda.compute(pixels, *NORMALISATION)


@pytest.mark.parametrize("compute", [conv2d_cuda.compute, conv2d_direct_cuda.compute, conv2d_implicit_cuda.compute])
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_with_relu_fused(shim: ShimExecutor, compute: object, bias: bool) -> None:
    x, weight = normal(2, 4, 9, 9), normal(6, 2, 3, 3)
    b = normal(6) if bias else None
    geometry = conv2d.find_geometry(x, weight, b, 2, 1, 1, 2)
    expected = np.maximum(conv2d.compute(x, weight, b, geometry), 0)
    assert_close(compute(x, weight, b, geometry, relu=True), expected, 1e-13, "y")


@pytest.mark.parametrize("bias", [True, False])
def test_dense_layer_with_relu_fused(shim: ShimExecutor, bias: bool) -> None:
    x, weight, b = normal(5, 7), normal(9, 7), normal(9) if bias else None
    expected = np.maximum(ops.linear.compute(x, weight, b), 0)
    assert_close(linear_cuda.compute(x, weight, b, relu=True), expected, 1e-13, "y")


def test_fused_relu_lets_nan_through(shim: ShimExecutor) -> None:
    y = linear_cuda.compute(np.array([[np.nan, 1.0]]), np.eye(2), np.zeros(2), relu=True)
    assert np.isnan(y).all()


@pytest.mark.parametrize("op", ["conv2d", "max_pool2d", "local_response_norm", "linear", "softmax"])
def test_wide_indices(monkeypatch: pytest.MonkeyPatch, shim: ShimExecutor, op: str) -> None:
    monkeypatch.setattr(runtime, "LONG", 1)
    case = next(c for c in CASES if c.op == op)
    expected = run_case(case, "float64")
    with using(find(op, "cuda")):
        actual = run_case(case, "float64")
    assert {dict(kernel.defines)["INDEX"] for kernel in shim.launched} == {"long long"}
    for key, value in expected.items():
        assert_close(actual[key], value, 1e-13, key)


def test_columns_are_built_for_slices_of_the_batch(monkeypatch: pytest.MonkeyPatch, shim: ShimExecutor) -> None:
    case = Case("conv2d", "", (normal(7, 3, 8, 8), normal(4, 3, 3, 3), normal(4)), {})
    expected = run_case(case, "float64")
    image = 27 * 36 * 8  # bytes of one image's columns
    row = choices.Row(device="gpu", column_bytes=3 * image)
    with choices.overriding(row), using(find("conv2d", "cuda")):
        actual = run_case(case, "float64")
        widths = []
        monkeypatch.setattr(conv2d_im2col_cuda, "gemm", lambda a, b, out, **_: widths.append(out.shape[2]))
        run_case(case, "float64")
    assert max(widths) == 3 * 36
    for key, value in expected.items():
        assert_close(actual[key], value, 1e-13, key)


def test_only_the_gradients_asked_for(shim: ShimExecutor) -> None:
    x, weight, dy = normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(2, 4, 3, 3)
    geometry = conv2d.find_geometry(x, weight, None, 1, 0, 1, 1)
    for needs in [(True, False, False), (False, True, False), (False, False, True), (False, False, False)]:
        got = conv2d_cuda.gradients(dy, x, weight, geometry, needs)
        assert tuple(g is not None for g in got) == needs
        got = linear_cuda.gradients(normal(2, 4), normal(2, 3), normal(4, 3), needs)
        assert tuple(g is not None for g in got) == needs


def test_every_way_that_the_table_names_can_be_forced(shim: ShimExecutor) -> None:
    """Each runs kernels of its own, and all agree: a name in the table that led nowhere would show here."""
    x, weight, size = normal(5, 4, 9, 9), normal(6, 4, 3, 3), 3
    conv = conv2d.find_geometry(x, weight, None, 1, 1, 1, 1)
    norm = ops.local_response_norm.find_geometry(size, 1.0, 0.75, 1.0, "torch")
    flat, dense = normal(5, 36), normal(7, 36)
    calls = {
        Problem("conv2d", "gpu", dtype="float64", kernel=3): lambda: conv2d_cuda.compute(x, weight, None, conv),
        Problem("linear", "gpu", dtype="float64"): lambda: linear_cuda.compute(flat, dense, None),
        Problem("local_response_norm", "gpu"): lambda: local_response_norm_cuda.compute(x.reshape(5, 4, 81), norm),
    }
    for problem, call in calls.items():
        expected, ran = call(), []
        ways = choices.ways(problem)
        for way in ways:
            shim.launched.clear()
            tiles = {"tiles": (way.m,)} if way.m else {}
            with choices.overriding(choices.Row(way.algorithm, problem.op, "gpu", **tiles)):
                assert_close(call(), expected, 1e-12 if tiles else 1e-13, str(way))
            ran.append(set(shim.launched))
        assert {way.algorithm for way in ways} == set(LIMITS[problem.op, "gpu"])
        assert len({frozenset(names) for names in ran}) == len(ways), ran


def test_sizes_come_from_the_table(shim: ShimExecutor) -> None:
    x, weight = normal(2, 4, 9, 9), normal(6, 4, 3, 3)
    geometry = conv2d.find_geometry(x, weight, None, 1, 1, 1, 1)
    row, implicit = choices.Row(device="gpu", tile=128), choices.Row("implicit", device="gpu")
    with choices.overriding(implicit):
        conv2d_cuda.compute(x, weight, None, geometry)
        with choices.overriding(row):
            conv2d_cuda.compute(x, weight, None, geometry)
        with (
            choices.overriding(choices.Row(device="gpu", tile=32)),
            refused(ArgumentError, "tiles of 64 and 128, not 32"),
        ):
            conv2d_cuda.compute(x, weight, None, geometry)
    assert {dict(kernel.defines)["TILE"] for kernel in shim.launched} == {"64", "128"}


@pytest.mark.parametrize("view", ["channels last", "every other", "reversed", "misaligned"])
def test_any_memory_layout(shim: ShimExecutor, view: str) -> None:
    x = {
        "channels last": normal(2, 8, 8, 4).transpose(0, 3, 1, 2),
        "every other": normal(2, 4, 16, 8)[:, :, ::2],
        "reversed": normal(2, 4, 8, 8)[..., ::-1],
        "misaligned": normal(1 + 2 * 4 * 8 * 8)[1:].reshape(2, 4, 8, 8),
    }[view]
    weight = normal(3, 3, 4, 6).transpose(3, 2, 0, 1)
    dy = normal(2, 8, 8, 6).transpose(0, 3, 1, 2)
    geometry = conv2d.find_geometry(x, weight, None, 1, 1, 1, 1)
    for module in (conv2d_cuda, conv2d_implicit_cuda):
        assert_close(module.compute(x, weight, None, geometry), conv2d.compute(x, weight, None, geometry), 1e-13, "y")
    got = conv2d_cuda.gradients(dy, x, weight, geometry, (True, True, True))
    for a, b in zip(got, conv2d.gradients(dy, x, weight, geometry, (True, True, True)), strict=True):
        assert_close(a, b, 1e-13, view)
    np.testing.assert_array_equal(relu_cuda.compute(x), np.maximum(x, 0))


@pytest.mark.parametrize(
    ("precision", "least", "most"), [("strict", 0, 3e-7), ("tf32", 1e-4, 2e-3), ("tf32x3", 0, 5e-7)]
)
def test_precision_governs_the_products(shim: ShimExecutor, precision: str, least: float, most: float) -> None:
    """The stand-in for cuBLAS cuts operands as tensor cores do, so "tf32" must show and "tf32x3" must not."""
    x, weight = normal(3, 64, 9, 9), normal(8, 64, 3, 3)
    geometry = conv2d.find_geometry(x, weight, None, 1, 1, 1, 1)
    expected = conv2d.compute(x, weight, None, geometry)
    with matmul_precision(precision):
        y = conv2d_cuda.compute(x.astype(np.float32), weight.astype(np.float32), None, geometry)
    error = np.sqrt(np.mean((y - expected) ** 2)) / expected.std()
    assert least <= error <= most


def test_a_row_of_the_table_governs_the_products_too(shim: ShimExecutor) -> None:
    """And `matmul_precision` comes before it."""
    x, weight = normal(5, 64).astype(np.float32), normal(8, 64).astype(np.float32)
    strict = linear_cuda.compute(x, weight, None)
    with choices.overriding(choices.Row("tf32", "gemm", "gpu")):
        assert np.abs(linear_cuda.compute(x, weight, None) - strict).max() > 1e-5
        with matmul_precision("strict"):
            np.testing.assert_array_equal(linear_cuda.compute(x, weight, None), strict)


def test_tf32x3_of_extreme_values(shim: ShimExecutor) -> None:
    """Values near the largest float32 must not be rounded up to infinity, and NaN stays in its row."""
    x = np.array([[3.4025e38, 0, 0], [np.inf, 1, 0], [0, np.nan, 2], [1e-30, 1, 0]], np.float32)
    with matmul_precision("tf32x3"):
        y = linear_cuda.compute(x, np.eye(3, dtype=np.float32)[:1], None)
    np.testing.assert_allclose(y[0, 0], 3.4025e38, rtol=1e-6)
    assert np.isinf(y[1, 0]) or np.isnan(y[1, 0])
    assert np.isnan(y[2, 0])
    np.testing.assert_allclose(y[3, 0], 1e-30, rtol=1e-6)
