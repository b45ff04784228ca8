import numpy as np
import pytest
import torch
from oracles import channels_last, check_op, implementations, locked, refused, run, strided

from alexnet_np import ops
from alexnet_np.errors import ArgumentError, ShapeError

backend = implementations("local_response_norm")

STRONG = {"alpha": 1.3, "k": 0.7}  # with torch's default alpha of 1e-4 a wrong window would go unnoticed


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.2])
def test_agrees_with_torch(backend, rng, size, beta):
    x = rng.standard_normal((2, 7, 5, 4))
    check_op(ops.local_response_norm, [x], {"size": size, "beta": beta, **STRONG}, implementation=backend)


@pytest.mark.parametrize("keywords", [{"size": 5}, {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}])
def test_usual_constants(backend, rng, keywords):
    check_op(ops.local_response_norm, [100 * rng.standard_normal((2, 9, 6, 5))], keywords, implementation=backend)


@pytest.mark.parametrize("size", [4, 5])
def test_version_one_without_a_compiler(rng, size):
    x = rng.standard_normal((2, 7, 3, 2))
    keywords = {"size": size, **STRONG}
    check_op(ops.local_response_norm, [x], keywords, implementation="numba naive:python")


@pytest.mark.parametrize("shape", [(2, 7, 3), (2, 6, 300), (2, 6, 3, 4, 2), (3, 1, 4, 5), (0, 3, 4, 4), (2, 0, 4, 4)])
def test_any_rank(backend, rng, shape):
    check_op(ops.local_response_norm, [rng.standard_normal(shape)], {"size": 4, **STRONG}, implementation=backend)


@pytest.mark.parametrize("layout", [channels_last, strided, locked])
def test_any_memory_layout(backend, rng, layout):
    for shape, size in (((2, 6, 5, 4), 5), ((2, 37, 5, 4), 5), ((2, 32, 5, 4), 4)):  # few channels, and many
        x = rng.standard_normal(shape)
        check_op(ops.local_response_norm, [x], {"size": size, **STRONG}, implementation=backend, layout=layout)


# convention, size: maps below the channel, maps above it, what divides alpha
CONVENTIONS = {
    ("torch", 5): (2, 2, 5),
    ("torch", 4): (2, 1, 4),
    ("onnx", 5): (2, 2, 5),
    ("onnx", 4): (1, 2, 4),
    ("caffe", 5): (2, 2, 5),
    ("krizhevsky", 5): (2, 2, 5),
    ("krizhevsky", 4): (2, 1, 4),
    ("paper", 5): (2, 2, 1),
    ("paper", 4): (2, 2, 1),  # n/2 on both sides, as the paper's formula has it
    ("tensorflow", 5): (2, 2, 1),  # depth_radius 2
    ("matlab", 5): (2, 2, 5),
    ("matlab", 4): (1, 2, 4),
    ("matconvnet", 5): (2, 2, 1),
    ("matconvnet", 4): (1, 2, 1),
}


@pytest.mark.parametrize(("convention", "size"), CONVENTIONS)
def test_conventions(backend, rng, convention, size):
    low, high, divisor = CONVENTIONS[convention, size]

    def reference(x, size, convention, alpha, k, beta=0.75):
        padded = torch.nn.functional.pad(x * x, (0, 0, 0, 0, low, high))
        return x / (k + alpha / divisor * padded.unfold(1, low + high + 1, 1).sum(-1)) ** beta

    keywords = {"size": size, "convention": convention, **STRONG}
    x = rng.standard_normal((2, 7, 4, 3))
    check_op(ops.local_response_norm, [x], keywords, implementation=backend, reference=reference)


