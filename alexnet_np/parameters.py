"""What training changes: an array with its gradient. NumPy's functions and arithmetic take it as the array it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from alexnet_np import arguments
from alexnet_np.device import Array, to_cpu
from alexnet_np.hooks import HookHandle

Shape = tuple[int, ...]


class Parameter(NDArrayOperatorsMixin):
    """An array that training changes: `data`, its gradient `grad` (None until a backward), and `requires_grad`.

    `p - 0.1 * p.grad`, `np.abs(p).mean()`, `p[0]`, `p.std()` are those of `p.data`, and give arrays; `p -= step`
    writes into `p.data`. `np.asarray(p)` is `p.data`, copied from the GPU where it lies there.
    """

    def __init__(self, data: Array, fan_in: int) -> None:
        self.data = data
        self.grad: Array | None = None
        self.requires_grad = True
        self.fan_in = fan_in  # inputs that one output sums over: what initialisation scales by
        self._grad_hooks: dict[int, Callable[[Parameter], None]] = {}

    __hash__ = object.__hash__  # by identity, as torch's: == compares the numbers

    @property
    def shape(self) -> Shape:
        return self.data.shape

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    def numel(self) -> int:
        """How many numbers, as torch calls it."""
        return self.data.size

    def requires_grad_(self, requires_grad: bool = True) -> Parameter:
        """Whether backward computes its gradient, and an optimizer changes it."""
        self.requires_grad = arguments.flag("requires_grad_", "requires_grad", requires_grad)
        return self

    def accumulate(self, gradient: Array | None) -> None:
        """Add to `grad`, as torch does. The first gradient is kept as it is: ops return arrays of their own."""
        if gradient is not None:
            self.grad = gradient if self.grad is None else self.grad + gradient
            for hook in tuple(self._grad_hooks.values()):
                hook(self)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Parameter], None]) -> HookHandle:
        """Call hook(parameter) as soon as a backward has added to `grad`. Fused layers stay fused."""
        return HookHandle(self._grad_hooks, hook, "register_post_accumulate_grad_hook")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = to_cpu(self.data)
        return array.astype(array.dtype if dtype is None else dtype, copy=bool(copy))

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """What NumPy calls for every function and operator with a Parameter in it."""
        out = options.get("out", ())
        if out:
            options["out"] = tuple(map(_plain, out))
        result = getattr(ufunc, method)(*map(_plain, inputs), **options)
        return out[0] if len(out) == 1 else result

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Array:
        return self.data[_plain(index)]

    def __setitem__(self, index: Any, values: Any) -> None:
        self.data[_plain(index)] = _plain(values)

    def __getattr__(self, name: str) -> Any:
        """The array's own methods: p.mean(), p.T, p.reshape(...)."""
        if name.startswith("_") or name == "data":  # not what protocols look for, nor while it is being unpickled
            raise AttributeError(f"a Parameter has no {name!r}")
        return getattr(self.data, name)

    def __repr__(self) -> str:
        return f"Parameter{self.shape} {self.data.dtype}{'' if self.requires_grad else ', frozen'}"


def _plain(value: Any) -> Any:
    return value.data if isinstance(value, Parameter) else value
