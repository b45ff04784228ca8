"""2-D convolution on the GPU, the naive version; see conv2d_direct.cu. The gradients are conv2d_im2col_cuda's."""

from alexnet_np.device import Array
from alexnet_np.kernels.conv2d_geometry_cuda import describe
from alexnet_np.kernels.conv2d_im2col_cuda import gradients
from alexnet_np.kernels.gpu.runtime import contiguous, empty, launch_each
from alexnet_np.ops.conv2d import Geometry

__all__ = ["compute", "gradients"]


def compute(x: Array, weight: Array, bias: Array | None, geometry: Geometry, relu: bool = False) -> Array:
    """Convolve; with `relu`, max(y, 0)."""
    x, weight = contiguous(x), contiguous(weight)
    bias = None if bias is None else contiguous(bias)
    y = empty((len(x), len(weight), *geometry.output), x)
    convolution = describe(x, len(weight), geometry, relu)
    launch_each("conv2d_direct", "conv2d_direct", y.size, x, weight, bias, y, convolution, real=x.dtype)
    return y
