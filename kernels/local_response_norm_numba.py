"""local_response_norm on the `numba` backend: a way for each of the two orders in which images lie (choices.py).

1. local_response_norm_nchw_numba.py: the window passes over whole rows of pixels; any dtype and layout.
2. local_response_norm_nhwc_numba.py: the window slides along a pixel's channels, where they are consecutive in memory.

3. local_response_norm_within_numba.py: windows within a map, as krizhevsky145 has them, in both orders.
"""

from __future__ import annotations

from types import ModuleType

from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels import local_response_norm_nchw_numba as nchw
from alexnet_np.kernels import local_response_norm_nhwc_numba as nhwc
from alexnet_np.kernels import local_response_norm_within_numba as within
from alexnet_np.kernels.cpu.image import lies_channels_last
from alexnet_np.kernels.cpu.simd import MACHINE
from alexnet_np.kernels.problems import Problem
from alexnet_np.ops.local_response_norm import Geometry


def compute(x: Array, geometry: Geometry) -> Array:
    """x (N,C,L), or (N,C,H,W) for windows within a map."""
    return way(x, geometry, "forward").compute(x, geometry)


def gradients(dy: Array, x: Array, geometry: Geometry) -> Array:
    return way(x, geometry, "backward").gradients(dy, x, geometry)


def way(x: Array, geometry: Geometry, direction: str) -> ModuleType:
    if geometry.region == "within":
        return within
    (N, C, L), layout = x.shape, "channels last" if lies_channels_last(x) else "C order"
    group = C // geometry.groups
    problem = Problem("local_response_norm", "cpu", direction, str(x.dtype), N, group, group)
    window = geometry.low + geometry.high + 1
    problem = problem._replace(window=window, output=(1, L), layout=layout, machine=MACHINE)
    return nhwc if choices.choose(problem).algorithm == "nhwc" else nchw
