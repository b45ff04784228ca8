"""Stochastic gradient descent with momentum, by parameter groups as torch's; the rules are in alexnet_np/ops/sgd.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

from alexnet_np import arguments
from alexnet_np.backend import check_backend, use_backend
from alexnet_np.device import Array, array_module, as_array
from alexnet_np.errors import ArgumentError, CheckpointError
from alexnet_np.layers import Parameter
from alexnet_np.ops.sgd import RULES, Step, update

OPTIONS = ("lr", "momentum", "dampening", "weight_decay", "nesterov")

NamedParameters = Iterable[tuple[str, Parameter]]


class SGD:
    """`SGD(model.named_parameters(), lr, momentum=0.9)`, or groups with options of their own:

        SGD([{"params": weights}, {"params": biases, "lr": 0.02, "weight_decay": 0}], lr=0.01, weight_decay=5e-4)

    where `weights` and `biases` are (name, parameter) pairs. `param_groups` is a list of dicts as torch's: change
    `param_groups[0]["lr"]` and the next step uses it. Parameters are updated in their own memory; those frozen or
    without a gradient are skipped. `rule` is "torch" or "paper" (alexnet_np/ops/sgd.py). `backend`: whose kernel does
    the arithmetic; by default use_backend's, or the array operations.
    Raises ArgumentError.
    """

    def __init__(
        self,
        named_parameters: NamedParameters | Iterable[Mapping[str, Any]],
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        rule: str = "torch",
        backend: str | None = None,
    ) -> None:
        rule, backend = (
            arguments.choice("SGD", "rule", rule, RULES),
            None if backend is None else check_backend(backend),
        )
        defaults = dict(zip(OPTIONS, (lr, momentum, dampening, weight_decay, nesterov), strict=True))
        self.rule, self.backend = rule, backend
        self.param_groups = [_make_group(group, defaults, rule) for group in _as_groups(named_parameters)]
        self.velocities: dict[str, Array] = {}  # torch's momentum buffers, by parameter name
        names = [name for group in self.param_groups for name in group["param_names"]]
        if not names:
            raise ArgumentError("SGD: no parameters to train")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ArgumentError(f"SGD: {twice!r} is given twice; a parameter belongs to one group")

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        with nullcontext() if self.backend is None else use_backend(self.backend):
            for group in self.param_groups:
                for name, parameter in zip(group["param_names"], group["params"], strict=True):
                    if parameter.requires_grad and parameter.grad is not None:
                        self._update(name, parameter, {option: group[option] for option in OPTIONS})

    def _update(self, name: str, parameter: Parameter, options: dict[str, Any]) -> None:
        w = parameter.data
        first = bool(options["momentum"]) and name not in self.velocities
        if first:
            self.velocities[name] = array_module(w).empty_like(w)
        velocity = self.velocities[name] if options["momentum"] else None
        update(w, parameter.grad, velocity, Step(**options, paper=self.rule == "paper", first=first))

    def zero_grad(self) -> None:
        """Drop every gradient, as torch does."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def __repr__(self) -> str:
        return "; ".join(
            f"SGD({len(group['params'])} parameters, {', '.join(f'{option}={group[option]}' for option in OPTIONS)})"
            for group in self.param_groups
        )

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with names where torch has numbers. The arrays are the optimizer's own, not copies."""
        return {
            "state": {name: {"momentum_buffer": velocity} for name, velocity in self.velocities.items()},
            "param_groups": [
                {"params": list(group["param_names"]), **{option: group[option] for option in OPTIONS}}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a `state_dict()`. Raises CheckpointError where it is of other parameters."""
        if not isinstance(state_dict, Mapping) or not {"param_groups", "state"} <= set(state_dict):
            raise CheckpointError("SGD: not a saved state; give what optimizer.state_dict() returned")
        groups = state_dict["param_groups"]
        ours, theirs = [g["param_names"] for g in self.param_groups], [list(g["params"]) for g in groups]
        if ours != theirs:
            differ = sorted(set(sum(ours, [])) ^ set(sum(theirs, []))) or ["the same names, grouped otherwise"]
            raise CheckpointError(f"SGD: the saved state is of other parameters: {', '.join(differ[:4])}")
        parameters = {n: p for g in self.param_groups for n, p in zip(g["param_names"], g["params"], strict=True)}
        velocities = {}
        for name, saved in state_dict["state"].items():
            if name not in parameters:
                raise CheckpointError(f"SGD: the saved state has a momentum buffer for {name!r}, which is not trained")
            data, buffer = parameters[name].data, as_array(saved["momentum_buffer"], name)
            if buffer.shape != data.shape:
                raise CheckpointError(f"SGD: {name!r} is {data.shape} but its saved momentum buffer {buffer.shape}")
            velocities[name] = array_module(data).array(buffer, dtype=data.dtype)
        self.velocities = velocities
        for group, saved in zip(self.param_groups, groups, strict=True):
            group.update({option: saved[option] for option in OPTIONS})


def _as_groups(given: Iterable[Any]) -> list[Mapping[str, Any]]:
    items = arguments.items("SGD", "parameters", given, "model.named_parameters(), or groups of them")
    if all(isinstance(item, Mapping) for item in items):
        return items
    return [{"params": items}]


def _make_group(given: Mapping[str, Any], defaults: dict[str, Any], rule: str) -> dict[str, Any]:
    unknown = set(map(str, given)) - {"params", *OPTIONS}
    if unknown or "params" not in given:
        raise ArgumentError(f"SGD: a group has 'params' and any of {', '.join(OPTIONS)}, got {sorted(map(str, given))}")
    pairs = arguments.items("SGD", "params", given["params"], "model.named_parameters()")
    if not all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Parameter) for pair in pairs):
        raise ArgumentError("SGD: give (name, parameter) pairs, as model.named_parameters() yields them")
    group = {**defaults, **{option: given[option] for option in OPTIONS if option in given}}
    for option in ("lr", "momentum", "weight_decay"):
        group[option] = arguments.number("SGD", option, group[option], 0)
    group["dampening"] = arguments.number("SGD", "dampening", group["dampening"])
    group["nesterov"] = arguments.flag("SGD", "nesterov", group["nesterov"])
    if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
        raise ArgumentError("SGD: nesterov needs a momentum above 0 and no dampening")
    if rule == "paper" and (group["nesterov"] or group["dampening"]):
        raise ArgumentError("SGD: the paper's rule has neither nesterov nor dampening; use rule='torch'")
    return {"params": [p for _, p in pairs], "param_names": [name for name, _ in pairs], **group}
