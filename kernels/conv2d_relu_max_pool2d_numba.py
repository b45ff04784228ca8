"""A convolution, the ReLU after it, and perhaps the max pooling after that, a few images at a time.

1. Forward: ReLU is part of the convolution's last step, and pooling reads what is still in the cache.
2. Backward: the gradient before ReLU exists for some images at a time only. Pooling gathers it, ReLU's mask is laid
   over it, and both gradients of the convolution read it, all in the cache. For AlexNet at batch 128 that spares
   writing 230 MB once and reading them four times.

The kernels are those of the three ops, each parallel in its own way; this file only decides on what slice of the batch
they work. Semantics: alexnet_np/ops/{conv2d,relu,max_pool2d}.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels import conv2d_numba as conv2d
from alexnet_np.kernels import conv2d_winograd_batch_numba as batch
from alexnet_np.kernels import max_pool2d_nhwc_numba as nhwc
from alexnet_np.kernels import max_pool2d_numba as max_pool2d
from alexnet_np.kernels import relu_numba
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.image import channels_last, framed, lies_channels_last
from alexnet_np.ops.conv2d import Geometry, Gradients, Needs
from alexnet_np.ops.max_pool2d import Geometry as Windows


class Pooled(NamedTuple):
    y: Array
    switches: Array


def compute(
    x: Array, weight: Array, bias: Array | None, geometry: Geometry, windows: Windows | None
) -> tuple[Array, Pooled | None]:
    """ReLU's output (N,F,OH,OW), and the pooling's if there is one."""
    if windows is None:
        return conv2d.compute(x, weight, bias, geometry, relu=True), None
    together = conv2d.as_winograd(x, weight, geometry, "forward") is not None
    if not (together and max_pool2d.channels_last((len(x), len(weight)), x.dtype, windows)):
        y = conv2d.compute(x, weight, bias, geometry, relu=True)
        return y, Pooled(*max_pool2d.compute(y, windows))
    N, F = len(x), len(weight)
    pooled = memory.empty((N, *windows.output, F))
    switches = memory.empty(pooled.shape, np.uint8)

    def pool(y: Array, images: slice) -> None:
        nhwc.pool_images(y[images], windows, pooled[images], switches[images])

    y = conv2d.compute(x, weight, bias, geometry, relu=True, then=pool)
    return y, Pooled(pooled.transpose(0, 3, 1, 2), switches.transpose(0, 3, 1, 2))


def gradients(
    dy: Array,
    y: Array,
    x: Array,
    weight: Array,
    geometry: Geometry,
    needs: Needs,
    switches: Any,
    windows: Windows | None,
) -> Gradients:
    """The convolution's dx, dweight and dbias for dy, the gradient of ReLU's output `y` or of the pooling's output."""
    fast = conv2d.as_winograd(x, weight, geometry, "backward")
    lies = fast is not None and dy.size and dy.dtype == np.float32 and lies_channels_last(y)
    if windows is not None:
        lies = lies and max_pool2d.channels_last(y.shape, dy.dtype, windows, max_pool2d.kept_channels_last(switches))
    if fast is None or not lies:
        if windows is not None:
            dy = max_pool2d.gradients(dy, switches, y.shape, windows)
        return conv2d.gradients(relu_numba.gradients(dy, y), x, weight, geometry, needs)
    N, F, H, W = y.shape
    given, rectified = channels_last(dy)[0].reshape(N, -1), y.transpose(0, 2, 3, 1)
    yi = framed(F, H, W)
    backward = batch.Backward(x, weight, geometry, fast, needs)
    for images in batch.cuts(N, yi.image):
        inner = memory.empty((images.stop - images.start, H, W, F))
        if windows is None:
            incoming = given[images].reshape(-1)
        else:
            incoming = inner.reshape(-1)
            places = switches.transpose(0, 2, 3, 1)[images]
            nhwc.unpool_images(given[images].reshape(-1), places, windows, inner)
        relu_numba.mask(incoming, rectified[images].reshape(-1), inner.reshape(-1))
        backward.add(inner.reshape(-1), yi, images)
    return backward.gradients()
