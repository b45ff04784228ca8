"""What every op is compared with (torch in both precisions, a gradient check), and the tolerances.

`check_op` is the one body: any op, implementation, arguments and memory layout. It runs float64 and float32, forward
and every gradient for a random dy, each forward with every implementation's backward, and insists that no input is
modified.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import cuda_shim
import numpy as np
import pytest
import torch

from alexnet_np.backend import BACKENDS, IMPLEMENTATIONS, available_backends, use_backend
from alexnet_np.device import array_module
from alexnet_np.kernels import variants

FLOAT64 = 1e-12
"""Largest float64 difference from torch, relative to the largest value: thousands of roundings, where both sides make
some hundreds in different orders, and a millionth of what a wrong formula would give."""

FLOAT32_RATIO = 1.5
"""Our float32 error over torch's own, both against float64 and in the L2 norm: the summation order may differ, the
care taken may not."""

FLOAT32_FLOOR = 2.0**-24
"""Half a unit in the last place of 1: rounding the exact result costs that much. Where torch's error is below it, as
for a copy, a ratio says nothing."""

WINOGRAD = 2e-5
"""What Winograd convolutions are allowed instead, on the numba backend: they add and subtract before they multiply."""

FLOAT32_CHANCE = 10.0
"""Error norms of n numbers differ by chance, by a share of 1/sqrt(n): the two above are widened by 1 + 10/sqrt(n), to
11 for one number (torch may well have hit it exactly), to 1.1 for ten thousand."""

GRADIENT_CHECK = 1e-7
"""Largest difference of a float64 directional derivative from the central difference, relative to the gradient's norm.
A step of 1e-5 leaves 1e-10 times the third derivative, which for LRN at large alpha is some hundreds."""

STEP = 1e-5


def implementations(op: str | None = None, ways: bool = True) -> Any:
    """The fixture `backend`: every backend, and for an op every other version of it in kernels/variants.py, by label.

    Without `ways`, not those that differ from the backend's by a row of choices.py alone, which are for large shapes.
    An op's CUDA kernels run on the CPU too, under the shim.
    """
    devices = dict(BACKENDS)
    if op is not None:
        devices |= {v.label: v.device for v in variants.versions(op) if ways or not v.rows}
    names: list[Any] = [pytest.param(n, marks=pytest.mark.gpu) if d == "gpu" else n for n, d in devices.items()]

    @pytest.fixture(params=[*names, *([] if op is None else [cuda_shim.NAME])])
    def backend(request):
        if request.param == cuda_shim.NAME:
            if cuda_shim.compiler() is None:
                pytest.skip("needs g++ to compile the CUDA sources as C++")
            with cuda_shim.as_backend() as name:
                yield name
            return
        usable = available_backends()[request.param.split()[0]]
        if usable is not True:
            pytest.skip(usable)
        yield request.param

    return backend


def check_op(
    op: ModuleType,
    arrays: Sequence[np.ndarray | None],
    keywords: dict[str, Any] | None = None,
    *,
    implementation: str,
    reference: Callable[..., torch.Tensor] | None = None,
    layout: Callable[[Any], Any] = lambda array: array,
    smooth: bool = True,
    winograd: bool = False,
) -> None:
    """Compare `op` on `arrays` (the differentiable ones first) with `reference`, torch's function of the same name.

    `smooth`: whether a finite difference means anything at `arrays`, i.e. whether no kink, tie or NaN is near.
    `winograd`: whether the numba backend may compute this by Winograd in float32.
    """
    name, keywords = op.__name__.rpartition(".")[2], keywords or {}
    reference = reference or getattr(torch.nn.functional, name, None) or getattr(torch, name)
    arrays = [a if a is None or a.dtype.kind != "f" else a.astype(np.float32).astype(np.float64) for a in arrays]
    truth, dy = run_torch(reference, arrays, keywords, None, np.float64)
    for dtype in (np.float64, np.float32):
        theirs, _ = run_torch(reference, arrays, keywords, dy, dtype)
        for partner in (implementation, *partners(name, implementation)):
            ours = run(op, arrays, keywords, dy, implementation, dtype=dtype, layout=layout, backward=partner)
            assert len(ours) <= len(theirs)
            floor = WINOGRAD if winograd and is_winograd(implementation, partner) else FLOAT32_FLOOR
            for label, got, other, true in zip(labels(ours), ours, theirs, truth, strict=False):
                what = f"{name} {np.dtype(dtype).name}, {implementation} forward, {partner} backward: {label}"
                if got is None or other is None:
                    assert got is other is None, f"{what}: {got} where torch has {other}"
                elif dtype == np.float64:
                    assert_close(what, got, true, FLOAT64)
                else:
                    assert_as_accurate(what, got, other, true, floor)
    if smooth:
        check_gradient(op, arrays, keywords, dy, implementation)


def run_torch(
    reference: Callable[..., torch.Tensor],
    arrays: Sequence[np.ndarray | None],
    keywords: dict[str, Any],
    dy: np.ndarray | None,
    dtype: Any,
) -> tuple[list[np.ndarray | None], np.ndarray]:
    """torch's output and a gradient for each float array, and dy (a random one where None is given)."""
    tensors = [None if a is None else torch.from_numpy(cast(a, dtype).copy()) for a in arrays]
    keywords = {k: torch.from_numpy(cast(v, dtype)) if isinstance(v, np.ndarray) else v for k, v in keywords.items()}
    floats = [t for t in tensors if t is not None and t.is_floating_point()]
    for tensor in floats:
        tensor.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # padding='same' with an even kernel may copy
        y = reference(*tensors, **keywords)
    if dy is None:
        dy = np.random.default_rng(0).standard_normal(tuple(y.shape)).astype(np.float32).astype(np.float64)
    y.backward(torch.from_numpy(np.asarray(dy, dtype)))
    gradients = [None if t is None else t.grad for t in tensors]
    return [y.detach().numpy(), *(None if g is None else g.numpy() for g in gradients)], dy


