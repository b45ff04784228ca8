import numpy as np
import pytest
from oracles import check_op, implementations, refused, run, strided, using

from alexnet_np import ops
from alexnet_np.errors import ShapeError

backend = implementations("linear")


def arrays(rng, x, weight, bias):
    return [rng.standard_normal(x), rng.standard_normal(weight), None if bias is None else rng.standard_normal(bias)]


@pytest.mark.parametrize(
    ("x", "weight", "bias"),
    [
        ((5, 7), (4, 7), (4,)),
        ((5, 7), (4, 7), None),
        ((7,), (4, 7), (4,)),
        ((2, 3, 5, 7), (4, 7), (4,)),
        ((5, 7), (7,), None),
        ((7,), (7,), None),
        ((2, 3, 7), (7,), None),
        ((1, 1), (1, 1), (1,)),
        ((0, 7), (4, 7), (4,)),
        ((2, 0, 7), (4, 7), (4,)),
        ((5, 0), (4, 0), (4,)),
        ((5, 7), (0, 7), (0,)),
        ((16, 600), (50, 600), (50,)),
        ((8, 9216), (64, 9216), (64,)),  # sums as long as the first dense layer's
    ],
)
def test_agrees_with_torch(backend, rng, x, weight, bias):
    check_op(ops.linear, arrays(rng, x, weight, bias), implementation=backend)


def test_any_memory_layout(backend, rng):
    check_op(ops.linear, arrays(rng, (2, 3, 7), (4, 7), (4,)), implementation=backend, layout=strided)


def test_weight_given_as_a_transposed_view(backend, rng):
    check_op(ops.linear, arrays(rng, (5, 7), (4, 7), (4,)), implementation=backend, layout=lambda a: a.T.copy().T)


def test_answer_computed_by_hand(backend):
    x, weight, bias = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0], [0.0, -1.0]]), np.array([0.5, 0.0, 1.0])
    y, dx, dweight, dbias = run(ops.linear, [x, weight, bias], {}, np.array([[1.0, 0.0, 2.0]]), backend)
    assert y.tolist() == [[11.5, 17, -1]]
    assert dx.tolist() == [[3, 2]]  # row 0 of weight, and twice row 2
    assert dweight.tolist() == [[1, 2], [0, 0], [2, 4]]
    assert dbias.tolist() == [1, 0, 2]


@pytest.mark.parametrize("bias", [(), None])
def test_one_output_without_an_axis(backend, rng, bias):  # torch documents a () bias here and refuses it
    x, weight, bias = arrays(rng, (5, 7), (7,), bias)
    y, dx, dweight, dbias = run(ops.linear, [x, weight, bias], {}, np.arange(5.0), backend)
    np.testing.assert_allclose(y, x @ weight + (0 if bias is None else bias), rtol=1e-13)
    assert dx.shape == (5, 7) and dweight.shape == (7,)
    assert dbias is None if bias is None else (dbias.shape == () and dbias == 10)


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True), (False,) * 3])
def test_gradients_not_asked_for_are_none(rng, needs):
    x, weight, bias = arrays(rng, (5, 7), (4, 7), (4,))
    for implementation in ("numpy", "numba"):
        with using(ops.linear, implementation):
            y, cache = ops.linear.forward(x, weight, bias)
            gradients = ops.linear.backward(y, cache, needs)
        assert tuple(g is not None for g in gradients) == needs


@pytest.mark.parametrize(
    ("x", "weight", "bias", "match"),
    [
        ((5, 6), (4, 7), (4,), r"x \(5, 6\) does not fit weight \(4, 7\): their last axes must be equal"),
        ((5, 7), (4, 7), (5,), r"bias has shape \(5,\), weight \(4, 7\) needs \(4,\)"),
        ((5, 7), (2, 4, 7), (4,), "does not fit"),
        ((), (4, 7), (4,), "does not fit"),
    ],
)
def test_refuses(rng, x, weight, bias, match):
    with refused(ShapeError, match):
        ops.linear.forward(*(np.asarray(a) for a in arrays(rng, x, weight, bias)))
