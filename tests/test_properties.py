"""Shapes and arguments that nobody thought of, beside torch in float64. Precision and layouts are the ops' own tests'.

The examples are the same on every run: a failure is the change's, not the dice's.
"""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from oracles import FLOAT64, assert_close, run, run_torch
from torch.nn import functional

from alexnet_np import ops
from alexnet_np.ops import max_pool2d

EXAMPLES = settings(
    max_examples=60,
    deadline=None,  # the first example compiles the kernels
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)

sizes = st.integers(1, 12)
seeds = st.integers(0, 2**32)


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


def agree(op, arrays, keywords, backend):
    """Forward and every gradient, for a random dy."""
    name = op.__name__.rpartition(".")[2]
    truth, dy = run_torch(getattr(functional, name), arrays, keywords, None, np.float64)
    for i, (got, want) in enumerate(zip(run(op, arrays, keywords, dy, backend), truth, strict=False)):
        if got is None:
            assert want is None  # the gradient of a missing bias
        else:
            assert_close(f"{name} {backend}, {'y' if i == 0 else f'gradient {i - 1}'}, {keywords}", got, want, FLOAT64)


@EXAMPLES
@given(st.data(), seeds)
def test_conv2d(backend, data, seed):
    rng = np.random.default_rng(seed)
    groups, CG, FG = (data.draw(st.integers(1, 3)) for _ in range(3))
    N, (H, W), kernel = data.draw(st.integers(0, 3)), data.draw(st.tuples(sizes, sizes)), data.draw(pairs(1, 5))
    keywords = {"dilation": data.draw(pairs(1, 3)), "groups": groups}
    keywords["padding"] = data.draw(st.one_of(pairs(0, 4), st.sampled_from(["same", "valid"])))
    keywords["stride"] = (1, 1) if keywords["padding"] == "same" else data.draw(pairs(1, 4))
    margins = (0, 0) if isinstance(keywords["padding"], str) else keywords["padding"]
    if keywords["padding"] != "same":
        assume(H + 2 * margins[0] > keywords["dilation"][0] * (kernel[0] - 1))
        assume(W + 2 * margins[1] > keywords["dilation"][1] * (kernel[1] - 1))
    x, weight = rng.standard_normal((N, groups * CG, H, W)), rng.standard_normal((groups * FG, CG, *kernel))
    bias = rng.standard_normal(groups * FG) if data.draw(st.booleans()) else None
    agree(ops.conv2d, [x, weight, bias], keywords, backend)


@EXAMPLES
@given(st.data(), seeds)
def test_max_pool2d(backend, data, seed):
    rng = np.random.default_rng(seed)
    shape = (data.draw(st.integers(0, 3)), data.draw(st.integers(1, 3)), *data.draw(st.tuples(sizes, sizes)))
    kernel, dilation = data.draw(pairs(1, 5)), data.draw(pairs(1, 3))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    keywords = {"kernel_size": kernel, "stride": data.draw(st.one_of(st.none(), pairs(1, 6))), "padding": padding}
    keywords |= {"dilation": dilation, "ceil_mode": data.draw(st.booleans())}
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(size + 2 * p >= span for size, p, span in zip(shape[2:], padding, spans, strict=True)))
    x = rng.integers(-4, 4, shape).astype(float) if data.draw(st.booleans()) else rng.standard_normal(shape)
    geometry = max_pool2d.find_geometry(x, **keywords)
    first = max_pool2d.first_pixels(geometry, np).astype(int)
    rows = np.arange(geometry.output[0]) * geometry.stride[0] - padding[0] + first[:, 0] // kernel[1] * dilation[0]
    columns = np.arange(geometry.output[1]) * geometry.stride[1] - padding[1] + first[0] % kernel[1] * dilation[1]
    assume(rows.max() < shape[2] and columns.max() < shape[3])  # else torch writes beside the image
    agree(ops.max_pool2d, [x], keywords, backend)


