"""Every version of every op: what it is called, where it lies, the idea it adds.

One list. The table of backend.py names some of these; the tests run them all, naive ones included; the shim puts the
CUDA ones through its cases; `alexnet bench kernels --op conv2d --version naive` times any by its name.

    with using(find("conv2d", "im2col")): y, cache = ops.conv2d.forward(x, weight, bias)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.backend import BACKENDS, KERNELS, OPS, available_backends, computing
from alexnet_np.errors import ArgumentError
from alexnet_np.kernels import choices
from alexnet_np.kernels.choices import Row
from alexnet_np.kernels.cpu.memory import plain

FLOATS = ("float32", "float64")
SINGLE = ("float32",)  # float64 is handed on to another version of the op
NAIVE = ("naive_compute", "naive_gradients")


class Variant(NamedTuple):
    """One version. Its functions are `compute` and `gradients` with the signatures of alexnet_np/ops/<op>.py."""

    op: str
    name: str  # of a backend where that is what the backend runs
    backend: str  # whose arrays it takes
    module: str
    idea: str
    dtypes: tuple[str, ...] = FLOATS  # what it computes itself
    functions: tuple[str, str] = ("compute", "gradients")
    rows: tuple[Row, ...] = ()  # put before the table of choices.py; the first is the version
    options: Mapping[str, Any] = {}  # further arguments of the forward

    @property
    def device(self) -> str:
        return BACKENDS[self.backend]

    @property
    def label(self) -> str:
        """The name by itself, without the op: `numba`, `numba im2col`."""
        return self.name if self.name == self.backend else f"{self.backend} {self.name}"

    @property
    def usual(self) -> bool:
        """Whether it is timed where no version is named: what goes loop by loop would take minutes."""
        return self.functions != NAIVE

    @property
    def missing(self) -> str:
        """Why it cannot run here; empty where it can."""
        usable = available_backends()[self.backend]
        return "" if usable is True else str(usable)


def arrays(op: str, idea: str) -> tuple[Variant, Variant]:
    """The array version, one source for both devices."""
    return Variant(op, "numpy", "numpy", OPS + op, idea), Variant(op, "cupy", "cupy", OPS + op, idea)


def numba(op: str, name: str, module: str, idea: str, *more: Any, **fields: Any) -> Variant:
    return Variant(op, name, "numba", KERNELS + module, idea, *more, **fields)


def cuda(op: str, name: str, module: str, idea: str, *more: Any, **fields: Any) -> Variant:
    return Variant(op, name, "cuda", KERNELS + module, idea, *more, **fields)


def way(op: str, name: str, algorithm: str, idea: str, device: str = "cpu", **facts: Any) -> Variant:
    """One that choices.py can be told to take; what it cannot compute goes the way that is next in the table."""
    rest = (Row("im2col"),) if algorithm == "direct" else ()  # the gradients, as exact
    rows = (Row(algorithm, op, device, **facts), *rest)
    if device == "gpu":
        return cuda(op, name, f"{op}_cuda", idea, rows=rows)
    return numba(op, name, f"{op}_numba", idea, SINGLE, rows=rows)


VARIANTS = (
    *arrays("conv2d", "the columns of a slice of the batch, and one product"),
    numba("conv2d", "naive", "conv2d_im2col_numba", "the sums of the formula, loop by loop", functions=NAIVE),
    numba("conv2d", "im2col", "conv2d_im2col_numba", "columns that never leave a thread's cache"),
    way("conv2d", "direct", "direct", "sums in registers over channels-last memory"),
    way("conv2d", "winograd-3", "winograd", "F(3,5): 49 products for 225, kernels of 5", tiles=(3,)),
    way("conv2d", "winograd-4", "winograd", "F(4,3): 36 products for 144, F(4,5): 64 for 400", tiles=(4,)),
    way("conv2d", "winograd-5", "winograd", "F(5,3): 49 products for 225, likewise", tiles=(5,)),
    way("conv2d", "winograd-6", "winograd", "F(6,3): 64 products for 324, likewise", tiles=(6,)),
    numba("conv2d", "numba", "conv2d_numba", "for each shape the way that choices.py names"),
    cuda("conv2d", "naive", "conv2d_direct_cuda", "a thread an output, walking its window"),
    cuda("conv2d", "im2col", "conv2d_im2col_cuda", "columns, and cuBLAS"),
    cuda("conv2d", "implicit", "conv2d_implicit_cuda", "a tiled product that gathers its operand as it goes"),
    cuda("conv2d", "implicit-64", "conv2d_implicit_cuda", "tiles of 64 outputs a side", options={"tile": 64}),
    cuda("conv2d", "implicit-128", "conv2d_implicit_cuda", "tiles of 128 outputs a side", options={"tile": 128}),
    *(
        way("conv2d", f"winograd-{m}", "winograd", f"tiles of {m} x {m} outputs, and cuBLAS", "gpu", tiles=(m,))
        for m in (3, 4, 5, 6)
    ),
    cuda("conv2d", "cuda", "conv2d_cuda", "for each shape the way that choices.py names"),
    numba("conv2d_relu_max_pool2d", "numba", "conv2d_relu_max_pool2d_numba", "together, slice by slice", SINGLE),
    *arrays("max_pool2d", "the maximum over shifted views"),
    numba("max_pool2d", "naive", "max_pool2d_nchw_numba", "every window, pixel by pixel", functions=NAIVE),
    numba("max_pool2d", "nchw", "max_pool2d_nchw_numba", "plane by plane, borders apart"),
    way("max_pool2d", "nhwc", "nhwc", "channels in vector lanes"),
    numba("max_pool2d", "numba", "max_pool2d_numba", "nchw or nhwc, as the images lie"),
    cuda("max_pool2d", "cuda", "max_pool2d_cuda", "a thread an output; the gradient gathers"),
    *arrays("avg_pool2d", "a sum of shifted views"),
    numba("avg_pool2d", "naive", "avg_pool2d_nchw_numba", "every window, pixel by pixel", functions=NAIVE),
    numba("avg_pool2d", "nchw", "avg_pool2d_nchw_numba", "plane by plane, windows clipped first"),
    way("avg_pool2d", "nhwc", "nhwc", "channels in vector lanes"),
    numba("avg_pool2d", "numba", "avg_pool2d_numba", "nchw or nhwc, as the images lie"),
    cuda("avg_pool2d", "cuda", "avg_pool2d_cuda", "a thread an output; the gradient gathers"),
    *arrays("adaptive_avg_pool2d", "a mean for each output"),
    cuda("adaptive_avg_pool2d", "cuda", "adaptive_avg_pool2d_cuda", "a thread an output; the gradient gathers"),
    *arrays("relu", "np.maximum"),
    numba("relu", "numba", "relu_numba", "in memory order, whatever the layout", SINGLE),
    cuda("relu", "cuda", "relu_cuda", "a thread an element"),
    *arrays("tanh", "np.tanh"),
    cuda("tanh", "cuda", "tanh_cuda", "a thread an element"),
    *arrays("sigmoid", "exponentials of what is not positive"),
    cuda("sigmoid", "cuda", "sigmoid_cuda", "a thread an element"),
    *arrays("local_response_norm", "sums of squares over shifted channels"),
    numba("local_response_norm", "naive", "local_response_norm_nchw_numba", "element by element", functions=NAIVE),
    numba("local_response_norm", "nchw", "local_response_norm_nchw_numba", "row by row of a plane"),
    way("local_response_norm", "nhwc", "nhwc", "channels in vector lanes"),
    numba("local_response_norm", "numba", "local_response_norm_numba", "nchw or nhwc, as the images lie"),
    way("local_response_norm", "naive", "naive", "a thread an element, reading its window", device="gpu"),
    way("local_response_norm", "registers", "registers", "a run of channels a thread, the window kept", device="gpu"),
    cuda("local_response_norm", "cuda", "local_response_norm_cuda", "registers, or naive where they cannot hold it"),
    *arrays("dropout", "a mask of Philox numbers, and a product"),
    numba("dropout", "numba", "dropout_numba", "the same numbers, a block of Philox at a time"),
    cuda("dropout", "cuda", "dropout_cuda", "a thread a block of Philox"),
    *arrays("linear", "one product"),
    way("linear", "panels", "panels", "panels of weights, packed slice by slice"),
    numba("linear", "numba", "linear_numba", "panels, and BLAS for one row"),
    cuda("linear", "rows", "linear_rows_cuda", "a warp a row of weights, for few images"),
    cuda("linear", "cublas", "linear_cublas_cuda", "cuBLAS, then the bias"),
    cuda("linear", "cuda", "linear_cuda", "rows for few images, else cuBLAS"),
    *arrays("softmax", "shifted exponentials"),
    cuda("softmax", "cuda", "softmax_cuda", "a block a row"),
    *arrays("log_softmax", "shifted logits less the logarithm of the sum"),
    cuda("log_softmax", "cuda", "log_softmax_cuda", "a block a row"),
    *arrays("cross_entropy", "log_softmax and a sum over classes"),
    numba("cross_entropy", "numba", "cross_entropy_numba", "a row in the cache, exponentials in vector lanes", SINGLE),
    cuda("cross_entropy", "cuda", "cross_entropy_cuda", "a block a row, nothing kept"),
    *arrays("sgd", "a few rows of the weight at a time"),
    numba("sgd", "numba", "sgd_numba", "one pass over memory, everything in registers", SINGLE),
    cuda("sgd", "cuda", "sgd_cuda", "a thread an element, one pass"),
)


def versions(op: str | None = None, device: str | None = None) -> list[Variant]:
    """Those of an op, on a device; of all where None is given. Raises ArgumentError for an op that there is not."""
    known = dict.fromkeys(variant.op for variant in VARIANTS)
    if op not in (None, *known):
        raise ArgumentError(f"unknown op {op!r}: choose one of {', '.join(known)}")
    return [v for v in VARIANTS if op in (None, v.op) and device in (None, v.device)]


def find(op: str, name: str, device: str | None = None) -> Variant:
    """The version of that name (`naive`) or label (`numba naive`): the first, on either device where None is given.

    Raises ArgumentError naming the choices.
    """
    known = versions(op, device)
    for variant in known:
        if name in (variant.name, variant.label):
            return variant
    where = "" if device is None else f" on the {device}"
    raise ArgumentError(f"{op} has no version {name!r}{where}: choose one of {', '.join(v.name for v in known)}")


def load(variant: Variant) -> Any:
    """What has the version's `compute` and `gradients`."""
    module = importlib.import_module(variant.module)
    if variant.functions == ("compute", "gradients") and not variant.options:
        return module
    forward, backward = (getattr(module, name) for name in variant.functions)
    if variant.functions == NAIVE:
        return SimpleNamespace(compute=on_plain_arrays(forward), gradients=on_plain_arrays(backward))
    return SimpleNamespace(compute=partial(forward, **variant.options), gradients=backward)


def on_plain_arrays(function: Callable) -> Callable:
    """`function` of arrays that need no other kernel compiled than the one for plain ones."""

    @wraps(function)
    def run(*arguments: Any) -> Any:
        return function(*(plain(a) if isinstance(a, np.ndarray) else a for a in arguments))

    return run


@contextmanager
def using(variant: Variant, insisting: bool = False) -> Iterator[None]:
    """Inside the `with`, `ops.<op>` is computed by `variant`, on arrays of its backend.

    A version that is a way of choices.py hands on what it cannot compute, or, `insisting`, raises choices.NoWay.
    """
    strict = choices.insisting(variant.rows[0]) if insisting and variant.rows else nullcontext()
    with choices.overriding(*variant.rows), strict, computing(variant.op, load(variant)):
        yield