def run(
    op: ModuleType,
    arrays: Sequence[np.ndarray | None],
    keywords: dict[str, Any],
    dy: np.ndarray,
    implementation: str,
    *,
    dtype: Any = np.float64,
    layout: Callable[[Any], Any] = lambda array: array,
    backward: str | None = None,
) -> list[np.ndarray | None]:
    """Our output and gradients, having checked that no input was touched and that dtypes are kept."""
    device = device_of(implementation)
    inputs = [None if a is None else layout(to_device(cast(a, dtype), device)) for a in arrays]
    keywords = {k: to_device(cast(v, dtype), device) if isinstance(v, np.ndarray) else v for k, v in keywords.items()}
    dy = layout(to_device(np.asarray(dy, dtype), device))
    given = [*inputs, dy, *(v for v in keywords.values() if hasattr(v, "shape"))]
    before = [None if a is None else to_host(a).copy() for a in given]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with using(op, implementation):
            y, cache = op.forward(*inputs, **keywords)
        kept = to_host(y).copy()
        with using(op, backward or implementation):
            gradients = op.backward(dy, cache)
    results = [y, *(gradients if isinstance(gradients, tuple) else (gradients,))]
    for array in results:
        assert array is None or array.dtype == dtype, f"{op.__name__}: {array.dtype} from {np.dtype(dtype)} inputs"
    for i, (array, copy) in enumerate(zip([*given, y], [*before, kept], strict=True)):
        assert array is None or np.array_equal(to_host(array), copy, equal_nan=True), f"{op.__name__}: {i} was modified"
    return [None if a is None else to_host(a) for a in results]


def check_gradient(
    op: ModuleType, arrays: Sequence[np.ndarray | None], keywords: dict[str, Any], dy: np.ndarray, implementation: str
) -> None:
    """(L(a + h·d) - L(a - h·d)) / 2h beside the gradient's share in a random direction d, for L = sum of dy*y."""
    rng = np.random.default_rng(1)
    device = device_of(implementation)
    keywords = {k: to_device(v, device) if isinstance(v, np.ndarray) else v for k, v in keywords.items()}

    def outputs(values: Sequence[np.ndarray | None]) -> tuple[np.ndarray, Any]:
        with using(op, implementation):
            y, cache = op.forward(*(None if v is None else to_device(v, device) for v in values), **keywords)
        return to_host(y), cache

    with using(op, implementation):
        gradients = op.backward(to_device(dy, device), outputs(arrays)[1])
    for i, gradient in enumerate(gradients if isinstance(gradients, tuple) else (gradients,)):
        if gradient is None or gradient.size == 0:
            continue
        direction = rng.standard_normal(gradient.shape)
        ends = [[*arrays[:i], arrays[i] + side * STEP * direction, *arrays[i + 1 :]] for side in (1, -1)]
        products = dy * (outputs(ends[0])[0] - outputs(ends[1])[0]) / (2 * STEP)
        numeric, analytic = products.sum(), (to_host(gradient) * direction).sum()
        rounding = np.finfo(float).eps * np.abs(dy * outputs(arrays)[0]).sum() / STEP
        allowed = GRADIENT_CHECK * np.linalg.norm(to_host(gradient)) + rounding
        assert abs(numeric - analytic) <= allowed, (
            f"{op.__name__} {implementation}, gradient of argument {i}: central difference {numeric:.12g}, "
            f"backward {analytic:.12g}, allowed {allowed:.1e}"
        )


