"""2-D convolution on the GPU without columns: a tiled product that gathers its operand as it goes; conv2d_implicit.cu.

Float32 (or float64) throughout, whatever gemm_cuda.matmul_precision says. The gradients are conv2d_im2col_cuda's.
"""

from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError
from alexnet_np.kernels import choices
from alexnet_np.kernels.conv2d_geometry_cuda import describe
from alexnet_np.kernels.conv2d_im2col_cuda import gradients
from alexnet_np.kernels.gpu.runtime import ceil_div, contiguous, empty, launch
from alexnet_np.kernels.problems import of_convolution
from alexnet_np.ops.conv2d import Geometry

__all__ = ["compute", "gradients"]

THREADS = 256
TILES = (64, 128)


def compute(
    x: Array, weight: Array, bias: Array | None, geometry: Geometry, relu: bool = False, tile: int | None = None
) -> Array:
    """Convolve; with `relu`, max(y, 0). `tile` (64 or 128) forces a tile size."""
    x, weight = contiguous(x), contiguous(weight)
    bias = None if bias is None else contiguous(bias)
    N, F, G = len(x), len(weight), geometry.groups
    y = empty((N, F, *geometry.output), x)
    if tile is None:
        tile = choices.choose(of_convolution(x, weight, geometry, device="gpu")).sizes["tile"]
    if tile not in TILES:
        raise ArgumentError(f"cuda: conv2d_implicit has tiles of {' and '.join(map(str, TILES))}, not {tile}")
    grid = (ceil_div(N * geometry.output[0] * geometry.output[1], tile), ceil_div(F // G, tile), G)
    arguments, defines = (x, weight, bias, y, describe(x, F, geometry, relu)), {"TILE": tile, "THREADS": THREADS}
    launch("conv2d_implicit", "conv2d_implicit", grid, (THREADS,), *arguments, real=x.dtype, **defines)
    return y
