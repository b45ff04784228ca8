import numpy as np
import pytest
from oracles import check_op, implementations, refused, run, strided

from alexnet_np import ops
from alexnet_np.errors import ArgumentError, DtypeError, ShapeError

backend = implementations("cross_entropy")

SHAPES = [(5,), (7, 5), (3, 5, 4), (2, 5, 3, 4)]


def indices(rng, shape, ignored=0.0):
    """Random classes for logits of `shape`, some of them -100."""
    rows = () if len(shape) == 1 else (shape[0], *shape[2:])
    target = np.asarray(rng.integers(0, shape[0 if len(shape) == 1 else 1], rows))
    return np.where(rng.random(rows) < ignored, -100, target)


def probabilities(rng, shape):
    p = rng.random(shape)
    return p / p.sum(0 if len(shape) == 1 else 1, keepdims=True)


REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
SMOOTHINGS = pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
WEIGHTS = pytest.mark.parametrize("weight", [None, np.array([0.5, 2.0, 0.0, 1.0, 1.5])], ids=["", "weights"])


@pytest.mark.parametrize("shape", SHAPES)
@REDUCTIONS
@SMOOTHINGS
@WEIGHTS
def test_class_indices(backend, rng, shape, reduction, smoothing, weight):
    keywords = {"reduction": reduction, "label_smoothing": smoothing, "weight": weight}
    target = np.asarray(1) if len(shape) == 1 else indices(rng, shape, ignored=0.3)
    check_op(ops.cross_entropy, [rng.standard_normal(shape), target], keywords, implementation=backend)


@pytest.mark.parametrize("shape", SHAPES)
@REDUCTIONS
@SMOOTHINGS
@WEIGHTS
def test_probabilities(backend, rng, shape, reduction, smoothing, weight):
    keywords = {"reduction": reduction, "label_smoothing": smoothing, "weight": weight}
    logits, target = rng.standard_normal(shape), probabilities(rng, shape)
    check_op(ops.cross_entropy, [logits, target], keywords, implementation=backend)


@pytest.mark.parametrize("shape", [(32, 1000), (8, 1000, 16)])
@pytest.mark.parametrize("keywords", [{}, {"label_smoothing": 0.1, "reduction": "none"}])
def test_many_classes(backend, rng, shape, keywords):
    check_op(ops.cross_entropy, [rng.standard_normal(shape), indices(rng, shape)], keywords, implementation=backend)


@pytest.mark.parametrize("ignore_index", [3, 0, -1, 99])
def test_any_index_may_be_the_ignored_one(backend, rng, ignore_index):
    target = indices(rng, (20, 5))
    target[:3] = ignore_index
    keywords = {"ignore_index": ignore_index}
    check_op(ops.cross_entropy, [rng.standard_normal((20, 5)), target], keywords, implementation=backend)


@REDUCTIONS
@SMOOTHINGS
def test_every_row_ignored(backend, rng, reduction, smoothing):
    keywords = {"reduction": reduction, "label_smoothing": smoothing}
    arrays = [rng.standard_normal((4, 5)), np.full(4, -100)]
    check_op(ops.cross_entropy, arrays, keywords, implementation=backend, smooth=False)


@REDUCTIONS
@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 3), (2, 5, 0)])
def test_no_rows(backend, rng, reduction, shape):
    keywords = {"reduction": reduction}
    for target in (indices(rng, shape), probabilities(rng, shape)):
        arrays = [np.zeros(shape), target]
        check_op(ops.cross_entropy, arrays, keywords, implementation=backend, smooth=False)


def test_any_memory_layout(backend, rng):
    logits, target = rng.standard_normal((3, 5, 4)), indices(rng, (3, 5, 4))
    check_op(ops.cross_entropy, [logits, target], implementation=backend, layout=strided)


def test_large_and_masked_logits(backend):
    logits = np.array([[1000.0, 990.0, -1000.0], [-np.inf, 1.0, 2.0], [0.0, -np.inf, -800.0]])
    check_op(ops.cross_entropy, [logits, np.array([1, 2, 0])], implementation=backend, smooth=False)


def test_a_probability_of_0_costs_nothing_even_at_minus_infinity(backend):  # torch: 0 * inf = nan
    logits, target = np.array([[0.0, -np.inf, np.log(3.0)]]), np.array([[0.5, 0.0, 0.5]])
    y, dx = run(ops.cross_entropy, [logits, target], {}, np.ones(()), backend)
    np.testing.assert_allclose(y, -0.5 * np.log(1 / 4) - 0.5 * np.log(3 / 4), rtol=1e-15)
    np.testing.assert_allclose(dx, [[1 / 4 - 1 / 2, 0, 3 / 4 - 1 / 2]], rtol=1e-14)


