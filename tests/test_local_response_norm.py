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
        ("tensorflow", [1 + 2 * (1 + 4), 1 + 2 * (1 + 4 + 9), 1 + 2 * (4 + 9)]),
    ],
)
def test_answer_computed_by_hand(backend, convention, norms):
    x = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    keywords = {"size": 2, "alpha": 2.0, "beta": 1.0, "k": 1.0, "convention": convention}
    y, _ = run(ops.local_response_norm, [x], keywords, np.ones_like(x), backend)
    np.testing.assert_allclose(y.ravel(), [1 / norms[0], 2 / norms[1], 3 / norms[2]], rtol=1e-15)


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
