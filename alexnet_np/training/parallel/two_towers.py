"""The two towers of 2012 on two processes: each has half the filters and units, and both the whole batch.

    a convolution of two groups     each process has its group; nothing travels
    one of one group (conv 3)       reads the maps of both: gathered;       backward: to each its maps, summed
    a dense layer                   likewise, with units
    the last dense layer            the first process has it alone: the second's units come, their gradients go back
    a normalisation over all maps   Caffe's: as many maps on both sides of the border as its window reaches

No weight is in two places, so no gradient of a weight travels. The weights, their names and what comes out are those
of the network by itself, to rounding. What crosses is what alexnet_np/towers.py counts in one process.
Source: Krizhevsky, Sutskever, Hinton (2012), sec. 3.2 and figure 2. That figure has normalisations which end at the
tower; Caffe's, of networks trained on one GPU, do not, and their border is computed as they have it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alexnet_np import ops
from alexnet_np.device import Array, array_module, beside, to_cpu
from alexnet_np.errors import ArgumentError
from alexnet_np.layers import Conv2d, Dropout, Linear, LocalResponseNorm, Shape, WeightedLayer
from alexnet_np.models import AlexNet
from alexnet_np.presets import PRESETS
from alexnet_np.towers import TOWERS, own_groups
from alexnet_np.training.config import Config
from alexnet_np.training.parallel.crossing import gather_units, sum_units, units_last, units_second
from alexnet_np.training.parallel.group import Group
from alexnet_np.training.parallel.sharded import Shared, as_kind
from alexnet_np.training.sgd import SGD
from alexnet_np.training.stepping import Done, right


class Meeting(WeightedLayer):
    """Reads both towers' maps or units, and gives its own."""

    group: Group

    def compute(self, x: Array) -> tuple[Array, Any]:
        whole = gather_units(self.group, units_last(x), TOWERS * x.shape[1])
        return super().compute(units_second(whole))

    def gradients(self, dy: Array, input_grad: bool) -> Array | None:
        dx = super().gradients(dy, input_grad)
        return None if dx is None else units_second(sum_units(self.group, units_last(dx)))

    def output_shape(self, shape: Shape) -> Shape:
        return super().output_shape((shape[0], TOWERS * shape[1], *shape[2:]))


class MeetingConv2d(Meeting, Conv2d): ...


class MeetingLinear(Meeting, Linear): ...


class Last(Linear):
    """The logits, on the first process; on the second nothing (B,0)."""

    group: Group

    def compute(self, x: Array) -> tuple[Array, Any]:
        theirs, xp = self._sent_by(1, x), array_module(x)
        if self.group.rank:
            return xp.empty((len(x), 0), x.dtype), x
        return super().compute(xp.concatenate([x, theirs], axis=1))

    def gradients(self, dy: Array, input_grad: bool) -> Array | None:
        if self.group.rank:
            for parameter in self.parameters():
                parameter.accumulate(parameter.data * 0 if parameter.requires_grad else None)
            return self._sent_by(0, self._cache) if input_grad else None
        dx = super().gradients(dy, input_grad)
        if dx is None:
            return None
        own = dx.shape[1] // TOWERS
        self._sent_by(0, dx[:, own:])
        return dx[:, :own]

    def _sent_by(self, rank: int, x: Array) -> Array:
        """What one of the two sends the other, of x's shape: its x."""
        xp = array_module(x)
        came = xp.empty(x.size, x.dtype)
        part = xp.ascontiguousarray(x).reshape(-1) if self.group.rank == rank else came[:0]
        self.group.gather_uneven(part, came, [x.size if sender == rank else 0 for sender in range(TOWERS)])
        return came.reshape(x.shape)

    def output_shape(self, shape: Shape) -> Shape:
        return super().output_shape((shape[0], TOWERS * shape[1]))


class Bordering(LocalResponseNorm):
    """Normalises over the maps of both: its own, beside as many of the other's as its own depend on."""

    group: Group

    def compute(self, x: Array) -> tuple[Array, Any]:
        own = units_last(x)
        y, cache = super().compute(units_second(self._beside(own, self._theirs(own, reach(self, x.shape[1])[0]))))
        return self._own(y, x.shape[1]), cache

    def gradients(self, dy: Array, input_grad: bool) -> Array | None:
        own = units_last(dy)
        far, near = reach(self, dy.shape[1])
        theirs = array_module(dy).zeros((*own.shape[:-1], far), dy.dtype)
        theirs[..., self._nearest(near, 1 - self.group.rank)] = self._theirs(own, near)
        dx = super().gradients(units_second(self._beside(own, theirs)), input_grad)
        return None if dx is None else self._own(dx, dy.shape[1])

    def _theirs(self, own: Array, count: int) -> Array:
        """The other's maps nearest to the border; it gets as many."""
        xp = array_module(own)
        edge = xp.ascontiguousarray(own[..., self._nearest(count, self.group.rank)])
        both = xp.empty((TOWERS, *edge.shape), own.dtype)
        self.group.gather_uneven(edge.reshape(-1), both.reshape(-1), [edge.size] * TOWERS)
        return both[1 - self.group.rank]

    def _nearest(self, count: int, rank: int) -> slice:
        return slice(0, count) if rank else slice(-count, None)

    def _beside(self, own: Array, theirs: Array) -> Array:
        return array_module(own).concatenate([theirs, own] if self.group.rank else [own, theirs], axis=-1)

    def _own(self, x: Array, maps: int) -> Array:
        own = units_last(x)[..., -maps:] if self.group.rank else units_last(x)[..., :maps]
        return units_second(array_module(x).ascontiguousarray(own))


