"""The matrices of the fast convolution F(m,r), from their points, by exact rationals.

    y = Aᵀ · ((G·g) ∘ (Bᵀ·d))        m outputs of an r-tap filter g over n = m + r - 1 inputs d, in n multiplications

(correlation: y[i] = sum over k of g[k]·d[i+k]). In two dimensions each matrix is applied from both sides and the n·n
products do what m·m·r·r multiplications did: F(5,3) and F(3,5) save 225/49 = 4.6x.

Toom-Cook: a product of polynomials is fixed by its values at n points, the last of which is infinity. Correlation is
the transpose of that product, so B holds the interpolation, and A and G evaluate. Any points give the exact result
in exact arithmetic; in float32 they differ in error, so the points below were chosen by measuring it.

Source: Winograd, "Arithmetic Complexity of Computations" (1980); Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks" (2015), sec. 3-4; on points: Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd
Convolution" (2018).
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import NamedTuple

Matrix = tuple[tuple[Fraction, ...], ...]

# Finite points of an n-wide tile, infinity being the last: of all sets of small rationals these have (nearly) the
# least error; pairs ±p are preferred, because the rows of such a pair share their sums. Error of a 64-channel layer in
# float32, relative to the output's standard deviation, rms / max: F(4,3) 1.1e-6 / 6e-6, F(6,3) 3.3e-6 / 3e-5,
# F(5,3) 2.3e-6 / 2e-5, F(3,5) 2.3e-6 / 2e-5, F(4,5) 3.1e-6 / 3e-5. (For 7: 1/2 -1/2 2 has 2.7e-6, the best of all,
# -2 3/2 -2/5, 2.2e-6.)
POINTS = {
    6: "0 1 -1 2 -1/2",
    7: "0 1 -1 1/2 -1/2 3",
    8: "0 1 -1 1/2 -1/2 2 -2",
}

FAMILIES = ((5, 3), (3, 5), (4, 3), (6, 3), (4, 5))  # the F(m,r) that there is code for

# Those whose tiles may be one output shorter, along rows, columns or both: 13 outputs are 5 + 4 + 4. A short tile has
# all points but the last finite one, p'. Its own row of B^T for a point p, times (p - p'), goes with the row of G that
# the full tile has for p: short and full tiles share the transformed filters.
SHORTER = ((5, 3),)


class Transforms(NamedTuple):
    """F(m,r): AT is (m,n), G is (n,r), BT is (n,n)."""

    AT: Matrix
    G: Matrix
    BT: Matrix


@cache
def finite_points(n: int) -> list[Fraction]:
    return [Fraction(point) for point in POINTS[n].split()]


@cache
def transforms(m: int, r: int) -> Transforms:
    """The matrices of F(m,r); m + r - 1 must be a key of POINTS."""
    return from_points(finite_points(m + r - 1), m, r)


class Cut(NamedTuple):
    """Outputs along rows or columns in `tiles` tiles, the first `full` of m outputs, the others of m - 1."""

    tiles: int
    full: int

    def reach(self, m: int, r: int) -> int:
        """How many inputs the tiles see from the first one's corner on."""
        return self.full * m + (self.tiles - self.full) * (m - 1) + r - 1


def cut(outputs: int, m: int, r: int) -> Cut:
    """As few tiles of F(m,r) as there can be, and as many of them short as leave nothing out."""
    tiles = -(-outputs // m)
    return Cut(tiles, max(0, outputs - tiles * (m - 1)) if (m, r) in SHORTER else tiles)


def multiplications(outputs: tuple[int, int], m: int, r: int) -> int:
    """Of F(m,r) for one pair of channels: as many for a tile as it has points, also where it is cut off."""
    n, (down, across) = m + r - 1, (cut(size, m, r) for size in outputs)
    return (down.tiles * (n - 1) + down.full) * (across.tiles * (n - 1) + across.full)


def from_points(points: list[Fraction], m: int, r: int) -> Transforms:
    """The matrices of F(m,r) for n - 1 distinct finite points, and infinity.

    Row j of BT are the coefficients of the product of (x - points[i]) over i != j, and the last row that over all i;
    G takes the denominators, point by point, and the sign, so that BT's leading coefficients are 1.
    """
    n = m + r - 1
    if len(points) != n - 1 or len(set(points)) != n - 1:
        raise ValueError(f"F({m},{r}) needs {n - 1} distinct finite points, got {points}")
    at = tuple(tuple(p**i for p in points) + (Fraction(i == m - 1),) for i in range(m))
    g, bt = [], []
    for j, p in enumerate(points):
        others = points[:j] + points[j + 1 :]
        scale = Fraction(1)
        for other in others:
            scale *= p - other
        g.append(tuple(p**k / scale for k in range(r)))
        bt.append((*polynomial(others), Fraction(0)))
    g.append(tuple(Fraction(k == r - 1) for k in range(r)))
    bt.append(polynomial(points))
    return Transforms(at, tuple(g), tuple(bt))


def polynomial(roots: list[Fraction]) -> tuple[Fraction, ...]:
    """The coefficients, constant first, of the product of (x - root)."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        for i, c in enumerate(coefficients):
            shifted[i] -= root * c
        coefficients = shifted
    return tuple(coefficients)