@pytest.mark.parametrize(
    ("convention", "norms"),
    [
        ("torch", [1 + 1, 1 + 1 + 4, 1 + 4 + 9]),
        ("krizhevsky", [1 + 1, 1 + 1 + 4, 1 + 4 + 9]),
        ("onnx", [1 + 1 + 4, 1 + 4 + 9, 1 + 9]),
        ("paper", [1 + 2 * (1 + 4), 1 + 2 * (1 + 4 + 9), 1 + 2 * (4 + 9)]),
        ("matconvnet", [1 + 2 * (1 + 4), 1 + 2 * (4 + 9), 1 + 2 * 9]),
    ],
)
def test_answer_computed_by_hand(backend, convention, norms):
    x = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    keywords = {"size": 2, "alpha": 2.0, "beta": 1.0, "k": 1.0, "convention": convention}
    y, _ = run(ops.local_response_norm, [x], keywords, np.ones_like(x), backend)
    np.testing.assert_allclose(y.ravel(), [1 / norms[0], 2 / norms[1], 3 / norms[2]], rtol=1e-15)


ACROSS = [(name, size, groups) for name, size in CONVENTIONS for groups in (1, 2)]


def in_torch(x, size, convention, alpha, k, beta=0.75, region="across", groups=1):
    """The formula by torch's unfolding, in x's dtype."""
    if region == "across":
        low, high, divisor = CONVENTIONS[convention, size]
        grouped = (x * x).unflatten(1, (groups, -1))
        squares = torch.nn.functional.pad(grouped, (0, 0, 0, 0, low, high)).unfold(2, low + high + 1, 1)
        return x / (k + alpha / divisor * squares.sum(-1).flatten(1, 2)) ** beta
    low, high, divisor = CONVENTIONS[convention, size]
    divisor = divisor**2
    window = low + high + 1
    squares = torch.nn.functional.pad(x * x, (low, high, low, high)).unfold(2, window, 1).unfold(3, window, 1)
    return x / (k + alpha / divisor * squares.sum((-1, -2))) ** beta


@pytest.mark.parametrize(("convention", "size", "groups"), ACROSS)
@pytest.mark.parametrize("layout", [np.asarray, channels_last])
def test_towers_do_not_see_each_other(backend, rng, convention, size, groups, layout):
    keywords = {"size": size, "convention": convention, "groups": groups, **STRONG}
    for channels in (6, 36):  # few, and more than a vector a group
        x = rng.standard_normal((2, channels, 4, 3))
        check_op(ops.local_response_norm, [x], keywords, implementation=backend, reference=in_torch, layout=layout)


@pytest.mark.parametrize(("convention", "size"), CONVENTIONS)
def test_within_a_map(backend, rng, convention, size):
    k = 1.0 if convention == "caffe" else 0.7  # Caffe has no other within a map
    keywords = {"size": size, "convention": convention, "region": "within", "alpha": 1.3, "k": k}
    for shape in ((2, 3, 7, 6), (1, 2, 3, 9), (1, 1, 1, 1)):
        x = rng.standard_normal(shape)
        for layout in (np.asarray, channels_last):
            check_op(ops.local_response_norm, [x], keywords, implementation=backend, reference=in_torch, layout=layout)


@pytest.mark.parametrize("beta", [0.5, 0.6])
def test_within_a_map_with_another_beta_and_a_window_wider_than_the_map(backend, rng, beta):
    keywords = {"size": 5, "region": "within", "alpha": 1.3, "beta": beta, "k": 0.7, "convention": "krizhevsky"}
    for layout in (np.asarray, channels_last, locked):
        x = rng.standard_normal((2, 5, 4, 2))
        check_op(ops.local_response_norm, [x], keywords, implementation=backend, reference=in_torch, layout=layout)


def test_within_a_map_by_hand(backend):
    """3x3 ones, window 3, a = 9/9: the corner sees 4, the edge 6, the middle 9."""
    keywords = {"size": 3, "alpha": 9.0, "beta": 1.0, "k": 1.0, "region": "within"}
    y, _ = run(ops.local_response_norm, [np.ones((1, 1, 3, 3))], keywords, np.ones((1, 1, 3, 3)), backend)
    np.testing.assert_allclose(y[0, 0], [[1 / 5, 1 / 7, 1 / 5], [1 / 7, 1 / 10, 1 / 7], [1 / 5, 1 / 7, 1 / 5]])


