"""What the kernels of a convolution are told of it; see conv2d_geometry.cuh."""

from typing import NamedTuple

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.window import Window, sliding
from alexnet_np.ops.conv2d import Geometry


class Convolution(NamedTuple):
    """The twin of `struct Convolution` in conv2d_geometry.cuh."""

    window: Window
    N: int
    F: int
    groups: int
    relu: bool


def describe(x: Array, F: int, geometry: Geometry, relu: bool = False) -> Convolution:
    """Of images x with F filters."""
    top, _, left, _ = geometry.padding
    steps = geometry.stride, geometry.dilation
    window = sliding(x.shape, geometry.output, geometry.kernel, steps, (top, left))
    return Convolution(window, len(x), F, geometry.groups, relu)
