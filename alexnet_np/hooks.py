"""Who listens to a layer: functions called around its forward and after its backward, which may put other arrays in."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from alexnet_np import arguments
from alexnet_np.device import Array

PreHook = Callable[[Any, Array], Array | None]  # (layer, x)
Hook = Callable[[Any, Array, Array], Array | None]  # (layer, x, y), or (layer, dx, dy)


class HookHandle:
    """What registering a hook returns; `remove()` takes the hook off, and so does leaving a `with` on the handle."""

    _keys = itertools.count()  # none is used twice, so that removing a hook again cannot remove another

    def __init__(self, hooks: dict[int, Any], hook: Any, where: str) -> None:
        self._hooks, self._key, self._where = hooks, next(self._keys), where
        hooks[self._key] = arguments.function(where, "hook", hook)

    def remove(self) -> None:
        self._hooks.pop(self._key, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"HookHandle({self._where}{'' if self._key in self._hooks else ', removed'})"


class Hookable:
    """What hooks listen to."""

    def __init__(self) -> None:
        self._forward_pre_hooks: dict[int, PreHook] = {}
        self._forward_hooks: dict[int, Hook] = {}
        self._backward_hooks: dict[int, Hook] = {}

    def register_forward_pre_hook(self, hook: PreHook) -> HookHandle:
        """Call hook(layer, x) before every forward; an array it returns replaces x. Compiled plans do not call it."""
        return HookHandle(self._forward_pre_hooks, hook, "register_forward_pre_hook")

    def register_forward_hook(self, hook: Hook) -> HookHandle:
        """Call hook(layer, x, y) after every forward; an array it returns replaces y. Compiled plans do not call it."""
        return HookHandle(self._forward_hooks, hook, "register_forward_hook")

    def register_full_backward_hook(self, hook: Hook) -> HookHandle:
        """Call hook(layer, dx, dy) after every backward; an array it returns replaces dx."""
        return HookHandle(self._backward_hooks, hook, "register_full_backward_hook")

    @property
    def hooked(self) -> bool:
        """Whether anybody listens to this layer."""
        return bool(self._forward_pre_hooks or self._forward_hooks or self._backward_hooks)

    def hooked_input(self, x: Array) -> Array:
        """x, or what the hooks before forward put in its place."""
        for hook in tuple(self._forward_pre_hooks.values()):
            replaced = hook(self, x)
            x = x if replaced is None else replaced
        return x

    def hooked_output(self, x: Array, y: Array) -> Array:
        """y, or what the forward hooks put in its place."""
        for hook in tuple(self._forward_hooks.values()):
            replaced = hook(self, x, y)
            y = y if replaced is None else replaced
        return y

    def hooked_gradient(self, dx: Array | None, dy: Array) -> Array | None:
        """dx, or what the backward hooks put in its place."""
        for hook in tuple(self._backward_hooks.values()):
            replaced = hook(self, dx, dy)
            dx = dx if replaced is None else replaced
        return dx
