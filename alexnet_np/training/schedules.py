"""Learning rates over time. Each is torch.optim.lr_scheduler's of the same name, and gives the same numbers.

With base rate b, t steps taken, T steps in all:

    StepLR             b * gamma^floor(t / step_size)
    MultiStepLR        b * gamma^(how many milestones are at most t)
    CosineAnnealingLR  eta_min + (b - eta_min) * (1 + cos(pi*t/T)) / 2
    OneCycleLR         by half a cosine from max/div up to max in the first pct of the steps, then down to max/div/final
    ReduceLROnPlateau  times `factor` when the watched number has not improved for more than `patience` steps

A step is whatever `.step()` is called for: a batch or an epoch. torch's OneCycleLR also cycles the momentum unless told
not to; this one leaves it alone (cycle_momentum=False).

Source: Krizhevsky, Sutskever, Hinton (2012), sec. 5, for the plateau; Loshchilov and Hutter (2017), eq. 5, for the
cosine; Smith and Topin (2018) for the single cycle; torch.optim.lr_scheduler.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from alexnet_np import arguments
from alexnet_np.errors import ArgumentError, CheckpointError
from alexnet_np.training.sgd import SGD


class Schedule:
    """A rate for every group that depends on the number of steps alone. Setting it up sets the first rate."""

    held: Collection[int] = ()  # groups whose rate stays what it began as
    stops: Mapping[int, int] = {}  # groups -> after how many steps their rate is 0

    def __init__(self, optimizer: SGD, base_lrs: Sequence[float] | None = None) -> None:
        self.optimizer = _checked(self, optimizer)
        self.base_lrs = [group["lr"] for group in optimizer.param_groups] if base_lrs is None else list(base_lrs)
        self.steps = 0
        self._apply()

    def rate(self, base: float, t: int) -> float:
        """The rate after `t` steps of a group whose base rate is `base`."""
        raise NotImplementedError

    def step(self) -> None:
        self.steps += 1
        self._apply()

    def hold(self, groups: Collection[int]) -> None:
        """Leave the rates of these groups what they began as."""
        self.held = groups
        self._apply()

    def stop(self, groups: Mapping[int, int]) -> None:
        """The rate of each of these groups is 0 once so many steps are taken."""
        self.stops = groups
        self._apply()

    def _apply(self) -> None:
        for i, (group, base) in enumerate(zip(self.optimizer.param_groups, self.base_lrs, strict=True)):
            rate = base if i in self.held else self.rate(base, self.steps)
            group["lr"] = 0.0 if self.steps >= self.stops.get(i, math.inf) else rate

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        saved = _saved(self, state)
        self.steps, self.base_lrs = saved["steps"], list(saved["base_lrs"])
        self._apply()


class ConstantLR(Schedule):
    """The base rate for ever."""

    def rate(self, base: float, t: int) -> float:
        return base


class StepLR(Schedule):
    """Times `gamma` every `step_size` steps."""

    def __init__(self, optimizer: SGD, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = arguments.integer("StepLR", "step_size", step_size, 1)
        self.gamma = arguments.number("StepLR", "gamma", gamma)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * self.gamma ** (t // self.step_size)


class MultiStepLR(Schedule):
    """Times `gamma` at every one of `milestones`, counted in steps."""

    def __init__(self, optimizer: SGD, milestones: Sequence[int], gamma: float = 0.1) -> None:
        given = arguments.items("MultiStepLR", "milestones", milestones, "a list of steps")
        self.milestones = sorted(arguments.integer("MultiStepLR", "milestones", each, 0) for each in given)
        self.gamma = arguments.number("MultiStepLR", "gamma", gamma)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * self.gamma ** sum(milestone <= t for milestone in self.milestones)


class CosineAnnealingLR(Schedule):
    """Half a cosine from the base rate down to `eta_min` over `T_max` steps, and up again after them."""

    def __init__(self, optimizer: SGD, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = arguments.integer("CosineAnnealingLR", "T_max", T_max, 1)
        self.eta_min = arguments.number("CosineAnnealingLR", "eta_min", eta_min)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return _half_cosine(base, self.eta_min, t / self.T_max)


class OneCycleLR(Schedule):
    """Up to `max_lr` (one, or one a group) in the first `pct_start` of `total_steps`, then down to almost nothing.

    It has `total_steps` rates, the first before any step: `.step()` may be called total_steps - 1 times. One call more
    leaves the last rate standing, where torch raises.
    """

    def __init__(
        self,
        optimizer: SGD,
        max_lr: float | Sequence[float],
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        self.pct_start = arguments.number("OneCycleLR", "pct_start", pct_start, 0, 1)
        self.total_steps = arguments.integer("OneCycleLR", "total_steps", total_steps, 1)
        self.div_factor = arguments.above("OneCycleLR", "div_factor", div_factor)
        self.final_div_factor = arguments.above("OneCycleLR", "final_div_factor", final_div_factor)
        groups = len(_checked(self, optimizer).param_groups)
        given = list(max_lr) if isinstance(max_lr, list | tuple) else [max_lr] * groups
        peaks = [arguments.number("OneCycleLR", "max_lr", peak, 0) for peak in given]
        if len(peaks) != groups:
            raise ArgumentError(f"OneCycleLR: {len(peaks)} max_lr for {groups} parameter groups")
        super().__init__(optimizer, peaks)

    def rate(self, base: float, t: int) -> float:
        first, last = base / self.div_factor, base / self.div_factor / self.final_div_factor
        top, end = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if t <= top:
            return _half_cosine(first, base, t / top if top else 1.0)
        return _half_cosine(base, last, min(1.0, (t - top) / (end - top)) if end > top else 1.0)


class ReduceLROnPlateau:
    """The paper's rule: divide the rate by 10 when the validation figure stops improving.

    `.step(value)` after each measurement. An improvement is a change of more than `threshold`, relative to the best so
    far; after more than `patience` measurements without one, the rate is multiplied by `factor`, down to `min_lr`, and
    `cooldown` measurements pass before counting again. `mode`: "min" for an error or a loss, "max" for an accuracy.
    """

    def __init__(
        self,
        optimizer: SGD,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        where = "ReduceLROnPlateau"
        self.optimizer, self.mode = _checked(self, optimizer), arguments.choice(where, "mode", mode, ("min", "max"))
        self.factor = arguments.above(where, "factor", factor)
        if self.factor >= 1:
            raise ArgumentError(f"{where}: factor must be between 0 and 1, got {factor}")
        self.patience = arguments.integer(where, "patience", patience, 0)
        self.cooldown = arguments.integer(where, "cooldown", cooldown, 0)
        self.threshold = arguments.number(where, "threshold", threshold, 0)
        self.min_lr = arguments.number(where, "min_lr", min_lr, 0)
        self.best: float | None = None
        self.bad, self.cooling, self.steps = 0, 0, 0
        self.held: Collection[int] = ()
        self.stops: Mapping[int, int] = {}

    def hold(self, groups: Collection[int]) -> None:
        """Leave the rates of these groups as they are."""
        self.held = groups

    def stop(self, groups: Mapping[int, int]) -> None:
        """The rate of each of these groups is 0 after so many measurements."""
        self.stops = groups

    def step(self, value: float) -> None:
        if isinstance(value, str | bytes) or not hasattr(value, "__float__"):  # a loss that is no number is a fault
            arguments.number("ReduceLROnPlateau", "value", value)
        value = float(value)
        if self._improves(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.cooling:
            self.cooling, self.bad = self.cooling - 1, 0
        if self.bad > self.patience:
            self._reduce()
            self.cooling, self.bad = self.cooldown, 0
        self.steps += 1
        for i in (i for i, last in self.stops.items() if self.steps >= last):
            self.optimizer.param_groups[i]["lr"] = 0.0

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        if self.mode == "min":
            return value < self.best * (1 - self.threshold)
        return value > self.best * (1 + self.threshold)

    def _reduce(self) -> None:
        for group in (g for i, g in enumerate(self.optimizer.param_groups) if i not in self.held):
            reduced = max(group["lr"] * self.factor, self.min_lr)
            if group["lr"] - reduced > 1e-8:  # torch's eps: smaller changes are not made
                group["lr"] = reduced

    def state_dict(self) -> dict[str, Any]:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return {"best": self.best, "bad": self.bad, "cooling": self.cooling, "steps": self.steps, "lrs": rates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        saved = _saved(self, state)
        self.best, self.bad, self.cooling, self.steps = (saved[n] for n in ("best", "bad", "cooling", "steps"))
        for group, lr in zip(self.optimizer.param_groups, saved["lrs"], strict=True):
            group["lr"] = lr


def _half_cosine(start: float, end: float, fraction: float) -> float:
    """`start` at fraction 0, `end` at fraction 1, along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))


def _checked(schedule: Any, optimizer: Any) -> SGD:
    return arguments.instance(type(schedule).__name__, "optimizer", optimizer, SGD, "an SGD")


def _saved(schedule: Any, state: Any) -> Mapping[str, Any]:
    """`state` if it is what `schedule.state_dict()` gives. Raises CheckpointError."""
    own = schedule.state_dict()
    if isinstance(state, Mapping) and set(own) <= set(state):
        return state
    raise CheckpointError(f"{type(schedule).__name__}: not a saved state; give what its state_dict() returned")
