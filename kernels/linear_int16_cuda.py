"""The dense layer on the GPU on weights stored in 16 bits, for plans; see linear_int16.cu.

A few images by a warp an output, which reads the integers once; more by cuBLAS, in the arithmetic that
gemm_cuda.matmul_precision says, on the weights turned into floats again. From how many on: choices.py.
"""

from typing import NamedTuple

from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels import linear_cublas_cuda as cublas
from alexnet_np.kernels.gemm_cuda import precision_in_force
from alexnet_np.kernels.gpu.arguments import address
from alexnet_np.kernels.gpu.runtime import BLOCK, ceil_div, contiguous, empty, launch, launch_each
from alexnet_np.kernels.linear_rows_cuda import WARPS, Rows
from alexnet_np.kernels.problems import Problem

SHARING = 64  # weights that share a scale


class Packed(NamedTuple):
    """A weight (F,K): its integers (F,K) int16 and scales (F, ceil(K/64)), beside each other along K."""

    integers: Array
    scales: Array


def room(weight: Array) -> Packed:
    """Arrays for `weight`, not yet written."""
    F, K = weight.shape
    return Packed(empty((F, K), weight, "int16"), empty((F, ceil_div(K, SHARING)), weight))


def pack(weight: Array, into: Packed) -> None:
    """A scale is not finite where one of its weights is not: who asked must look."""
    weight, blocks = contiguous(weight), into.scales.size
    arguments, grid = (weight, *into, weight.shape[1], blocks), (ceil_div(blocks, WARPS),)
    launch("linear_int16", "linear_int16_pack", grid, (BLOCK,), *arguments, real=weight.dtype, **build(1, 1))


def multiply(x: Array, weight: Packed, bias: Array | None, relu: bool = False) -> Array:
    """y = x · weightᵀ + bias, (N,K) -> (N,F); with `relu`, max(y, 0). All in C order."""
    if choose(x, weight) == "rows":
        return by_rows(x, weight, bias, relu)
    F, K = weight.integers.shape
    wide = empty((F, K), x)
    launch_each("linear_int16", "linear_int16_widen", wide.size, *weight, wide, K, real=x.dtype, **build(1, 1))
    return cublas.multiply(x, cublas.prepare_weight(wide), bias, relu)


def by_rows(x: Array, weight: Packed, bias: Array | None, relu: bool) -> Array:
    N, (F, K) = len(x), weight.integers.shape
    y = empty((N, F), x)
    aligned = K % 4 == 0 and address(x) % 16 == 0 and address(weight.integers) % 8 == 0
    images = min(N, choices.sizes("linear", "gpu")["images"]) or 1
    grid, arguments = (ceil_div(F, WARPS), ceil_div(N, images)), (x, *weight, bias, y, Rows(N, F, K, relu))
    defines = build(4 if aligned else 1, images)
    launch("linear_int16", "linear_int16_rows", grid, (BLOCK,), *arguments, real=x.dtype, **defines)
    return y


def build(vector: int, images: int) -> dict[str, int]:
    return {"VECTOR": vector, "IMAGES": images}


def choose(x: Array, weight: Packed) -> str:
    """ "rows" or "cublas": what a plan's float32 weights of that shape would go by."""
    F, C = weight.integers.shape
    problem = Problem("linear", "gpu", dtype=str(x.dtype), batch=len(x), C=C, F=F, planned=True)
    return choices.choose(problem._replace(precision=precision_in_force())).algorithm
