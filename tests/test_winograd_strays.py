"""NaN, infinity, overflow and values far larger than their neighbours: no output may show what it does not see.

Beside torch in float64; plans beside the array operations. The error of an output is measured by its own neighbours.
"""

import numpy as np
import pytest
import torch
from test_plan_layers import check, everything, named

import alexnet_np as anp
from alexnet_np import layers as L
from alexnet_np.kernels import conv2d_numba
from alexnet_np.kernels import local_response_norm_nhwc_numba as lrn
from alexnet_np.kernels.conv2d_winograd_strays_numba import SPREAD, Exact
from alexnet_np.kernels.cpu.image import framed
from alexnet_np.ops import conv2d, local_response_norm

ERROR = 1e-4  # of what the outputs are without the odd value: the bound of a layer in test_winograd.py

CASES = [  # C, F, size, kernel, stride, padding, groups
    (32, 48, 13, 3, 1, 1, 1),
    (16, 17, 27, 5, 1, 2, 1),
    (32, 64, 12, 3, 1, 1, 2),
    (3, 16, 67, 11, 4, 2, 1),
    (12, 12, 13, 3, 1, 1, 1),  # filled up to a vector
]
ODD = [np.nan, np.inf, -np.inf, 1e4, -3e6, 3e37]
PLACES = [(0, 0), (6, 4), (-1, -2)]


def operands(case, seed=0):
    C, F, size, K, stride, padding, groups = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, C, size, size), dtype=np.float32)
    weight = rng.standard_normal((F, C // groups, K, K), dtype=np.float32)
    geometry = conv2d.find_geometry(x, weight, None, stride, padding, 1, groups)
    return x, weight, rng.standard_normal((2, F, *geometry.output), dtype=np.float32), geometry


def torchs(dy, x, weight, geometry):
    """y, dx and dweight in float64, rounded to float32."""
    x, weight = (torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in (x, weight))
    padding = (geometry.padding[0], geometry.padding[2])
    y = torch.nn.functional.conv2d(x, weight, None, geometry.stride, padding, 1, geometry.groups)
    y.backward(torch.from_numpy(dy.astype(np.float64)))
    with np.errstate(over="ignore"):
        return [t.detach().numpy().astype(np.float32) for t in (y, x.grad, weight.grad)]


def ours(dy, x, weight, geometry):
    y = conv2d_numba.compute(x, weight, None, geometry)
    return [y, *conv2d_numba.gradients(dy, x, weight, geometry, (True, True, False))[:2]]


def assert_nothing_leaks(got, expected, ordinary):
    """The same values are NaN and infinite, and the others close: where they see nothing odd, by what is ordinary."""
    for name, a, b, plain in zip(("y", "dx", "dweight"), got, expected, ordinary, strict=True):
        assert np.array_equal(np.isnan(a), np.isnan(b)), name
        infinite = np.isinf(b)
        assert np.array_equal(a[infinite], b[infinite]), name
        finite = np.isfinite(b)
        assert np.isfinite(a[finite]).all(), name
        seeing = b != plain
        allowed = ERROR * np.where(seeing, np.abs(b[finite]).max(), plain.std())[finite]
        assert (np.abs(a[finite].astype(np.float64) - b[finite]) <= allowed).all(), name


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("case", CASES)
def test_an_odd_pixel_of_the_input(case, odd, place):
    x, weight, dy, geometry = operands(case)
    ordinary = torchs(dy, x, weight, geometry)
    x[1, 2, *place] = odd
    assert_nothing_leaks(ours(dy, x, weight, geometry), torchs(dy, x, weight, geometry), ordinary)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("case", CASES)
def test_an_odd_value_of_the_gradient(case, odd, place):
    x, weight, dy, geometry = operands(case)
    ordinary = torchs(dy, x, weight, geometry)
    dy[0, 3, *place] = odd
    assert_nothing_leaks(ours(dy, x, weight, geometry), torchs(dy, x, weight, geometry), ordinary)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("case", CASES)
def test_a_filter_that_is_not_finite(case, odd):
    x, weight, dy, geometry = operands(case)
    ordinary = torchs(dy, x, weight, geometry)
    weight[3, 1, 1, 2] = odd
    assert_nothing_leaks(ours(dy, x, weight, geometry), torchs(dy, x, weight, geometry), ordinary)


def test_several_odd_pixels_of_a_tile_and_two_in_one_channel():
    x, weight, dy, geometry = operands(CASES[0])
    ordinary = torchs(dy, x, weight, geometry)
    x[0, 0, 5, 5], x[0, 7, 6, 9], x[1, 3, 0, 12], x[1, 3, 12, 0] = 1e4, np.nan, 1e5, np.inf
    assert_nothing_leaks(ours(dy, x, weight, geometry), torchs(dy, x, weight, geometry), ordinary)


@pytest.fixture
def redone(monkeypatch):
    """How many tiles of a forward were computed as the definition says, call by call."""
    from alexnet_np.kernels import conv2d_winograd_numba as winograd

    counts, redo = [], winograd.redo
    monkeypatch.setattr(winograd, "redo", lambda *a: (counts.append(len(a[-1])), redo(*a)))
    return counts


def test_only_the_tiles_that_see_it_are_computed_anew(redone):
    x, weight, _, geometry = operands(CASES[0])
    conv2d_numba.compute(x, weight, None, geometry)
    assert redone == []
    x[1, 0, 5, 5] = np.nan  # of nine tiles of 7 x 7 pixels, beginning at -1, 4 and 9, four hold it
    conv2d_numba.compute(x, weight, None, geometry)
    assert redone == [4]


def test_what_is_ordinary_is_not_computed_anew(redone):
    """Sparse activations, plain backgrounds, maps of zeros, and magnitudes of every size that they share."""
    _, weight, _, geometry = operands(CASES[0])
    rng = np.random.default_rng(0)
    sparse = np.maximum(rng.standard_normal((2, 32, 13, 13)) - 1.5, 0).astype(np.float32)
    drawing = np.zeros_like(sparse)
    drawing[:, :, 4:6, 7:9] = 1
    for x in (sparse, drawing, np.zeros_like(sparse), sparse * np.float32(1e-30), sparse * np.float32(1e15)):
        conv2d_numba.compute(x, weight, None, geometry)
    assert redone == []


def test_windows_are_compared_by_the_spread(redone):
    x, weight, _, geometry = operands(CASES[0])
    x[...] = 1
    for value, count in ((0.9 * SPREAD, 0), (1.1 * SPREAD, 4)):
        x[0, 0, 5, 5] = value
        redone.clear()
        conv2d_numba.compute(x, weight, None, geometry)
        assert sum(redone) == count


def test_the_limit_keeps_every_sum_finite():
    x, weight, _, geometry = operands(CASES[0])
    limit = Exact(weight, 5).limit
    assert 1e15 < limit < 1e38
    y = conv2d_numba.compute(np.full_like(x, limit), weight, None, geometry)
    assert np.isfinite(y).all()
    assert Exact(np.zeros_like(weight), 5).limit <= np.finfo(np.float32).max
    for odd in (np.nan, np.inf, -np.inf):
        weight[0, 0, 0, 0] = odd
        assert Exact(weight, 5).limit < 0


def network(preset, width):
    model = anp.alexnet(preset, width=width, num_classes=10, seed=3).eval()
    rng = np.random.default_rng(0)
    return model, rng.standard_normal((3, model.in_channels, 224, 224), dtype=np.float32)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 3e30])
