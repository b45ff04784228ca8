"""2-D convolution on the GPU by Winograd, F(m,r) and cuBLAS, a slice of the batch at a time; see conv2d_winograd.cu.

Strict float32 (or float64), stride 1. The filters are transformed in every call, for training changes them; that reads
and writes far less than a product does. The gradients are conv2d_im2col_cuda's.
"""

from collections.abc import Iterator

from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError
from alexnet_np.kernels import choices
from alexnet_np.kernels.conv2d_geometry_cuda import describe
from alexnet_np.kernels.conv2d_im2col_cuda import gradients
from alexnet_np.kernels.conv2d_winograd_transforms import FAMILIES
from alexnet_np.kernels.gemm_cuda import gemm
from alexnet_np.kernels.gpu.runtime import ceil_div, contiguous, empty, launch_each
from alexnet_np.ops.conv2d import Geometry

__all__ = ["compute", "gradients"]


def compute(
    x: Array, weight: Array, bias: Array | None, geometry: Geometry, relu: bool = False, m: int | None = None
) -> Array:
    """Convolve; with `relu`, max(y, 0). `m`: outputs along a tile's side, by default the fewest that there is code for.

    Raises ArgumentError for an F(m,r) that there is no code for.
    """
    x, weight = contiguous(x), contiguous(weight)
    bias = None if bias is None else contiguous(bias)
    (N, C, _, _), (F, of_group, r, _), G = x.shape, weight.shape, geometry.groups
    m = min((m for m, taps in FAMILIES if taps == r), default=0) if m is None else m
    if (m, r) not in FAMILIES:
        known = ", ".join(f"F({m},{r})" for m, r in FAMILIES)
        raise ArgumentError(f"cuda: conv2d_winograd has no F({m},{r}), only {known}")
    build, points = {"M": m, "R": r}, (m + r - 1) ** 2
    y, u = empty((N, F, *geometry.output), x), empty((points * G, F // G, of_group), x)
    launch_each("conv2d_winograd", "winograd_filters", weight.size // r**2, weight, u, real=x.dtype, **build)
    of_image = ceil_div(geometry.output[0], m) * ceil_div(geometry.output[1], m)
    for images in slices(N, points * (C + F) * of_image * x.itemsize):
        part, into = x[images], y[images]
        tiles, conv = len(part) * of_image, describe(part, F, geometry, relu)
        strays, v = empty((tiles,), x, "uint8"), empty((points * G, C // G, tiles), x)
        pixels = empty((len(part), *x.shape[2:]), x)
        launch_each("conv2d_winograd", "winograd_magnitudes", pixels.size, part, pixels, conv, real=x.dtype, **build)
        launch_each("conv2d_winograd", "winograd_mark", tiles, pixels, strays, conv, real=x.dtype, **build)
        launch_each("conv2d_winograd", "winograd_input", C * tiles, part, v, conv, tiles, real=x.dtype, **build)
        products = empty((points * G, F // G, tiles), x)
        gemm(u, v, products)
        given = (products, bias, into, strays, conv, tiles)
        launch_each("conv2d_winograd", "winograd_output", F * tiles, *given, real=x.dtype, **build)
        again = (part, weight, bias, into, strays, conv)
        launch_each("conv2d_winograd", "winograd_redo", into.size, *again, real=x.dtype, **build)
    return y


def slices(N: int, image_bytes: int) -> Iterator[slice]:
    """The batch in parts whose V and products take no more than choices.py says of columns."""
    count = max(1, choices.sizes("conv2d", "gpu")["column_bytes"] // max(1, image_bytes))
    for first in range(0, N, count):
        yield slice(first, min(first + count, N))
