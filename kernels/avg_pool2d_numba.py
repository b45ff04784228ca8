"""avg_pool2d on the `numba` backend: one way for each of the two orders in which images lie in memory (choices.py).

1. avg_pool2d_nchw_numba.py: plane by plane; any dtype, window and layout.
2. avg_pool2d_nhwc_numba.py: channels in vector lanes, where they are consecutive in memory.
"""

from __future__ import annotations

from types import ModuleType

from alexnet_np.device import Array
from alexnet_np.kernels import avg_pool2d_nchw_numba as nchw
from alexnet_np.kernels import avg_pool2d_nhwc_numba as nhwc
from alexnet_np.kernels import choices
from alexnet_np.kernels.cpu.image import lies_channels_last
from alexnet_np.kernels.cpu.simd import MACHINE
from alexnet_np.kernels.problems import Problem
from alexnet_np.ops.avg_pool2d import Geometry


def compute(x: Array, geometry: Geometry) -> Array:
    return way(x, geometry, "forward").compute(x, geometry)


def gradients(dy: Array, shape: tuple[int, ...], geometry: Geometry) -> Array:
    return way(dy, geometry, "backward").gradients(dy, shape, geometry)


def way(x: Array, geometry: Geometry, direction: str) -> ModuleType:
    """The module for x, or dy, (N,C,H,W) as it lies."""
    (N, C), (KH, KW) = x.shape[:2], geometry.kernel
    layout = "channels last" if lies_channels_last(x) else "C order"
    problem = Problem("avg_pool2d", direction=direction, dtype=str(x.dtype), batch=N, C=C, F=C, machine=MACHINE)
    problem = problem._replace(window=KH * KW, layout=layout, output=geometry.output)
    return nhwc if choices.choose(problem).algorithm == "nhwc" else nchw
