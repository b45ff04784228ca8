import numpy as np
import pytest
from oracles import check_op, device_of, implementations, refused, run, strided, to_device, to_host, using

from alexnet_np import ops
from alexnet_np.errors import ArgumentError, ShapeError
from alexnet_np.random import uniform

backend = implementations("dropout")


def with_mask(x, p, mask):
    """torch draws masks of its own, so this is its formula with ours."""
    return x * mask / (1 - p)


@pytest.mark.parametrize("shape", [(), (7,), (4, 9), (2, 3, 4, 5), (0, 3)])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5])
def test_agrees_with_torch_under_a_given_mask(backend, rng, shape, p):
    keywords = {"p": p, "mask": np.asarray(rng.random(shape) < 0.6)}
    x = np.asarray(rng.standard_normal(shape))
    check_op(ops.dropout, [x], keywords, implementation=backend, reference=with_mask)


def test_any_memory_layout(backend, rng):
    keywords = {"p": 0.3, "mask": rng.random((3, 4, 5)) < 0.6}
    x = rng.standard_normal((3, 4, 5))
    check_op(ops.dropout, [x], keywords, implementation=backend, reference=with_mask, layout=strided)


def test_any_memory_layout_draws_the_same_mask(backend, rng):
    x = rng.standard_normal((4, 6))
    plain, _ = run(ops.dropout, [x], {"seed": 3}, x, backend)
    assert np.array_equal(plain, run(ops.dropout, [x], {"seed": 3}, x, backend, layout=strided)[0])


def test_answer_computed_by_hand(backend):
    keywords = {"p": 0.75, "mask": np.array([True, False, True])}
    y, dx = run(ops.dropout, [np.array([1.0, 2.0, -3.0])], keywords, np.array([1.0, 1.0, 2.0]), backend)
    assert y.tolist() == [4, 0, -12]
    assert dx.tolist() == [4, 0, 8]


def test_evaluation_is_the_identity_but_a_copy(backend, rng):
    x = rng.standard_normal((3, 4))
    y, dx = run(ops.dropout, [x], {"p": 0.7, "training": False}, 2 * x, backend)
    assert np.array_equal(y, x) and np.array_equal(dx, 2 * x)
    assert not np.shares_memory(ops.dropout.forward(x, training=False)[0], x)


def test_p_of_0_keeps_and_p_of_1_drops_everything(backend, rng):
    x = rng.standard_normal((3, 4))
    y, dx = run(ops.dropout, [x], {"p": 0.0, "seed": 1}, x, backend)
    assert np.array_equal(y, x) and np.array_equal(dx, x)
    y, dx = run(ops.dropout, [x], {"p": 1.0, "seed": 1}, x, backend)
    assert not y.any() and not dx.any()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_mask_has_the_right_share_and_no_pattern(backend, p):
    n = 1 << 16
    _, cache = forward(backend, np.ones(n, "float32"), p=p, seed=5)
    mask = to_host(cache.mask)
    deviation = np.sqrt(p * (1 - p) / n)
    assert abs(mask.mean() - (1 - p)) < 5 * deviation
    for lag in (1, 2, 3, 4, 8, 1024):  # words of one Philox block, neighbouring blocks, rows
        correlation = np.corrcoef(mask[:-lag], mask[lag:])[0, 1]
        assert abs(correlation) < 5 / np.sqrt(n)


def test_expectation_is_kept(backend):
    y, _ = forward(backend, np.ones(1 << 16), p=0.3, seed=9)
    assert abs(to_host(y).mean() - 1) < 5 * np.sqrt(0.3 / 0.7 / y.size)


def test_same_seed_same_mask_on_every_backend(backend):
    x = np.ones((3, 5, 7), "float32")
    _, cache = forward(backend, x, p=0.4, seed=11)
    assert np.array_equal(to_host(cache.mask), (uniform(x.size, 11) >= np.float32(0.4)).reshape(x.shape))
    _, other = forward(backend, x, p=0.4, seed=12)
    assert not np.array_equal(to_host(cache.mask), to_host(other.mask))


def test_precision_does_not_change_the_mask(backend):
    masks = [to_host(forward(backend, np.ones(1000, t), p=0.5, seed=2)[1].mask) for t in ("float32", "float64")]
    assert np.array_equal(*masks)


def forward(backend, x, **keywords):
    with using(ops.dropout, backend):
        return ops.dropout.forward(to_device(x, device_of(backend)), **keywords)


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"p": 1.5, "seed": 0}, ArgumentError, "p must be between 0 and 1, got 1.5"),
        ({"p": -0.1, "seed": 0}, ArgumentError, "p must be between 0 and 1"),
        ({"p": float("nan"), "seed": 0}, ArgumentError, "p must be between 0 and 1"),
        ({}, ArgumentError, "in training give seed=<int> or mask="),
        ({"seed": 1.5}, ArgumentError, "seed must be an int, got 1.5"),
        ({"mask": np.ones(4, bool)}, ShapeError, r"mask has shape \(4,\), x has \(3,\)"),
    ],
)
def test_refuses(keywords, error, match):
    with refused(error, match):
        ops.dropout.forward(np.zeros(3), **keywords)
