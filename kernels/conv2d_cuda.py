"""conv2d on the `cuda` backend: each convolution by the way that choices.py names for it.

The signatures of alexnet_np/ops/conv2d.py; `convolve` is for plans, whose weights are prepared once.
"""

from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels import conv2d_direct_cuda as direct
from alexnet_np.kernels import conv2d_im2col_cuda as im2col
from alexnet_np.kernels import conv2d_implicit_cuda as implicit
from alexnet_np.kernels import conv2d_winograd_cuda as winograd
from alexnet_np.kernels.conv2d_im2col_cuda import gradients, prepare_filters
from alexnet_np.kernels.gemm_cuda import Prepared, precision_in_force
from alexnet_np.kernels.problems import of_convolution
from alexnet_np.ops.conv2d import Geometry

__all__ = ["choose", "compute", "convolve", "gradients", "prepare_filters"]

WAYS = {"im2col": im2col, "implicit": implicit, "direct": direct}


def compute(x: Array, weight: Array, bias: Array | None, geometry: Geometry, relu: bool = False) -> Array:
    """Convolve; with `relu`, max(y, 0) in the pass that adds the bias."""
    return by(choose(x, weight, geometry), x, weight, bias, geometry, relu)


def convolve(
    x: Array, weight: Array, prepared: Prepared, bias: Array | None, geometry: Geometry, relu: bool, exact: bool
) -> Array:
    """`compute` in a plan, whose weight comes as it is and prepared; all in C order."""
    choice = choose(x, weight, geometry, planned=True, exact=exact)
    if choice.algorithm == "im2col":
        return im2col.convolve(x, prepared, bias, geometry, relu)
    return by(choice, x, weight, bias, geometry, relu)


def by(choice: choices.Choice, x: Array, weight: Array, bias: Array | None, geometry: Geometry, relu: bool) -> Array:
    if choice.algorithm == "winograd":
        return winograd.compute(x, weight, bias, geometry, relu, choice.m)
    return WAYS[choice.algorithm].compute(x, weight, bias, geometry, relu)


def choose(x: Array, weight: Array, geometry: Geometry, planned: bool = False, exact: bool = False) -> choices.Choice:
    facts = {"device": "gpu", "planned": planned, "exact": exact, "precision": precision_in_force()}
    return choices.choose(of_convolution(x, weight, geometry, **facts))
