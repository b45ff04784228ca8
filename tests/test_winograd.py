"""Winograd: the matrices as identities in exact arithmetic, the kernels against the array operations in float64."""

from fractions import Fraction

import numpy as np
import pytest

from alexnet_np.kernels import choices, conv2d_numba, conv2d_winograd_batch_numba
from alexnet_np.kernels import conv2d_space_to_depth_numba as depth
from alexnet_np.kernels import conv2d_winograd_few_numba as few
from alexnet_np.kernels import conv2d_winograd_numba as winograd
from alexnet_np.kernels.conv2d_layer import Layer
from alexnet_np.kernels.conv2d_winograd_strays_numba import Exact
from alexnet_np.kernels.conv2d_winograd_tiling_numba import Images, corner, having, order, place, tiling
from alexnet_np.kernels.conv2d_winograd_transforms import (
    FAMILIES,
    POINTS,
    SHORTER,
    finite_points,
    from_points,
    polynomial,
    transforms,
)
from alexnet_np.kernels.cpu.image import Image, framed
from alexnet_np.ops import conv2d

ERROR = 1e-4  # largest error of a layer relative to the output's standard deviation: 3x what F(5,3) shows


GRADIENT = 1e-5  # L2 error relative to the result: the tiles' 2e-6 to 5e-6, and room for chance


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


@pytest.mark.parametrize(("m", "r"), SHORTER)
def test_short_tiles_share_the_filters_of_full_ones(m, r):
    """Without the last finite point, in exact arithmetic: B^T's rows times (p - p'), A^T's and G's as they are."""
    AT, G, _ = transforms(m, r)
    points, kept = finite_points(m + r - 1), [*range(m + r - 3), m + r - 2]
    short = from_points(points[:-1], m - 1, r)
    scales = [p - points[-1] for p in points[:-1]] + [1]
    for k in range(r):
        for j in range(m + r - 2):
            g, d = [Fraction(i == k) for i in range(r)], [Fraction(i == j) for i in range(m + r - 2)]
            there = [product(G, g)[i] for i in kept]
            products = [a * b * s for a, b, s in zip(there, product(short.BT, d), scales, strict=True)]
            assert product(short.AT, products) == [sum(g[t] * d[i + t] for t in range(r)) for i in range(m - 1)]
        assert [[row[i] for i in kept[:-1]] for row in AT[: m - 1]] == [list(row[:-1]) for row in short.AT]