@pytest.mark.parametrize(
    ("preset", "width"), [("torchvision", 0.05), ("torchvision", 0.25), ("paper", 0.1), ("d2l", 0.1)]
)
def test_a_plan_has_what_the_array_operations_have(preset, width, odd, exact):
    """Narrow nets fill their vectors up with zeros, and zero times infinity is NaN."""
    model, x = network(preset, width)
    x[1, 0, 100, 100] = odd
    names = [name for name, layer in model.leaves() if name.startswith("features") and not name.endswith("dropout")]
    with np.errstate(all="ignore"):
        got = anp.compile(model, max_batch=3, outputs=names, exact=exact)(x)
    entering = x
    with anp.use_backend("numpy"), anp.no_grad(), np.errstate(all="ignore"):
        for name, layer in model.leaves():
            if name not in names:
                break
            expected = layer(entering)
            assert np.array_equal(np.isnan(got[name]), np.isnan(expected)), name
            assert np.array_equal(np.isposinf(got[name]), np.isposinf(expected)), name
            entering = got[name]
    assert np.isfinite(got[names[-1]][[0, 2]]).all()


def test_what_fills_a_vector_up_stays_zero_through_a_normalisation_without_k():
    rng, C = np.random.default_rng(0), 5
    x = np.zeros((2, 3, 4, 16), np.float32)
    x[..., :C] = rng.standard_normal((2, 3, 4, C))
    x[0, 0, 0, :C], x[1, 1, 1, 4] = 0, np.inf
    y = np.full_like(x, np.nan)
    geometry = local_response_norm.find_geometry(5, 1.0, 0.75, 0.0, "torch")
    image = framed(16, 3, 4)
    lrn.normalise_groups(x.reshape(-1), image, y.reshape(-1), image, 2, C, geometry)
    with np.errstate(all="ignore"):
        expected, _ = local_response_norm.forward(x[..., :C].transpose(0, 3, 1, 2), 5, 1.0, 0.75, 0.0)
    np.testing.assert_allclose(y[..., :C].transpose(0, 3, 1, 2), expected, rtol=1e-5)
    assert not y[..., C:].any()


def test_a_plan_without_k_in_its_normalisation():
    features = [L.Conv2d(3, 5, 3, padding=1), L.LocalResponseNorm(5, 1.0, k=0.0), L.Conv2d(5, 6, 3, padding=1)]
    model = named(features, L.Identity(), [L.Flatten(), L.Linear(6 * 20 * 20, 5)])
    x = np.random.default_rng(0).standard_normal((2, 3, 20, 20), dtype=np.float32)
    for exact in (False, True):
        plan = anp.compile(model, max_batch=2, size=20, exact=exact)
        check({"logits": plan(x)}, everything(model, x), plan)
