"""2-D convolution (cross-correlation, as every deep-learning library means it) by im2col + GEMM.

    y[n,f,i,j] = bias[f] + sum over c,kh,kw of  weight[f,c,kh,kw] * xp[n, c, i*SH + kh*DH, j*SW + kw*DW]

with xp the zero-padded input, S the stride, D the dilation; with groups, filter f sees only its group's channels.
OH = floor((H + top + bottom - DH*(KH-1) - 1) / SH) + 1, and OW likewise.

im2col writes every window as a column, so that one matrix product does all the sums; col2im is its adjoint.
Source: Chellapilla, Puri, Simard, "High Performance Convolutional Neural Networks for Document Processing" (2006),
sec. 2; gradients: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016), ch. 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from alexnet_np.arguments import integer, pair, shown
from alexnet_np.arguments import room as check_room
from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module
from alexnet_np.errors import ArgumentError, ShapeError
from alexnet_np.ops.checks import Needs, batched, brief, cached, float_arrays, gradient, wanted

Gradients = tuple[Array | None, Array | None, Array | None]

COLUMN_BYTES = 32 << 20  # im2col works on slices of the batch whose columns fit in this, never on all of it

TERMS = 256  # the longest sum left to one matrix product: 1700 terms at once have 1.6 times the error of torch's


class Geometry(NamedTuple):
    """Every hyper-parameter of one convolution, normalised: all that `compute` and `gradients` need to know."""

    stride: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, bottom, left, right
    dilation: tuple[int, int]
    groups: int
    kernel: tuple[int, int]
    output: tuple[int, int]  # OH, OW


class Cache(NamedTuple):
    x: Array
    weight: Array
    has_bias: bool
    geometry: Geometry
    unbatched: bool

    def __repr__(self) -> str:
        return brief(self)


def forward(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[Array, Cache]:
    """Convolve x (N,C,H,W) or (C,H,W) with weight (F,C/groups,KH,KW), plus bias (F,); float32 or float64.

    `stride`, `dilation`: int or pair. `padding`: int, pair, "valid", "same" (stride 1; the odd pixel goes right and
    bottom, as in torch), or ((top, bottom), (left, right)), which torch does not have.
    Returns y (N,F,OH,OW) and the cache for `backward`.
    The trap: "same" and "valid" are strings; a pair is (height, width), not (before, after).
    Raises ShapeError, DtypeError, ArgumentError.
    """
    bias, cache = checked(x, weight, bias, stride, padding, dilation, groups)
    y = implementation("conv2d", cache.x).compute(cache.x, cache.weight, bias, cache.geometry)
    return (y[0] if cache.unbatched else y), cache


def checked(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[Array | None, Cache]:
    """The bias as an array, and what else one convolution is made of: all there is to do before the first sum."""
    x, weight, bias = float_arrays("conv2d", "bias", x=x, weight=weight, bias=bias)
    x, unbatched = batched("conv2d", x)
    geometry = find_geometry(x, weight, bias, stride, padding, dilation, groups)
    top, bottom, left, right = geometry.padding
    N, C, H, W = x.shape
    check_room("conv2d", "the padded x", (N, C, H + top + bottom, W + left + right), x.dtype.itemsize)
    check_room("conv2d", "y", (N, len(weight), *geometry.output), x.dtype.itemsize)
    return bias, Cache(x, weight, bias is not None, geometry, unbatched)


def backward(dy: Any, cache: Cache, needs: Needs = (True, True, True)) -> Gradients:
    """dx, dweight, dbias for dy of y's shape; those not asked for in `needs`, and a missing bias, are None.

    dx = col2im(weightᵀ · dy);  dweight = sum over n of dy · im2col(x)ᵀ;  dbias = sum over n,i,j of dy.
    """
    x, weight, has_bias, geometry, unbatched = cached("conv2d", cache, Cache)
    shape = (len(x), len(weight), *geometry.output)
    dy = gradient("conv2d", dy, shape[1:] if unbatched else shape, x)
    dy = dy[None] if unbatched else dy
    dx_wanted, dweight_wanted, dbias_wanted = wanted("conv2d", needs)
    needs = (dx_wanted, dweight_wanted, dbias_wanted and has_bias)
    dx, dweight, dbias = implementation("conv2d", x).gradients(dy, x, weight, geometry, needs)
    return (dx[0] if unbatched and dx is not None else dx), dweight, dbias


def compute(x: Array, weight: Array, bias: Array | None, geometry: Geometry) -> Array:
    xp = array_module(x)
    G = geometry.groups
    N, F = len(x), len(weight)
    y = xp.empty((N, G, F // G, geometry.output[0] * geometry.output[1]), x.dtype)
    filters = as_matrices(weight, G)
    for batch in slices(x, geometry):  # columns are nested in the call, so that one slice's are gone before the next's
        y[batch] = product(filters, im2col(x[batch], geometry))
    y = y.reshape(N, F, *geometry.output)
    if bias is not None:
        y += bias[:, None, None]
    return y


def gradients(dy: Array, x: Array, weight: Array, geometry: Geometry, needs: Needs) -> Gradients:
    xp = array_module(x)
    G = geometry.groups
    N, F = len(x), len(weight)
    filters = as_matrices(weight, G)
    dy = dy.reshape(N, G, F // G, geometry.output[0] * geometry.output[1])
    dx = xp.zeros(x.shape, x.dtype) if needs[0] else None
    dfilters = xp.zeros_like(filters) if needs[1] else None
    dbias = dy.sum((0, 3)).reshape(F) if needs[2] else None
    for batch in slices(x, geometry) if needs[0] or needs[1] else ():
        if dx is not None:
            dx[batch] = col2im(product(filters.swapaxes(1, 2), dy[batch]), x[batch].shape, geometry)
        if dfilters is not None:
            dfilters += xp.matmul(dy[batch], im2col(x[batch], geometry).swapaxes(2, 3)).sum(0)
    return dx, None if dfilters is None else dfilters.reshape(weight.shape), dbias


def product(a: Array, b: Array) -> Array:
    """a · b, long sums cut in pieces: the rounding error of a float32 sum grows with the square root of its length."""
    pieces = [slice(start, start + TERMS) for start in range(0, max(1, a.shape[-1]), TERMS)]
    total = array_module(a).matmul(a[..., pieces[0]], b[..., pieces[0], :])
    for piece in pieces[1:]:
        total += array_module(a).matmul(a[..., piece], b[..., piece, :])
    return total


def as_matrices(weight: Array, groups: int) -> Array:
    """(F, C/G, KH, KW) -> (G, F/G, C/G*KH*KW)."""
    F, CG, KH, KW = weight.shape
    return weight.reshape(groups, F // groups, CG * KH * KW)


def im2col(x: Array, geometry: Geometry) -> Array:
    """(N,C,H,W) -> (N, G, C/G*KH*KW, OH*OW): every window written out as a column."""
    xp = array_module(x)
    N, C = x.shape[:2]
    (SH, SW), (DH, DW), (KH, KW) = geometry.stride, geometry.dilation, geometry.kernel
    span = ((KH - 1) * DH + 1, (KW - 1) * DW + 1)
    windows = xp.lib.stride_tricks.sliding_window_view(pad(x, geometry), span, axis=(2, 3))
    windows = windows[:, :, ::SH, ::SW, ::DH, ::DW]  # (N, C, OH, OW, KH, KW), still a view
    columns = xp.ascontiguousarray(windows.transpose(0, 1, 4, 5, 2, 3))
    return columns.reshape(N, geometry.groups, C // geometry.groups * KH * KW, geometry.output[0] * geometry.output[1])


def col2im(columns: Array, shape: tuple[int, ...], geometry: Geometry) -> Array:
    """The adjoint of im2col: every column added back onto the window it came from, giving (N,C,H,W)."""
    xp = array_module(columns)
    N, C, H, W = shape
    (SH, SW), (DH, DW), (KH, KW), (OH, OW) = geometry.stride, geometry.dilation, geometry.kernel, geometry.output
    top, bottom, left, right = geometry.padding
    columns = columns.reshape(N, C, KH, KW, OH, OW)
    padded = xp.zeros((N, C, H + top + bottom, W + left + right), columns.dtype)
    for kh in range(KH):
        for kw in range(KW):
            rows = slice(kh * DH, kh * DH + (OH - 1) * SH + 1, SH)
            cols = slice(kw * DW, kw * DW + (OW - 1) * SW + 1, SW)
            padded[:, :, rows, cols] += columns[:, :, kh, kw]
    return padded[:, :, top : top + H, left : left + W]


def pad(x: Array, geometry: Geometry) -> Array:
    top, bottom, left, right = geometry.padding
    if not any(geometry.padding):
        return x
    return array_module(x).pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))


def slices(x: Array, geometry: Geometry, most: int | None = None) -> Iterator[slice]:
    """Slices of the batch whose columns stay within `most` bytes, COLUMN_BYTES by default (one image at the least)."""
    KH, KW = geometry.kernel
    image = x.shape[1] * KH * KW * geometry.output[0] * geometry.output[1] * x.dtype.itemsize
    step = max(1, (most or COLUMN_BYTES) // max(1, image))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def find_geometry(
    x: Array, weight: Array, bias: Array | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Geometry:
    """Check that the arguments fit together and normalise them."""
    if weight.ndim != 4:
        raise ShapeError(f"conv2d: weight must be (F,C/groups,KH,KW), got shape {weight.shape}")
    F, CG, KH, KW = weight.shape
    C, H, W = x.shape[1:]
    groups = integer("conv2d", "groups", groups, 1)
    if F % groups or CG * groups != C:
        raise ShapeError(
            f"conv2d: weight {weight.shape} with groups={groups} takes {CG * groups} channels and a multiple of "
            f"{groups} filters, but x has {C} channels and weight {F} filters"
        )
    if bias is not None and bias.shape != (F,):
        raise ShapeError(f"conv2d: bias has shape {bias.shape}, weight {weight.shape} needs ({F},)")
    if min(F, KH, KW) < 1:
        raise ShapeError(f"conv2d: weight {weight.shape} has no filters or an empty kernel")
    if min(H, W) < 1:
        raise ShapeError(f"conv2d: x has an empty side: {x.shape}")
    steps, spread = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    sides = find_padding(padding, (KH, KW), steps, spread)
    room = (H + sides[0] + sides[1] - spread[0] * (KH - 1) - 1, W + sides[2] + sides[3] - spread[1] * (KW - 1) - 1)
    if min(room) < 0:
        raise ShapeError(
            f"conv2d: a {KH}x{KW} kernel with dilation {spread} is larger than the input {H}x{W} with padding {sides}"
        )
    return Geometry(steps, sides, spread, groups, (KH, KW), (room[0] // steps[0] + 1, room[1] // steps[1] + 1))


def find_padding(
    padding: Any, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """`padding` as (top, bottom, left, right)."""
    if isinstance(padding, str) and padding == "valid":
        return 0, 0, 0, 0
    if isinstance(padding, str) and padding == "same":
        if stride != (1, 1):
            raise ArgumentError(f"conv2d: padding='same' needs stride 1, got {stride}")
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2
    if isinstance(padding, str):
        raise ArgumentError(f"conv2d: padding must be an int, a pair, 'same' or 'valid', got {shown(padding)}")
    if isinstance(padding, tuple | list) and len(padding) == 2 and all(isinstance(p, tuple | list) for p in padding):
        return (*pair("conv2d", "padding", padding[0], 0), *pair("conv2d", "padding", padding[1], 0))
    height, width = pair("conv2d", "padding", padding, 0)
    return height, height, width, width
