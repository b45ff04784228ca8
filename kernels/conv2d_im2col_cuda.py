"""2-D convolution on the GPU by im2col and cuBLAS, one large product a slice of the batch; see conv2d_im2col.cu.

The arithmetic of the products is gemm_cuda.matmul_precision's.
"""

from collections.abc import Iterator

from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels.conv2d_geometry_cuda import describe
from alexnet_np.kernels.gemm_cuda import Prepared, gemm, prepare
from alexnet_np.kernels.gpu.runtime import contiguous, empty, launch_each, zeros
from alexnet_np.kernels.gpu.sums import sum_columns, sum_rows
from alexnet_np.ops import conv2d
from alexnet_np.ops.conv2d import Geometry, Needs


def compute(x: Array, weight: Array, bias: Array | None, geometry: Geometry, relu: bool = False) -> Array:
    """Convolve; with `relu`, max(y, 0) in the same pass that adds the bias."""
    x, bias = contiguous(x), None if bias is None else contiguous(bias)
    return convolve(x, prepare_filters(weight, geometry.groups), bias, geometry, relu)


def prepare_filters(weight: Array, groups: int) -> Prepared:
    """(F,C/G,KH,KW) -> (G, F/G, C/G*KH*KW)."""
    F = len(weight)
    return prepare(contiguous(weight).reshape(groups, F // groups, weight[0].size))


def convolve(x: Array, filters: Prepared, bias: Array | None, geometry: Geometry, relu: bool) -> Array:
    """`compute` with the filters prepared; x and bias in C order."""
    G, F = geometry.groups, geometry.groups * filters.shape[1]
    y = empty((len(x), F, *geometry.output), x)
    for batch in slices(x, geometry):
        columns = im2col(x[batch], geometry)
        product = empty((G, F // G, columns.shape[2]), x)
        gemm(filters, columns, product)
        convolution = describe(x[batch], F, geometry, relu)
        launch_each("conv2d_im2col", "conv2d_finish", product.size, product, bias, y[batch], convolution, real=x.dtype)
    return y


def gradients(
    dy: Array, x: Array, weight: Array, geometry: Geometry, needs: Needs
) -> tuple[Array | None, Array | None, Array | None]:
    dy, x, weight = contiguous(dy), contiguous(x), contiguous(weight)
    G, (N, F), pixels = geometry.groups, dy.shape[:2], geometry.output[0] * geometry.output[1]
    filters = prepare_filters(weight, G).transposed() if needs[0] else None
    dx = empty(x.shape, x) if needs[0] else None
    dfilters = zeros((G, F // G, weight[0].size), x) if needs[1] else None
    dbias = sum_columns(sum_rows(dy.reshape(N * F, pixels)).reshape(N, F)) if needs[2] else None
    for batch in slices(x, geometry) if needs[0] or needs[1] else ():
        gathered = prepare(gather(dy[batch], x[batch], geometry))
        if dx is not None and filters is not None:
            dcolumns = empty((G, filters.shape[1], gathered.shape[2]), x)
            gemm(filters, gathered, dcolumns)
            col2im(dcolumns, dx[batch], geometry)
        if dfilters is not None:
            gemm(gathered, im2col(x[batch], geometry).swapaxes(1, 2), dfilters, accumulate=True)
    return dx, None if dfilters is None else dfilters.reshape(weight.shape), dbias


def im2col(x: Array, geometry: Geometry) -> Array:
    """(n,C,H,W) -> (G, C/G*KH*KW, n*OH*OW): the columns of all the images side by side."""
    n, C = x.shape[:2]
    (KH, KW), pixels = geometry.kernel, geometry.output[0] * geometry.output[1]
    columns = empty((geometry.groups, C // geometry.groups * KH * KW, n * pixels), x)
    convolution = describe(x, geometry.groups, geometry)
    launch_each("conv2d_im2col", "conv2d_im2col", n * C * pixels, x, columns, convolution, real=x.dtype)
    return columns


def col2im(columns: Array, dx: Array, geometry: Geometry) -> None:
    """The adjoint of im2col, into dx (n,C,H,W)."""
    convolution = describe(dx, geometry.groups, geometry)
    launch_each("conv2d_im2col", "conv2d_col2im", dx.size, columns, dx, convolution, real=dx.dtype)


def gather(dy: Array, x: Array, geometry: Geometry) -> Array:
    """(n,F,OH,OW) -> (G, F/G, n*OH*OW)."""
    n, F, OH, OW = dy.shape
    gathered = empty((geometry.groups, F // geometry.groups, n * OH * OW), dy)
    launch_each("conv2d_im2col", "conv2d_gather", dy.size, dy, gathered, describe(x, F, geometry), real=dy.dtype)
    return gathered


def slices(x: Array, geometry: Geometry) -> Iterator[slice]:
    return conv2d.slices(x, geometry, choices.sizes("conv2d", "gpu")["column_bytes"])