@pytest.mark.parametrize(("H", "W"), [(13, 13), (13, 11), (11, 13), (5, 4), (15, 13), (3, 3), (26, 9)])
def test_tiles_that_have_a_point_lie_side_by_side(H, W):
    images, tiles = Images(2, 3), tiling(5, 3, (1, 1), framed(16, H, W))
    ordered = [place(tiles, images, k) for k in range(images.size * tiles.rows * tiles.cols)]
    first = images.first * tiles.rows * tiles.cols
    assert sorted(tile.number for tile in ordered) == [first + k for k in range(len(ordered))]
    covered = np.zeros((images.size, H, W), int)
    for k, tile in enumerate(ordered):
        image, h, w, high, wide = corner(tiles, tile.number)
        assert (image, h, w) == tile[:3] and high <= 5 - tile.low and wide <= 5 - tile.narrow
        covered[image - images.first, h : h + high, w : w + wide] += 1
        row, col = tile.number // tiles.cols % tiles.rows, tile.number % tiles.cols
        assert order(tiles, images.size, image - images.first, row, col) == k
    assert (covered == 1).all()
    for p in range(tiles.n**2):
        missing = [(tile.low and p // tiles.n == 5) or (tile.narrow and p % tiles.n == 5) for tile in ordered]
        assert [*range(*having(tiles, images.size, p))] == [k for k, gone in enumerate(missing) if not gone]


def test_every_family_has_points():
    assert {m + r - 1 for m, r in FAMILIES} <= set(POINTS)


def channels_last(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("family", "N", "C", "F", "H", "W", "padding", "groups"),
    [
        ((3, 5), 2, 64, 40, 27, 27, (2, 2), 1),
        ((4, 5), 2, 64, 40, 27, 26, (2, 2), 1),
        ((5, 3), 3, 24, 48, 13, 11, (1, 1), 1),
        ((5, 3), 1, 32, 64, 7, 9, (0, 2), 2),
        ((4, 3), 2, 16, 33, 12, 12, (1, 1), 1),
        ((6, 3), 1, 17, 16, 20, 6, (1, 0), 1),
    ],
)
@pytest.mark.parametrize("halo", [0, 3])
@pytest.mark.parametrize("block", [5, 64])
def test_forward_agrees_with_float64(family, N, C, F, H, W, padding, groups, halo, block, monkeypatch):
    m, r = family
    rng = np.random.default_rng(1)
    x = rng.standard_normal((N, C, H, W), dtype=np.float32)
    weight = rng.standard_normal((F, C // groups, r, r), dtype=np.float32)
    bias = rng.standard_normal(F, dtype=np.float32)
    expected, _ = conv2d.forward(*(a.astype(np.float64) for a in (x, weight, bias)), padding=padding, groups=groups)
    scale = expected.std()
    expected = np.maximum(expected, 0)

    padded = np.pad(channels_last(x), ((0, 0), (halo, halo), (halo, halo), (0, 0)))
    row = (W + 2 * halo) * C
    source = Image(halo * (row + C), (H + 2 * halo) * row, row, C, H, W, halo, halo)
    OH, OW = expected.shape[2:]
    target = Image(0, OH * OW * F, OW * F, F, OH, OW)
    u, exact = winograd.packed_filters(weight, m, groups), Exact(weight, m, groups)
    layer, tiles = Layer(N, C // groups, F // groups, groups, relu=True), tiling(m, r, padding, target)
    found = []
    for most in (0, 1000):  # tiles a thread that are computed step by step: in fused blocks, and all of them
        monkeypatch.setattr(few, "FEW", most)
        y = np.full((N, OH, OW, F), np.nan, np.float32)
        winograd.forward(padded.reshape(-1), source, u, bias, y.reshape(-1), target, layer, tiles, block, exact)
        np.testing.assert_allclose(y.transpose(0, 3, 1, 2), expected, rtol=0, atol=ERROR * scale)
        found.append(y)
    np.testing.assert_array_equal(*found)


def test_nan_stays_nan_through_the_fused_relu():
    x = np.full((1, 16, 13, 13), np.nan, np.float32)
    y = np.zeros((1, 13, 13, 16), np.float32)
    image = Image(0, 13 * 13 * 16, 13 * 16, 16, 13, 13)
    weight = np.ones((16, 16, 3, 3), np.float32)
    u, exact = winograd.packed_filters(weight, 5), Exact(weight, 5)
    bias = np.zeros(16, np.float32)
    layer, tiles = Layer(1, 16, 16, relu=True), tiling(5, 3, (1, 1), image)
    winograd.forward(channels_last(x).reshape(-1), image, u, bias, y.reshape(-1), image, layer, tiles, 64, exact)
    assert np.isnan(y).all()


CONVOLUTIONS = [  # N, C, F, H, W, kernel, stride, padding, groups
    (3, 16, 32, 27, 25, 5, 1, 2, 1),
    (2, 16, 32, 9, 6, 5, 1, 2, 1),
    (2, 32, 64, 13, 13, 3, 1, 1, 2),
    (5, 24, 40, 12, 12, 3, 1, 1, 1),
    (1, 16, 17, 9, 9, 3, 1, (0, 2), 1),
    (2, 3, 64, 71, 75, 11, 4, 2, 1),
    (2, 4, 6, 9, 9, 3, 2, 1, 1),  # too narrow: direct, and im2col for the gradients
    (2, 16, 16, 9, 9, 3, 1, 1, 16),
]


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "read-only"])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_conv2d_forward_and_gradients_agree_with_float64(case, layout):
    N, C, F, H, W, K, stride, padding, groups = case
    rng = np.random.default_rng(2)
    x = rng.standard_normal((N, C, H, W), dtype=np.float32)
    weight = rng.standard_normal((F, C // groups, K, K), dtype=np.float32)
    bias = rng.standard_normal(F, dtype=np.float32)
    doubles = [a.astype(np.float64) for a in (x, weight, bias)]
    expected, cache = conv2d.forward(*doubles, stride, padding, groups=groups)
    dy = rng.standard_normal(expected.shape, dtype=np.float32)
    wanted = (expected, *conv2d.backward(dy.astype(np.float64), cache))
    if layout == "channels last":
        x, dy = (channels_last(a).transpose(0, 3, 1, 2) for a in (x, dy))
    if layout == "read-only":
        for array in (x, weight, bias, dy):
            array.flags.writeable = False
    kept = [a.copy() for a in (x, weight, bias, dy)]
    y = conv2d_numba.compute(x, weight, bias, cache.geometry)
    got = (y, *conv2d_numba.gradients(dy, x, weight, cache.geometry, (True, True, True)))
    for name, ours, theirs in zip(("y", "dx", "dweight", "dbias"), got, wanted, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == np.float32
        assert np.linalg.norm(ours - theirs) < GRADIENT * np.linalg.norm(theirs), name
    assert all(np.array_equal(a, b) for a, b in zip((x, weight, bias, dy), kept, strict=True))


def test_gradients_not_asked_for_are_none():
    x, weight = np.ones((1, 16, 9, 9), np.float32), np.ones((16, 16, 3, 3), np.float32)
    geometry = conv2d.find_geometry(x, weight, None, 1, 1, 1, 1)
    dy = np.ones((1, 16, 9, 9), np.float32)
    for k in range(3):
        needs = tuple(i == k for i in range(3))
        assert [g is not None for g in conv2d_numba.gradients(dy, x, weight, geometry, needs)] == list(needs)


def test_gradient_sums_do_not_depend_on_how_tiles_are_cut_into_blocks():
    rng = np.random.default_rng(5)
    x, weight = rng.standard_normal((4, 16, 13, 13)).astype("f"), rng.standard_normal((16, 16, 3, 3)).astype("f")
    geometry = conv2d.find_geometry(x, weight, None, 1, 1, 1, 1)
    whole = conv2d_numba.gradients(x, x, weight, geometry, (False, True, False))[1]
    with choices.overriding(choices.Row(gradient_tiles=7)):
        blocks = conv2d_numba.gradients(x, x, weight, geometry, (False, True, False))[1]
    np.testing.assert_allclose(blocks, whole, rtol=0, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("S", [1, 2, 3, 4])
def test_space_to_depth_and_its_adjoint(S):
    rng = np.random.default_rng(S)
    N, C, H, W, top, left = 2, 3, 23, 30, 1, 2
    rows, cols, room = -(-(H + top) // S), -(-(W + left) // S), 3 * S * S + 5
    x = rng.standard_normal((N, C, H, W), dtype=np.float32)
    d = np.full((N, rows, cols, room), np.nan, np.float32)
    image = framed(room, rows, cols)
    folding = depth.Folding(C, H, W, S, top, left)
    depth.space_to_depth[N * rows](x.reshape(-1), 0, folding, d.reshape(-1), image, room)
    padded = np.zeros((N, C, rows * S, cols * S), np.float32)
    padded[:, :, top : top + H, left : left + W] = x
    blocks = padded.reshape(N, C, rows, S, cols, S).transpose(0, 2, 4, 1, 3, 5).reshape(N, rows, cols, -1)
    assert np.array_equal(d[..., : C * S * S], blocks) and not d[..., C * S * S :].any()
    back = np.full_like(x, np.nan)
    depth.depth_to_space[N * C * H](d.reshape(-1), image, folding, back.reshape(-1))
    assert np.array_equal(back, x)
    weight = rng.standard_normal((2, 3, 2 * S + 1, 2 * S + 1), dtype=np.float32)
    assert np.array_equal(depth.filters_from_depth(depth.filters_to_depth(weight, S), S, 2 * S + 1), weight)


def test_filters_changed_in_place_are_transformed_again():
    x, weight = np.ones((1, 16, 9, 9), np.float32), np.ones((16, 16, 3, 3), np.float32)
    geometry = conv2d.find_geometry(x, weight, None, 1, 1, 1, 1)
    before = conv2d_numba.compute(x, weight, None, geometry)
    assert np.array_equal(conv2d_numba.compute(x, weight, None, geometry), before)
    weight *= 2
    np.testing.assert_allclose(conv2d_numba.compute(x, weight, None, geometry), 2 * before, rtol=1e-4, atol=1e-3)
    view = weight.T
    view[2] += 1
    np.testing.assert_allclose(
        conv2d_numba.compute(x, weight, None, geometry), conv2d_numba.compute(x, weight.copy(), None, geometry)
    )
    assert [kept for kept in conv2d_winograd_batch_numba._kept if kept.weight() is weight]
    before = len(conv2d_winograd_batch_numba._kept)
    del weight, view
    assert len(conv2d_winograd_batch_numba._kept) == before - 1
