"""conv2d on the `numba` backend: each convolution by the way that choices.py names for it.

Winograd (conv2d_winograd_batch_numba.py) and the direct kernel take float32 and channels-last memory, and hand out
channels-last memory: between layers nothing is rearranged. A vector not quite full of channels is filled up with zeros.
im2col takes what is left.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels import conv2d_direct_numba as direct
from alexnet_np.kernels import conv2d_im2col_numba as im2col
from alexnet_np.kernels import conv2d_winograd_batch_numba as winograd
from alexnet_np.kernels.cpu.image import channels_last, filled_up, packed
from alexnet_np.kernels.cpu.simd import MACHINE
from alexnet_np.kernels.problems import FILLED, formed, of_convolution
from alexnet_np.ops.conv2d import Geometry, Gradients, Needs


def compute(
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: Geometry,
    relu: bool = False,
    then: Callable[[Array, slice], None] | None = None,
) -> Array:
    """y, rectified if asked for.

    Where `as_winograd` is not None, `then(y, images)` is called for one slice of the batch after another, while that is
    in the cache; y is then channels-last memory (N,OH,OW,F).
    """
    F, choice = len(weight), choose(x, weight, geometry, "forward")
    if choice.form == FILLED:
        x, weight, bias = filled(x, weight, bias, geometry)
    if choice.algorithm == "winograd":
        y = winograd.compute(x, weight, bias, geometry, winograd.fast_form(choice, weight, geometry), relu, then)
    else:
        y = (direct if choice.algorithm == "direct" else im2col).compute(x, weight, bias, geometry)
        y = np.maximum(y, 0, out=y) if relu else y
    return y if len(weight) == F else packed(y[:, :F])


def gradients(dy: Array, x: Array, weight: Array, geometry: Geometry, needs: Needs) -> Gradients:
    choice = choose(x, weight, geometry, "backward")
    if choice.algorithm == "im2col":
        return im2col.gradients(dy, x, weight, geometry, needs)
    (F, C), narrow = weight.shape[:2], choice.form == FILLED
    if narrow:
        x, weight, _ = filled(x, weight, None, geometry)
        dy = filled_up(dy, len(weight))
    flat, yi = channels_last(dy)
    backward = winograd.Backward(x, weight, geometry, winograd.fast_form(choice, weight, geometry), needs)
    for images in winograd.cuts(len(x), yi.image):
        backward.add(flat, yi.skip(images.start), images)
    dx, dweight, dbias = backward.gradients()
    if narrow:  # to the channels and filters that there are
        dx = None if dx is None else packed(dx[:, :C])
        dweight = None if dweight is None else np.ascontiguousarray(dweight[:F, :C])
        dbias = None if dbias is None else dbias[:F]
    return dx, dweight, dbias


def choose(x: Array, weight: Array, geometry: Geometry, direction: str) -> choices.Choice:
    return choices.choose(of_convolution(x, weight, geometry, direction=direction, machine=MACHINE))


def as_winograd(x: Array, weight: Array, geometry: Geometry, direction: str) -> winograd.Fast | None:
    """How Winograd computes this convolution as it is, or None where it does not."""
    choice = choose(x, weight, geometry, direction)
    if choice.algorithm != "winograd" or choice.form == FILLED:
        return None
    return winograd.fast_form(choice, weight, geometry)


def filled(x: Array, weight: Array, bias: Array | None, geometry: Geometry) -> tuple[Array, Array, Array | None]:
    """The operands with channels and filters of zeros added, which change no sum."""
    (F, C), wide = weight.shape[:2], formed(of_convolution(x, weight, geometry, machine=MACHINE), FILLED)
    wide_weight = np.pad(weight, ((0, wide.F - F), (0, wide.C - C), (0, 0), (0, 0)))
    return filled_up(x, wide.C), wide_weight, None if bias is None else np.pad(bias, (0, wide.F - F))
