"""Winograd: the matrices as identities in exact arithmetic, the kernels against the array operations in float64."""

from fractions import Fraction

import numpy as np
import pytest

from alexnet_np.kernels import conv2d_winograd_numba as winograd
from alexnet_np.kernels.image import Image
from alexnet_np.kernels.winograd_tiles_numba import FAMILIES
from alexnet_np.kernels.winograd_transforms import POINTS, finite_points, from_points, polynomial, transforms
from alexnet_np.ops import conv2d

ERROR = 1e-4  # largest error of a layer relative to the output's standard deviation: 3x what F(5,3) shows


def product(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


@pytest.mark.parametrize(("m", "r"), FAMILIES)
def test_transforms_are_exact_on_every_pair_of_unit_vectors(m, r):
    AT, G, BT = transforms(m, r)
    n = m + r - 1
    for k in range(r):
        for j in range(n):
            g = [Fraction(i == k) for i in range(r)]
            d = [Fraction(i == j) for i in range(n)]
            products = [a * b for a, b in zip(product(G, g), product(BT, d), strict=True)]
            assert product(AT, products) == [sum(g[t] * d[i + t] for t in range(r)) for i in range(m)]


def test_polynomial_has_its_roots():
    roots = finite_points(8)
    coefficients = polynomial(roots)
    assert coefficients[-1] == 1
    assert all(sum(c * x**i for i, c in enumerate(coefficients)) == 0 for x in roots)


@pytest.mark.parametrize("points", [["0", "1"], ["0", "1", "1", "2", "3", "4"]])
def test_points_must_be_distinct_and_as_many_as_the_tile_needs(points):
    with pytest.raises(ValueError, match="distinct finite points"):
        from_points([Fraction(p) for p in points], 5, 3)


def test_every_family_has_points():
    assert {m + r - 1 for m, r in FAMILIES} <= set(POINTS)


def channels_last(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("family", "N", "C", "F", "H", "W", "padding", "groups"),
    [
        ((3, 5), 2, 64, 40, 27, 27, (2, 2), 1),
        ((5, 3), 3, 24, 48, 13, 11, (1, 1), 1),
        ((5, 3), 1, 32, 64, 7, 9, (0, 2), 2),
        ((4, 3), 2, 16, 33, 12, 12, (1, 1), 1),
        ((6, 3), 1, 17, 16, 20, 6, (1, 0), 1),
    ],
)
@pytest.mark.parametrize("halo", [0, 3])
@pytest.mark.parametrize("block", [5, 64])
def test_forward_agrees_with_float64(family, N, C, F, H, W, padding, groups, halo, block):
    m, r = family
    rng = np.random.default_rng(1)
    x = rng.standard_normal((N, C, H, W), dtype=np.float32)
    weight = rng.standard_normal((F, C // groups, r, r), dtype=np.float32)
    bias = rng.standard_normal(F, dtype=np.float32)
    expected, _ = conv2d.forward(*(a.astype(np.float64) for a in (x, weight, bias)), padding=padding, groups=groups)
    scale = expected.std()
    expected = np.maximum(expected, 0)

    framed = np.pad(channels_last(x), ((0, 0), (halo, halo), (halo, halo), (0, 0)))
    row = (W + 2 * halo) * C
    source = Image(halo * (row + C), (H + 2 * halo) * row, row, C, H, W, halo, halo)
    OH, OW = expected.shape[2:]
    y = np.full((N, OH, OW, F), np.nan, np.float32)
    target = Image(0, OH * OW * F, OW * F, F, OH, OW)
    u = winograd.packed_filters(weight, m, groups)
    winograd.forward(
        framed.reshape(-1), source, u, bias, 1, y.reshape(-1), target, N, C // groups, F // groups, m, r, padding, block, groups
    )
    np.testing.assert_allclose(y.transpose(0, 3, 1, 2), expected, rtol=0, atol=ERROR * scale)


def test_nan_stays_nan_through_the_fused_relu():
    x = np.full((1, 16, 13, 13), np.nan, np.float32)
    y = np.zeros((1, 13, 13, 16), np.float32)
    image = Image(0, 13 * 13 * 16, 13 * 16, 16, 13, 13)
    u = winograd.packed_filters(np.ones((16, 16, 3, 3), np.float32), 5)
    bias = np.zeros(16, np.float32)
    winograd.forward(channels_last(x).reshape(-1), image, u, bias, 1, y.reshape(-1), image, 1, 16, 16, 5, 3, (1, 1), 64)
    assert np.isnan(y).all()