@pytest.mark.parametrize("region", ["across", "within"])
@pytest.mark.parametrize("source", ops.local_response_norm.CONVENTIONS)
@pytest.mark.parametrize("target", ops.local_response_norm.CONVENTIONS)
@pytest.mark.parametrize("size", [4, 5])
def test_conversion_is_exact_or_refused(rng, region, source, target, size):
    norm, x = ops.local_response_norm, rng.standard_normal((2, 9, 6, 5))
    constants = {"size": size, "alpha": 1.3, "beta": 0.6, "k": 1.0}
    windows = [CONVENTIONS.get((name, size), (None,))[:2] for name in (source, target)]
    if windows[0] != windows[1] or None in windows[0]:
        with refused(ArgumentError, "cannot be converted|takes odd sizes only"):
            norm.convert(**constants, source=source, target=target, region=region)
        return
    moved = norm.convert(**constants, source=source, target=target, region=region)
    want, _ = norm.forward(x, **constants, convention=source, region=region)
    have, _ = norm.forward(x, **moved, convention=target, region=region)
    np.testing.assert_allclose(have, want, rtol=1e-13)
    back = norm.convert(**moved, source=target, target=source, region=region)
    np.testing.assert_allclose(back["alpha"], 1.3, rtol=1e-15)


def test_gradient_computed_by_hand(backend):
    """Two maps, window of both, beta 1, s = 1 + x0² + x1²: dy0/dx0 = 1/s - 2 x0²/s², dy0/dx1 = -2 x0 x1/s²."""
    keywords = {"size": 3, "alpha": 3.0, "beta": 1.0, "k": 1.0}
    x, dy = np.array([1.0, 2.0]).reshape(1, 2, 1), np.array([1.0, 0.0]).reshape(1, 2, 1)
    _, dx = run(ops.local_response_norm, [x], keywords, dy, backend)
    np.testing.assert_allclose(dx.ravel(), [1 / 6 - 2 / 36, -4 / 36], rtol=1e-15)


@pytest.mark.parametrize(
    ("shape", "keywords", "error", "match"),
    [
        ((3, 4), {"size": 5}, ShapeError, r"at least 3 axes \(N,C,...\), got shape \(3, 4\)"),
        ((1, 3, 4), {"size": 0}, ArgumentError, "size must be at least 1, got 0"),
        ((1, 3, 4), {"size": 2.0}, ArgumentError, "size must be an int, got 2.0"),
        ((1, 3, 4), {"size": 4, "convention": "caffe"}, ArgumentError, "caffe takes odd sizes only, got 4"),
        ((1, 3, 4), {"size": 4, "convention": "tensorflow"}, ArgumentError, "tensorflow takes odd sizes only, got 4"),
        (
            (1, 3, 4),
            {"size": 5, "region": "inside"},
            ArgumentError,
            "must be 'across' or 'within', got 'inside'",
        ),
        ((1, 3, 4), {"size": 5, "groups": 0}, ArgumentError, "groups must be at least 1, got 0"),
        ((1, 3, 4), {"size": 5, "groups": 2}, ShapeError, "3 channels do not divide into groups=2"),
        ((1, 3, 4), {"size": 5, "region": "within"}, ShapeError, r"within maps x must be \(N,C,H,W\)"),
        (
            (1, 3, 4, 4),
            {"size": 5, "region": "within", "convention": "caffe", "k": 2.0},
            ArgumentError,
            "within maps Caffe ignores k and takes 1, got 2; give k=1",
        ),
        (
            (1, 3, 4),
            {"size": 5, "convention": "keras"},
            ArgumentError,
            "unknown convention 'keras'; choose one of torch",
        ),
    ],
)
def test_refuses(shape, keywords, error, match):
    with refused(error, match):
        ops.local_response_norm.forward(np.zeros(shape), **keywords)