def reach(layer: LocalResponseNorm, maps: int) -> tuple[int, int]:
    """How many of the other tower's `maps` the gradients of this one's depend on: of x; of dy, which y does too."""
    near = min(layer.size // 2, maps)
    return min(2 * near, maps), near


def crosses_border(layer: Any) -> bool:
    """Whether a layer normalises over the maps of both towers."""
    return isinstance(layer, LocalResponseNorm) and layer.region == "across" and layer.groups % TOWERS != 0


def check_towers(model: AlexNet, processes: int) -> None:
    """Raises ArgumentError where two processes cannot have a tower each."""
    if not any(own_groups(layer) for _, layer in model.leaves()):
        grouped = [name for name, known in PRESETS.items() if any(map(own_groups, known.layers))]
        raise ArgumentError(
            f"parallel 'towers' is for networks that have two: {', '.join(grouped)}; {model.preset!r} has one, "
            "take data or weird"
        )
    if processes > TOWERS:
        raise ArgumentError(
            f"parallel 'towers' is for {TOWERS} processes, one a tower, got {processes}: give mpirun -n {TOWERS}"
        )


class TwoTowers(Shared):
    """Steps of `model` by `optimizer`, of which this process has one tower. As stepping.Stepper; see there.

    Raises ArgumentError for more than two processes, and for a network without towers.
    """

    def __init__(self, model: AlexNet, optimizer: SGD, group: Group, config: Config) -> None:
        check_towers(model, group.size)
        self.model, self.optimizer, self.group, self.label_smoothing = model, optimizer, group, config.label_smoothing
        weighted = [layer for _, layer in model.leaves() if isinstance(layer, WeightedLayer)]
        self.first, self.last = weighted[0], weighted[-1]
        self.rows = {}
        for prefix, part in (("features", model.features), ("classifier", model.classifier)):
            units = 0
            for i, layer in enumerate(part):
                if isinstance(layer, WeightedLayer):
                    units = len(layer.weight.data)
                    self.rows[f"{prefix}.{i}."] = self._take(layer)
                elif isinstance(layer, Dropout):
                    layer.columns = (group.rank * units // TOWERS, units)
                part[i] = self._divided(layer)

    def _take(self, layer: WeightedLayer) -> slice:
        """Cut a layer's parameters down to this tower's; returns which rows of them those are."""
        units, rank = len(layer.weight.data), self.group.rank
        cut = (0, units, units) if layer is self.last else (0, units // TOWERS, units)
        rows = slice(cut[rank], cut[rank + 1])
        for parameter in layer.parameters():
            parameter.data = parameter.data[rows].copy()
        return rows

    def _divided(self, layer: Any) -> Any:
        """The layer as this tower has it."""
        if crosses_border(layer):
            return as_kind(layer, Bordering, group=self.group)
        if isinstance(layer, WeightedLayer) and layer is not self.first and not own_groups(layer):
            kind = Last if layer is self.last else MeetingConv2d if isinstance(layer, Conv2d) else MeetingLinear
            return as_kind(layer, kind, group=self.group)
        if getattr(layer, "groups", 1) % TOWERS == 0:
            layer.groups //= TOWERS
        return layer

    def gradients(self, x: np.ndarray, target: np.ndarray) -> Done:
        """Those of this tower, in its parameters; the batch's mean loss and how many were right."""
        for parameter in self.model.parameters():
            parameter.grad = None
        logits = dlogits = self.model(beside(x, next(self.model.parameters()).data))
        done = None
        if self.group.rank == 0:
            loss, cache = ops.cross_entropy.forward(logits, target, label_smoothing=self.label_smoothing)
            done, dlogits = Done(float(loss), right(logits, target)), ops.cross_entropy.backward(1.0, cache)
        self.model.backward(dlogits, input_grad=False)
        return self.group.share(done)

    def whole(self, logits: Array) -> np.ndarray:
        """They are on the first process."""
        return self.group.share(to_cpu(logits))
