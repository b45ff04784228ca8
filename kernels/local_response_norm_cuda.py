"""Local response normalisation on the GPU; see the two .cu. The signatures of ops/local_response_norm.py."""

from typing import NamedTuple

from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels.gpu.runtime import BLOCK, ceil_div, contiguous, empty, launch, launch_each
from alexnet_np.kernels.problems import Problem
from alexnet_np.ops.local_response_norm import Geometry, by_group


class Norm(NamedTuple):
    """The twin of `struct Norm` in local_response_norm.cu."""

    C: int
    L: int
    low: int
    high: int
    scale: float
    beta: float
    k: float


class Area(NamedTuple):
    """The twin of `struct Area` in local_response_norm_within.cu."""

    H: int
    W: int
    low: int
    high: int
    scale: float
    beta: float
    k: float


def compute(x: Array, geometry: Geometry) -> Array:
    """x (N,C,L), or (N,C,H,W) for windows within a map."""
    x = contiguous(x)
    y = empty(x.shape, x)
    if geometry.region == "within":
        launch_within("forward", geometry, x, y)
    else:
        launch_way("forward", geometry, *(by_group(array, geometry.groups) for array in (x, y)))
    return y


def gradients(dy: Array, x: Array, geometry: Geometry) -> Array:
    dy, x = contiguous(dy), contiguous(x)
    dx = empty(x.shape, x)
    if geometry.region == "within":
        pull = empty(x.shape, x)  # of each place on those in its window
        launch_within("pull", geometry, dy, x, pull, dx)
        launch_within("backward", geometry, pull, x, dx)
    else:
        launch_way("backward", geometry, *(by_group(array, geometry.groups) for array in (dy, x, dx)))
    return dx


def launch_within(what: str, geometry: Geometry, *arrays: Array) -> None:
    low, high, scale, beta, k = geometry[:5]
    H, W = arrays[0].shape[2:]
    area = Area(H, W, min(low, max(H, W)), min(high, max(H, W)), scale, beta, k)
    name, real = f"local_response_norm_within_{what}", arrays[0].dtype
    defines = {"THREE_QUARTERS": int(beta == 0.75)}
    launch_each("local_response_norm_within", name, arrays[0].size, *arrays, area, real=real, **defines)


def launch_way(direction: str, geometry: Geometry, *arrays: Array) -> None:
    """By one of the versions of the .cu, as choices.py says: where the window fits in registers, by the second."""
    N, C, L = arrays[0].shape
    problem = Problem("local_response_norm", "gpu", direction, str(arrays[0].dtype), batch=N, C=C, F=C)
    choice = choices.choose(problem._replace(window=geometry.low + geometry.high + 1))
    if choice.algorithm == "naive":
        return launch_naive(direction, geometry, *arrays)
    run = choice.sizes["run"]
    grid = (ceil_div(N * L, BLOCK), ceil_div(C, run))
    defines = {"LOW": geometry.low, "HIGH": geometry.high, "RUN": run, "THREE_QUARTERS": int(geometry.beta == 0.75)}
    name, norm, real = f"local_response_norm_{direction}", describe(geometry, C, L), arrays[0].dtype
    launch("local_response_norm", name, grid, (BLOCK,), *arrays, norm, N * L, real=real, **defines)
    return None


def launch_naive(direction: str, geometry: Geometry, *arrays: Array) -> None:
    _, C, L = arrays[0].shape
    name, three_quarters = f"local_response_norm_{direction}_naive", int(geometry.beta == 0.75)
    norm, real = describe(geometry, C, L), arrays[0].dtype
    launch_each("local_response_norm", name, arrays[0].size, *arrays, norm, real=real, THREE_QUARTERS=three_quarters)


def describe(geometry: Geometry, C: int, L: int) -> Norm:
    low, high, *numbers = geometry[:5]
    return Norm(C, L, min(low, C), min(high, C), *numbers)  # a window wider than all channels is cut off anyway
