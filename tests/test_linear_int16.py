"""Dense weights in 16 bits: integers and scales by hand, the layer and whole plans beside float64, what is refused."""

import pickle
import re
from functools import partial

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from numba import config

import alexnet_np as anp
from alexnet_np import threads
from alexnet_np.kernels import linear_int16_numba as short
from alexnet_np.kernels.cpu.simd import INTEGER, POINTER, emit_variants
from alexnet_np.kernels.gemm_numba import WIDTH, padded_width
from alexnet_np.kernels.linear_numba import Shape

ERROR = 5e-5  # L2, relative: rounding to 1/65534 of a block's largest weight leaves 2.3e-5 of normal ones
LOGITS = 1e-4  # largest, relative to the largest logit


def packed(weight):
    N, K = weight.shape
    integers, scales = (np.full(n, 7, t) for n, t in zip(short.room(N, K), (np.int16, np.float32), strict=True))
    with threads.parallel():
        short.pack[-(-N // WIDTH)](weight.reshape(-1), N, K, integers, scales)
    return integers, scales


def dequantised(integers, scales, N, K):
    """(N,K) float64, by array operations."""
    panels, blocks = -(-N // WIDTH), -(-K // short.BLOCK)
    wide = np.repeat(scales.reshape(panels, blocks, WIDTH), short.BLOCK, axis=1)[:, :K].astype(np.float64)
    return (wide * integers.reshape(panels, K, WIDTH)).transpose(0, 2, 1).reshape(-1, K)[:N]


@pytest.mark.parametrize(("N", "K"), [(10, 64), (40, 200), (WIDTH, 1), (70, 63), (33, 130)])
def test_weights_are_rounded_to_a_share_of_their_blocks_largest(N, K):
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((N, K)) * 10.0 ** rng.integers(-5, 5, (N, 1))).astype(np.float32)
    weight[0] = 0
    integers, scales = packed(weight)
    known = dequantised(integers, scales, N, K)
    for first in range(0, K, short.BLOCK):
        block = weight[:, first : first + short.BLOCK]
        step, found = np.abs(block).max(1, keepdims=True) / 32767, known[:, first : first + short.BLOCK]
        small = (np.abs(block) < 0.501 * step) & (block != 0)
        assert (np.abs(found - block) <= np.where(small, 1, 0.501) * step).all()
        assert np.array_equal(np.sign(found), np.sign(block))
    assert integers.max() <= 32767 and integers.min() >= -32767 and not known[0].any()


@pytest.mark.parametrize("M", [1, 2, 3, 4, 5, 12, 13, 40, 49])
@pytest.mark.parametrize(("N", "K"), [(70, 300), (32, 64), (10, 7), (1, 600), (33, 2100)])
def test_the_layer_is_that_of_the_rounded_weights(M, N, K):
    rng = np.random.default_rng(M)
    x, weight = rng.standard_normal((M, K), dtype=np.float32), rng.standard_normal((N, K), dtype=np.float32)
    integers, scales = packed(weight)
    bias = np.zeros(-(-N // WIDTH) * WIDTH, np.float32)
    bias[:N] = rng.standard_normal(N)
    for relu in (False, True):
        ldx, ldy = padded_width(K), padded_width(N)
        rows, y = np.full((M, ldx), np.nan, np.float32), np.full((M, ldy), np.nan, np.float32)
        rows[:, :K] = x
        short.forward(rows.reshape(-1), integers, scales, bias, relu, y.reshape(-1), Shape(M, N, K, ldx, ldy))
        expected = x @ dequantised(integers, scales, N, K).T + bias[:N]
        true = x.astype(np.float64) @ weight.T + bias[:N]
        if relu:
            expected, true = np.maximum(expected, 0), np.maximum(true, 0)
        np.testing.assert_allclose(y[:, :N], expected, rtol=0, atol=2e-6 * np.sqrt(K) * 3)
        assert np.linalg.norm(y[:, :N] - true) < ERROR * np.linalg.norm(x) * np.linalg.norm(weight) / np.sqrt(K) + 1e-6


@pytest.mark.parametrize("M", [1, 4, 5, 13, 49])
def test_an_infinity_and_nan_stay_in_their_rows(M):
    """A weight that rounds to nothing keeps its sign: zero times infinity is none."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((M, 130), dtype=np.float32), rng.standard_normal((40, 130), dtype=np.float32)
    weight[:, 7] *= 1e-6
    plain = x.copy()
    x[0, 7], x[M // 2, 9] = np.inf, x[M // 2, 9] if M < 3 else np.nan
    integers, scales = packed(weight)
    found = []
    for given in (plain, x):
        rows, y = np.zeros((M, padded_width(130)), np.float32), np.zeros((M, padded_width(40)), np.float32)
        rows[:, :130] = given
        shape, bias = Shape(M, 40, 130, *(a.shape[1] for a in (rows, y))), np.zeros(2 * 40, np.float32)
        short.forward(rows.reshape(-1), integers, scales, bias, False, y.reshape(-1), shape)
        found.append(y[:, :40])
    expected = x.astype(float) @ weight.T.astype(float)
    assert np.array_equal(np.isnan(found[1]), np.isnan(expected)) and np.isinf(found[1][0]).all()
    assert np.array_equal(np.sign(found[1][0]), np.sign(expected[0]))
    ordinary = np.isfinite(expected)
    assert np.array_equal(found[1][ordinary], found[0][ordinary])


def assembly(name, kinds, emit):
    """What the vector library makes of a function, as text."""
    source = ir.Module(name)
    features = llvm.get_host_cpu_features().flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=config.CPU_NAME or llvm.get_host_cpu_name(), features=features, opt=3
    )
    source.triple, source.data_layout = machine.triple, str(machine.target_data)
    emit_variants(source, name, kinds, {1: emit})
    module = llvm.parse_assembly(str(source))
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    return machine.emit_assembly(module)


def test_it_is_vector_code():
    """Sixteen bits become floats in registers: no integer is taken out of a vector, and nothing is spilled."""
    kinds = (POINTER, INTEGER, POINTER, POINTER, POINTER, INTEGER, INTEGER)
    text = assembly("few", kinds, partial(short.emit_few, rows=1))
    if "zmm" not in text and "ymm" not in text:
        pytest.skip("not an x86 processor with AVX2")
    inner = [block for block in re.split(r"^\.?\w+:", text, flags=re.M) if "vpmovsxwd" in block]
    assert inner and all("vcvtdq2ps" in block and "vfmadd" in block for block in inner)
    assert not any("vpextr" in block for block in inner)


@pytest.fixture(scope="module")
def model():
    return anp.alexnet(width=0.25, num_classes=10, seed=0).eval()


def images(N):
    return np.random.default_rng(N).standard_normal((N, 3, 224, 224), dtype=np.float32)


def test_a_plan_with_16_bits_is_close_half_as_large_and_says_so(model):
    plain, half = anp.compile(model, max_batch=5), anp.compile(model, max_batch=5, dense="int16")
    double = anp.alexnet(width=0.25, num_classes=10, weights=model.state_dict(), dtype="float64").eval()
    for N in (1, 5):
        x = images(N)
        with anp.no_grad():
            true = double(x.astype(np.float64))
        got = half(x)
        assert np.abs(got - plain(x)).max() > 0
        assert np.abs(got - true).max() < LOGITS * np.abs(true).max()
    assert "dense int16" in repr(half) and "packed gemm, int16" in repr(half) and "int16" not in repr(plain)
    sizes = [sum(step.packed_bytes for step in plan._program.rows) for plan in (half, plain)]
    assert 0.5 < sizes[0] / sizes[1] < 0.54


def test_twins_copies_and_refresh_keep_the_16_bits(model):
    plan, x = anp.compile(model, max_batch=2, dense="int16"), images(2)
    expected = plan(x)
    for other in (plan.twin(), pickle.loads(pickle.dumps(plan))):
        assert np.array_equal(other(x), expected) and "int16" in repr(other)
    last = model.classifier[-1].weight
    before = last.data.copy()
    last.data *= 2
    assert np.array_equal(plan(x), expected)
    plan.refresh()
    assert not np.array_equal(plan(x), expected)
    last.data[...] = before


@pytest.mark.parametrize("dense", ["int8", "float16", None, 16])
def test_other_ways_to_store_are_refused_in_one_line(model, dense):
    with pytest.raises(anp.ArgumentError, match="compile: unknown dense .*: choose one of float32, int16$") as error:
        anp.compile(model, dense=dense)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(odd):
    model = anp.alexnet(width=0.1, num_classes=10, seed=0).eval()
    model.classifier[-1].weight.data[3, 5] = odd
    with pytest.raises(anp.ArgumentError, match=r"classifier\.6\.weight .* not finite"):
        anp.compile(model, max_batch=1, dense="int16")