@EXAMPLES
@given(st.data(), seeds)
def test_avg_pool2d(backend, data, seed):
    shape = (data.draw(st.integers(0, 3)), data.draw(st.integers(1, 3)), *data.draw(st.tuples(sizes, sizes)))
    kernel = data.draw(pairs(1, 5))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    keywords = {"kernel_size": kernel, "stride": data.draw(st.one_of(st.none(), pairs(1, 6))), "padding": padding}
    keywords |= {"ceil_mode": data.draw(st.booleans()), "count_include_pad": data.draw(st.booleans())}
    keywords["divisor_override"] = data.draw(st.sampled_from([None, None, 1, 7, -3]))
    assume(all(size + 2 * p >= k for size, p, k in zip(shape[2:], padding, kernel, strict=True)))
    agree(ops.avg_pool2d, [np.random.default_rng(seed).standard_normal(shape)], keywords, backend)


@EXAMPLES
@given(
    st.lists(st.integers(1, 6), min_size=3, max_size=5),
    st.integers(1, 9),
    st.floats(0.01, 3),
    st.sampled_from([0.5, 0.75, 1.0, 1.3]),
    st.floats(0.5, 3),
    seeds,
)
def test_local_response_norm(backend, shape, size, alpha, beta, k, seed):
    x = np.random.default_rng(seed).standard_normal(shape)
    agree(ops.local_response_norm, [x], {"size": size, "alpha": alpha, "beta": beta, "k": k}, backend)


@EXAMPLES
@given(
    st.tuples(st.integers(0, 2), st.integers(1, 3), sizes, sizes),
    st.tuples(*[st.one_of(st.none(), st.integers(1, 15))] * 2),
    seeds,
)
def test_adaptive_avg_pool2d(backend, shape, output_size, seed):
    x = np.random.default_rng(seed).standard_normal(shape)
    agree(ops.adaptive_avg_pool2d, [x], {"output_size": output_size}, backend)


@EXAMPLES
@given(st.data(), seeds)
def test_cross_entropy(backend, data, seed):
    rng = np.random.default_rng(seed)
    C, rows = data.draw(st.integers(1, 6)), data.draw(st.lists(st.integers(1, 4), max_size=3))
    shape = (rows[0], C, *rows[1:]) if rows else (C,)
    keywords = {"reduction": data.draw(st.sampled_from(["mean", "sum", "none"]))}
    keywords["label_smoothing"] = data.draw(st.sampled_from([0.0, 0.1, 1.0]))
    keywords["weight"] = 0.1 + rng.random(C) if data.draw(st.booleans()) else None
    if data.draw(st.booleans()):
        target = np.asarray(rng.integers(0, C, rows))
        keywords["ignore_index"] = data.draw(st.sampled_from([-100, 0, C]))
    else:
        target = rng.random(shape)
    agree(ops.cross_entropy, [3 * rng.standard_normal(shape), target], keywords, backend)


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
@EXAMPLES
@given(shape=st.lists(st.integers(1, 5), max_size=4), dim=st.integers(-4, 3), scale=st.floats(0, 3), seed=seeds)
def test_softmax(backend, op, shape, dim, scale, seed):
    rank = max(1, len(shape))
    x = np.asarray(scale * np.random.default_rng(seed).standard_normal(shape))
    agree(op, [x], {"dim": (dim + 4) % (2 * rank) - rank}, backend)


@EXAMPLES
@given(st.lists(st.integers(0, 4), max_size=3), st.integers(1, 9), st.integers(1, 9), st.booleans(), seeds)
def test_linear(backend, rows, units_in, units_out, has_bias, seed):
    rng = np.random.default_rng(seed)
    bias = rng.standard_normal(units_out) if has_bias else None
    arrays = [rng.standard_normal((*rows, units_in)), rng.standard_normal((units_out, units_in)), bias]
    agree(ops.linear, arrays, {}, backend)
