"""What a choice may depend on (choices.py): an op at one shape on one device, and what each way can compute of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from alexnet_np.ops.conv2d import Geometry

if TYPE_CHECKING:
    from alexnet_np.kernels.cpu.simd import Machine  # only for its type: a GPU does without Numba

MANY = 1 << 30
STRIDES = (1, 2, 3, 4)  # that space to depth has code for


class Problem(NamedTuple):
    """An op at one shape on one device. What an op does not have stays as it is here."""

    op: str
    device: str = "cpu"  # or "gpu"
    direction: str = "forward"  # or "backward"
    dtype: str = "float32"
    batch: int = 1  # images, or rows of a matrix
    C: int = 1  # channels of a group, or input features
    F: int = 1  # filters of a group, or output features
    kernel: int = 0  # of both axes; 0 where they differ
    stride: int = 1  # of both axes; 0 where they differ
    dilation: int = 1  # the larger of both axes'
    groups: int = 1
    window: int = 1  # how many pixels, or channels, an output looks at
    output: tuple[int, int] = (1, 1)
    layout: str = "C order"  # of the input in memory; or "channels last", "strided"
    planned: bool = False  # in a plan: weights are prepared once, and buffers hold as many channels as a vector
    training: bool = False  # in a training plan: what computes the forward computes the backward, too
    folds: bool = True  # the input can be laid out anew (space to depth)
    exact: bool = False  # nothing but the multiplications of the definition
    precision: str = "strict"  # of products on the GPU
    machine: Machine | None = None  # the CPU's vector unit

    def conditions(self) -> dict[str, Any]:
        """What fits this problem and no other, machine apart: for a row that was measured."""
        kept = {name: value for name, value in self._asdict().items() if name in QUANTITIES}
        return kept | {"OH": self.output[0], "OW": self.output[1]}


def of_convolution(x: Any, weight: Any, geometry: Geometry, **facts: Any) -> Problem:
    """Convolving x with weight, which may be any arrays of these shapes and dtype; `facts`: what else is known."""
    F, C, KH, KW = weight.shape
    (SH, SW), G = geometry.stride, geometry.groups
    shape = {"C": C, "F": F // G, "groups": G, "window": KH * KW, "output": geometry.output}
    steps = {"kernel": KH if KH == KW else 0, "stride": SH if SH == SW else 0, "dilation": max(geometry.dilation)}
    return Problem("conv2d", dtype=str(x.dtype), batch=len(x))._replace(**(shape | steps | facts))


# Quantities that follow from the others


def full(p: Problem) -> float:
    """How full a vector the channels (folded) or the filters of a group are, whichever are fewer."""
    return min(p.F, p.C * max(1, p.stride) ** 2) / (1 if p.machine is None else p.machine.lanes)


def full_unfolded(p: Problem) -> float:
    """The same of an input that stays as it is, whatever the stride."""
    return full(p._replace(stride=1))


def heights(p: Problem) -> int:
    """How many of the CPU's register tiles the batch's rows fill, one below the other."""
    return p.batch if p.machine is None else -(-p.batch // p.machine.rows)


def spare(p: Problem) -> int:
    """Input features beyond the last whole panel of a packed product on the CPU."""
    return 0 if p.machine is None else p.C % (p.machine.lanes * p.machine.vectors)


def blocks(p: Problem) -> int:
    """How many tiles of 128 x 128 outputs the product of a convolution has."""
    return -(-p.batch * p.output[0] * p.output[1] // 128) * -(-p.F // 128) * p.groups


DERIVED: dict[str, Callable[[Problem], float]] = {
    "OH": lambda p: p.output[0],
    "OW": lambda p: p.output[1],
    "full": full,
    "full_unfolded": full_unfolded,
    "heights": heights,
    "spare": spare,
    "blocks": blocks,
}
QUANTITIES = {*Problem._fields, *DERIVED} - {"op", "device", "output", "machine"}

Conditions = Mapping[str, Any]  # quantity -> the value it must have, or (least, most)


def meets(problem: Problem, conditions: Conditions) -> bool:
    for name, want in conditions.items():
        have = DERIVED[name](problem) if name in DERIVED else getattr(problem, name)
        if not (want[0] <= have <= want[1] if isinstance(want, tuple) else have == want):
            return False
    return True


# What each way can compute

_VECTORS: Conditions = {"dtype": "float32", "batch": (1, MANY), "C": (1, MANY)}
_WHOLE: Conditions = {**_VECTORS, "full": (1, MANY)}
_WINOGRAD: Conditions = {**_WHOLE, "exact": False, "kernel": (1, MANY), "dilation": 1}
_TILES: Conditions = {"direction": "forward", "exact": False, "kernel": (1, MANY), "stride": 1, "dilation": 1}

LIMITS: dict[tuple[str, str], dict[str, tuple[Conditions, ...]]] = {  # (op, device) -> way -> any of these conditions
    ("conv2d", "cpu"): {
        "winograd": ({**_WINOGRAD, "stride": 1}, {**_WINOGRAD, "stride": (2, STRIDES[-1]), "groups": 1, "folds": True}),
        "direct": ({**_VECTORS, "direction": "forward"},),
        "im2col": ({"planned": False},),
    },
    ("conv2d", "gpu"): {
        "im2col": ({},),
        "implicit": ({"direction": "forward", "precision": "strict"}, {"direction": "forward", "dtype": "float64"}),
        "direct": ({"direction": "forward"},),
        "winograd": ({**_TILES, "precision": "strict"}, {**_TILES, "dtype": "float64"}),
    },
    ("linear", "cpu"): {
        "packed": ({"planned": True},),
        "panels": (
            {**_WHOLE, "planned": False, "layout": "C order", "direction": "forward"},
            {**_WHOLE, "planned": False, "layout": "C order", "spare": 0},
        ),
        "arrays": ({"planned": False},),
    },
    ("linear", "gpu"): {"rows": ({"direction": "forward"},), "cublas": ({},)},
    ("max_pool2d", "cpu"): {
        "nhwc": ({**_WHOLE, "layout": "channels last", "window": (1, 256), "dilation": 1},),
        "nchw": ({},),
    },
    ("avg_pool2d", "cpu"): {"nhwc": ({**_WHOLE, "layout": "channels last"},), "nchw": ({},)},
    ("local_response_norm", "cpu"): {"nhwc": ({**_WHOLE, "layout": "channels last"},), "nchw": ({},)},
    ("local_response_norm", "gpu"): {"registers": ({"window": (1, 15)},), "naive": ({},)},
    ("gemm", "gpu"): {"strict": ({},), "tf32": ({},), "tf32x3": ({},)},
}


def can(algorithm: str, problem: Problem) -> bool:
    ways = LIMITS.get((problem.op, problem.device), {})
    return any(meets(problem, conditions) for conditions in ways.get(algorithm, ()))


# What a convolution is computed as

AS_IT_IS = "as it is"
FILLED = "filled"  # channels and filters filled up with zeros to a whole vector
DENSE = "dense"  # groups too narrow for vectors as one dense filter with zeros between them, and that filled up


def formed(problem: Problem, form: str) -> Problem:
    """The problem in that form."""
    if form == AS_IT_IS:
        return problem
    merged = problem.groups if form == DENSE else 1
    lanes = 1 if problem.machine is None else problem.machine.lanes
    channels = -(-lanes // max(1, problem.stride) ** 2)
    C, F = max(problem.C * merged, channels), max(problem.F * merged, lanes)
    return problem._replace(C=C, F=F, groups=problem.groups // merged)