def test_nan_stays_in_its_row_and_out_of_the_loss_of_an_ignored_one(backend):
    logits = np.array([[0.0, np.nan, 1.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 2.0]])
    for dtype in (np.float32, np.float64):
        keywords = {"reduction": "none"}
        y, _ = run(ops.cross_entropy, [logits, np.array([0, 1, -100])], keywords, np.ones(3), backend, dtype=dtype)
        np.testing.assert_allclose(y, [np.nan, np.log(3), 0], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 300.0])
def test_exponentials_of_any_size(backend, rng, scale):
    arrays = [scale * rng.standard_normal((64, 33)), indices(rng, (64, 33))]
    check_op(ops.cross_entropy, arrays, {"reduction": "none"}, implementation=backend, smooth=False)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64"])
def test_any_integer_is_an_index(backend, rng, kind):
    logits, target = rng.standard_normal((6, 5)), indices(rng, (6, 5))
    plain = run(ops.cross_entropy, [logits, target], {}, np.ones(()), backend)
    other = run(ops.cross_entropy, [logits, target.astype(kind)], {}, np.ones(()), backend)
    assert all(np.array_equal(a, b) for a, b in zip(plain, other, strict=True))


def test_answer_computed_by_hand(backend):
    logits = np.log(np.array([[1.0, 3.0], [1.0, 1.0]]))
    keywords = {"weight": np.array([1.0, 3.0])}
    y, dx = run(ops.cross_entropy, [logits, np.array([0, 1])], keywords, np.asarray(8.0), backend)
    np.testing.assert_allclose(y, (1 * np.log(4) + 3 * np.log(2)) / (1 + 3), rtol=1e-15)
    np.testing.assert_allclose(dx, [[2 * (1 / 4 - 1), 2 * 3 / 4], [2 * 3 / 2, 2 * (3 / 2 - 3)]], rtol=1e-14)


def test_a_plain_number_is_a_gradient_of_a_scalar_loss(rng):
    logits = rng.standard_normal((6, 5)).astype("float32")
    _, cache = ops.cross_entropy.forward(logits, indices(rng, (6, 5)))
    assert np.array_equal(ops.cross_entropy.backward(1.0, cache), ops.cross_entropy.backward(np.float32(1), cache))


def logits_and(target):
    return [np.zeros((2, 3), "float32"), np.asarray(target)]


@pytest.mark.parametrize(
    ("arrays", "keywords", "error", "match"),
    [
        ([np.zeros(()), np.asarray(0)], {}, ShapeError, r"logits must be \(C,\), \(N,C\) or \(N,C,d1,...\)"),
        (logits_and([0, 1, 2]), {}, ShapeError, r"target has shape \(3,\), logits \(2, 3\) need \(2,\)"),
        (logits_and(np.zeros((2, 4), "float32")), {}, ShapeError, r"probabilities have shape \(2, 4\)"),
        (logits_and([0, 3]), {}, ArgumentError, r"target 3 is out of 0...2 and not ignore_index=-100"),
        (logits_and([0, -1]), {}, ArgumentError, "target -1 is out of"),
        (logits_and([0, 1]), {"weight": np.ones(2, "float32")}, ShapeError, r"weight has shape \(2,\), 3 classes need"),
        (logits_and([0, 1]), {"weight": np.ones(3)}, DtypeError, "logits is float32 but weight is float64"),
        (logits_and(np.zeros((2, 3))), {}, DtypeError, "logits are float32 but target is float64"),
        (logits_and([True, False]), {}, DtypeError, "target is bool"),
        (logits_and([0, 1]), {"reduction": "max"}, ArgumentError, "'mean', 'sum' or 'none', got 'max'"),
        (logits_and([0, 1]), {"label_smoothing": 1.5}, ArgumentError, "label_smoothing must be between 0 and 1"),
        (logits_and(np.zeros((2, 3), "float32")), {"ignore_index": 0}, ArgumentError, "needs class indices"),
        ([np.zeros((2, 3)), [0, 1]], {}, DtypeError, "target must be an array, got list"),
    ],
)
def test_refuses(arrays, keywords, error, match):
    with refused(error, match):
        ops.cross_entropy.forward(*arrays, **keywords)
