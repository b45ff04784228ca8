"""max_pool2d on the `numba` backend: one way for each of the two orders in which images lie in memory (choices.py).

1. max_pool2d_nchw_numba.py: plane by plane; any dtype, window and layout.
2. max_pool2d_nhwc_numba.py: channels in vector lanes, where they are consecutive in memory.
"""

from __future__ import annotations

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels import max_pool2d_nchw_numba as nchw
from alexnet_np.kernels import max_pool2d_nhwc_numba as nhwc
from alexnet_np.kernels.cpu.image import lies_channels_last
from alexnet_np.kernels.cpu.simd import MACHINE
from alexnet_np.kernels.problems import Problem
from alexnet_np.ops.max_pool2d import Geometry


def compute(x: Array, geometry: Geometry) -> tuple[Array, Array]:
    way = nhwc if channels_last(x.shape, x.dtype, geometry, lies_channels_last(x)) else nchw
    return way.compute(x, geometry)


def gradients(dy: Array, switches: Array, shape: tuple[int, ...], geometry: Geometry) -> Array:
    way = nhwc if channels_last(shape, dy.dtype, geometry, kept_channels_last(switches)) else nchw
    return way.gradients(dy, switches, shape, geometry)


def gradients_to_all(dy: Array, x: Array, y: Array, switches: Array, geometry: Geometry) -> Array:
    return nchw.gradients_to_all(dy, x, y, switches, geometry)


def channels_last(shape: tuple[int, ...], dtype: np.dtype, geometry: Geometry, lies: bool = True) -> bool:
    """Whether x (N,C,H,W), lying channels-last if `lies`, is pooled by the channels-last kernels."""
    (KH, KW), C, layout = geometry.kernel, shape[1], "channels last" if lies else "C order"
    problem = Problem("max_pool2d", dtype=str(dtype), batch=shape[0], C=C, F=C, layout=layout, machine=MACHINE)
    problem = problem._replace(window=KH * KW, dilation=max(geometry.dilation), output=geometry.output)
    return choices.choose(problem).algorithm == "nhwc"


def kept_channels_last(switches: Array) -> bool:
    """Whether these are switches as the channels-last kernels leave them behind."""
    places = switches.transpose(0, 2, 3, 1)
    return switches.dtype == np.uint8 and places.flags.c_contiguous and places.flags.writeable