def assert_close(what: str, got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    """|got - want| <= tolerance * max |want|, NaN and infinity in the same places."""
    assert got.shape == want.shape, f"{what}: shape {got.shape}, torch has {want.shape}"
    finite = np.isfinite(want)
    assert np.array_equal(got[~finite], want[~finite], equal_nan=True), f"{what}: {worst(got, want)}"
    scale = np.abs(want[finite]).max(initial=0)
    error = np.abs(got[finite] - want[finite]).max(initial=0)
    assert error <= tolerance * scale, f"{what}: {worst(got, want)}; allowed {tolerance:.1e} of {scale:.3g}"


def assert_as_accurate(what: str, got: np.ndarray, other: np.ndarray, true: np.ndarray, floor: float) -> None:
    """`got`'s distance from `true` is at most FLOAT32_RATIO times `other`'s, or `floor`."""
    assert got.shape == true.shape, f"{what}: shape {got.shape}, torch has {true.shape}"
    finite = np.isfinite(true)
    assert np.array_equal(got[~finite], true[~finite], equal_nan=True), f"{what}: {worst(got, true)}"
    ours, theirs = relative_error(got, true), relative_error(other, true)
    chance = 1 + FLOAT32_CHANCE / np.sqrt(max(1, true.size))
    allowed = chance * max(FLOAT32_RATIO * theirs, floor)
    assert ours <= allowed, (
        f"{what}: {worst(got, true)}; error {ours:.2e} of the norm, torch's {theirs:.2e}, allowed {allowed:.2e}"
    )


def relative_error(got: np.ndarray, true: np.ndarray) -> float:
    """L2 norm of the difference over the L2 norm of the truth, in float64, where the truth is finite."""
    finite = np.isfinite(true)
    norm = np.linalg.norm(true[finite])
    difference = np.linalg.norm(got[finite].astype(np.float64) - true[finite])
    return float(difference / norm) if norm else float(difference)


def worst(got: np.ndarray, want: np.ndarray) -> str:
    """The worst element, for a failure's message: where, both values, and how many units in the last place apart."""
    with np.errstate(all="ignore"):
        distance = np.nan_to_num(np.abs(got.astype(np.float64) - want), nan=np.inf)
        distance = np.where((got == want) | (np.isnan(got) & np.isnan(want)), 0, distance)
        where = np.unravel_index(int(distance.argmax()), distance.shape)
        ulps = distance[where] / np.spacing(np.abs(want[where]).astype(got.dtype))
    index = tuple(int(i) for i in where)
    return f"worst at {index}: {got[where]!s} instead of {want[where]!s} ({ulps:.3g} ULPs)"


@contextmanager
def using(op: ModuleType, implementation: str) -> Iterator[None]:
    """Run `op` with one of the names that `implementations` gives; "LABEL:python" is the same without a compiler."""
    if implementation in BACKENDS:
        with use_backend(implementation):
            yield
        return
    name, (label, _, python) = op.__name__.rpartition(".")[2], implementation.partition(":")
    variant = variants.find(name, label)
    if not python:
        with variants.using(variant):
            yield
        return
    with uncompiled(import_module(variant.module)), variants.using(variant):
        yield


@contextmanager
def uncompiled(module: ModuleType) -> Iterator[None]:
    """Every compiled function of `module` as the Python it is written in."""
    compiled = {name: function for name, function in vars(module).items() if hasattr(function, "py_func")}
    try:
        vars(module).update({name: function.py_func for name, function in compiled.items()})
        yield
    finally:
        vars(module).update(compiled)


def device_of(implementation: str) -> str:
    return BACKENDS[implementation.split()[0].partition(":")[0]]


def is_winograd(*implementations: str) -> bool:
    return any(name == "numba" or "winograd" in name for name in implementations)


def partners(name: str, implementation: str) -> list[str]:
    """The backends that run here on the same device and do not run the same functions."""
    device = device_of(implementation)
    table = IMPLEMENTATIONS.get(name, {})
    return [
        other
        for other, usable in available_backends().items()
        if usable is True and BACKENDS[other] == device and table.get(other) != table.get(implementation)
    ]


def labels(results: Sequence[Any]) -> list[str]:
    return ["y", *(f"gradient {i}" for i in range(len(results) - 1))]


def cast(array: np.ndarray, dtype: Any) -> np.ndarray:
    return array.astype(dtype) if array.dtype.kind == "f" else array


def to_device(array: np.ndarray, device: str) -> Any:
    if device == "cpu":
        return array
    import cupy

    return cupy.asarray(array)


def to_host(array: Any) -> np.ndarray:
    return array if array_module(array) is np else array.get()


@contextmanager
def refused(error: type[Exception], match: str) -> Iterator[None]:
    """Like pytest.raises, for our own errors: of exactly that class, and on one line."""
    with pytest.raises(error, match=match) as caught:
        yield
    assert caught.type is error
    assert "\n" not in str(caught.value)


# Memory layouts: the same array, elsewhere in memory


def channels_last(array: Any) -> Any:
    """Axis 1 of a batch consecutive in memory, as torch.channels_last lays it out."""
    if array.ndim < 3:
        return array
    xp, axis = array_module(array), array.ndim - 3
    return xp.moveaxis(xp.ascontiguousarray(xp.moveaxis(array, axis, -1)), -1, axis)


def strided(array: Any) -> Any:
    """Every second element of a larger array, backwards along the first axis."""
    if array.ndim == 0:
        return array
    larger = array_module(array).full((*array.shape[:-1], 2 * array.shape[-1]), 99, array.dtype)
    view = larger[..., ::2][::-1]
    view[...] = array
    return view


def locked(array: Any) -> Any:
    """Read-only and not aligned, as in a file that is mapped into memory."""
    if array_module(array) is not np:
        return array
    memory = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    memory[...] = array
    memory.flags.writeable = False
    return memory
