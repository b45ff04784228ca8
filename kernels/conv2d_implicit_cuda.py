"""2-D convolution on the GPU without columns: a tiled product that gathers its operand as it goes; conv2d_implicit.cu.

Float32 (or float64) throughout, whatever gemm_cuda.matmul_precision says. The gradients are conv2d_cuda's.
"""

from alexnet_np.device import Array
from alexnet_np.kernels.conv2d_cuda import describe, gradients
from alexnet_np.kernels.gpu.runtime import ceil_div, contiguous, empty, launch
from alexnet_np.ops.conv2d import Geometry

__all__ = ["compute", "gradients"]

THREADS = 256
ENOUGH_BLOCKS = 264  # two for each of an H100's 132 multiprocessors; with fewer, smaller tiles share the work better


def compute(
    x: Array, weight: Array, bias: Array | None, geometry: Geometry, relu: bool = False, tile: int | None = None
) -> Array:
    """Convolve; with `relu`, max(y, 0). `tile` (64 or 128) forces a tile size."""
    x, weight = contiguous(x), contiguous(weight)
    bias = None if bias is None else contiguous(bias)
    N, F = len(x), len(weight)
    y = empty((N, F, *geometry.output), x)
    pixels = N * geometry.output[0] * geometry.output[1]

    def grid(side: int) -> tuple[int, int, int]:
        return ceil_div(pixels, side), ceil_div(F // geometry.groups, side), geometry.groups

    if tile is None:
        blocks = grid(128)
        tile = 128 if blocks[0] * blocks[1] * blocks[2] >= ENOUGH_BLOCKS else 64
    arguments, defines = (x, weight, bias, y, describe(x, F, geometry, relu)), {"TILE": tile, "THREADS": THREADS}
    launch("conv2d_implicit", "conv2d_implicit", grid(tile), (THREADS,), *arguments, real=x.dtype, **defines)
    return y
