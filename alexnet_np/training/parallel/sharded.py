"""The gradients of a batch by shards: this process's own, summed with everybody's by one tree."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from alexnet_np import ops
from alexnet_np.device import Array, array_module, beside, to_cpu
from alexnet_np.errors import ArgumentError
from alexnet_np.layers import Dropout, Layer, Linear, Sequential
from alexnet_np.models import AlexNet
from alexnet_np.parameters import Parameter
from alexnet_np.training.config import Config
from alexnet_np.training.evaluation import logits_of
from alexnet_np.training.parallel.exchange import Exchange
from alexnet_np.training.parallel.group import Alone, Group
from alexnet_np.training.parallel.trees import Counter, cuts
from alexnet_np.training.sgd import SGD
from alexnet_np.training.stepping import EAGER, Done, right

Gradients = list[Array]


class Share:
    """Which part of every batch is whose: S shards, of which each of R processes has S/R that follow each other."""

    def __init__(self, group: Group, shards: int) -> None:
        self.shards = shards
        self.mine = range(group.rank * shards // group.size, (group.rank + 1) * shards // group.size)

    def rows(self, samples: int) -> slice:
        """Of a batch of so many samples, those of this process."""
        cut = cuts(samples, self.shards)
        return slice(cut[self.mine.start], cut[self.mine.stop])

    def within(self, samples: int) -> list[int]:
        """Where each of its shards begins among its own rows, and where the last ends."""
        cut = cuts(samples, self.shards)
        return [cut[shard] - cut[self.mine.start] for shard in (*self.mine, self.mine.stop)]


def share_of(config: Config, group: Group) -> Share:
    """Raises ArgumentError where the shards cannot be shared evenly."""
    if config.parallel != "data":
        if config.shards > 1:
            raise ArgumentError(f"parallel {config.parallel!r} cuts no batch into shards; leave shards out")
        return Share(Alone(), 1) if config.parallel == "towers" else Share(group, group.size)
    if config.shards % group.size:
        raise ArgumentError(
            f"{config.shards} shards cannot be shared evenly by {group.size} processes: give --shards a multiple of "
            f"{group.size} that is a power of two, or start another number of processes"
        )
    return Share(group, config.shards)


class Shared:
    """A step that several processes share, as stepping.Stepper is one's alone: what they do with the gradients.

    `rows`: by a layer's name, the rows of its parameters that this process has; where it is not there, all.
    """

    engine = EAGER
    model: AlexNet
    optimizer: SGD
    group: Group
    rows: dict[str, slice]
    exchange: Exchange | None = None

    def __call__(self, x: np.ndarray, target: np.ndarray, check: Callable[[float], None]) -> Done:
        """x: this process's samples; target: everybody's. `check` sees the loss before anything is updated."""
        done = self.gradients(x, target)
        check(done.loss)
        self.optimizer.step()
        return done

    def gradients(self, x: np.ndarray, target: np.ndarray) -> Done:
        """Those of the whole batch, in the parameters; its mean loss and how many were right."""
        raise NotImplementedError

    def logits(self, x: Array, samples: int) -> np.ndarray:
        """What the model says of a batch of so many, of which x is this process's rows."""
        return self.whole(logits_of(self.model, x))

    def whole(self, logits: Array) -> np.ndarray:
        """Those of the whole batch, of what the model gave this process."""
        raise NotImplementedError

    def gathered(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Everybody's rows of every array of which each has some."""
        return {
            name: array if self._own(name) is None else np.concatenate(self.group.collect(to_cpu(array)))
            for name, array in tensors.items()
        }

    def cut(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """The other way round."""
        return {
            name: array if (own := self._own(name)) is None else array[own].copy() for name, array in tensors.items()
        }

    def _own(self, name: str) -> slice | None:
        """Which rows of an array this process has, by a parameter's name or a longer one; None: all."""
        return next((rows for prefix, rows in self.rows.items() if prefix in name), None)


class InShards(Linear):
    """A dense layer whose weight's gradient is computed of all shards at once, at the last one: written once, not added
    up in memory, of which these weights are nearly all."""

    given: list[Array]  # dy of every shard so far
    taken: list[Array]  # and x
    last: bool  # whether this shard is the last
    out: Array  # where the gradient goes

    def begin(self) -> None:
        self.given, self.taken, self.last = [], [], False

    def gradients(self, dy: Array, input_grad: bool) -> Array | None:
        _, weight, bias = self.needs(input_grad)
        dx, _, dbias = self.op.backward(dy, self._cache, (input_grad, False, bias))
        return self.accumulate(dx, self.add(dy, self._cache.x) if weight else None, dbias)

    def add(self, dy: Array, x: Array) -> Array | None:
        """The whole gradient, with the last shard."""
        self.given.append(dy)
        self.taken.append(x)
        return self.op.weight_gradient(self.given, self.taken, self.out) if self.last else None


class Sharded(Shared):
    """Steps of `model` by `optimizer`, each with the gradients of the whole batch. As stepping.Stepper; see there."""

    def __init__(self, model: AlexNet, optimizer: SGD, group: Group, config: Config, overlap: bool = True) -> None:
        self.model, self.optimizer, self.group, self.label_smoothing = model, optimizer, group, config.label_smoothing
        self.share, self.rows = share_of(config, group), {}
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.dropouts = [layer for _, layer in model.leaves() if isinstance(layer, Dropout)]
        self.exchange = None if group.size == 1 else Exchange(group, self.trained, config.reduce, overlap=overlap)
        self.dense = [in_shards(model.classifier, i) for i, layer in enumerate(model.classifier) if is_dense(layer)]
        for layer in self.dense:
            if layer.weight.requires_grad:
                layer.out = self._place(layer.weight)
        at_once = {id(layer.weight) for layer in self.dense}
        self.summed = [p for p in self.trained if id(p) not in at_once]  # shard by shard
        self._sums = Counter(_add_all)
        self._sending = False
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(self._send)

    def gradients(self, x: np.ndarray, target: np.ndarray) -> Done:
        """Those of the whole batch, in the parameters; its mean loss and how many were right."""
        samples, calls = len(target), [layer.calls for layer in self.dropouts]
        cut, mine = cuts(samples, self.share.shards), self.share.mine
        losses, hits = [], 0
        self._sums = Counter(_add_all)
        for dense in self.dense:
            dense.begin()
        for shard in mine:
            begin, end = cut[shard], cut[shard + 1]
            for layer, count in zip(self.dropouts, calls, strict=True):
                layer.row, layer.calls = begin, count
            self._sending = self.exchange is not None and shard == mine[-1]
            for dense in self.dense:
                dense.last = shard == mine[-1]
            rows = slice(begin - cut[mine.start], end - cut[mine.start])
            loss, correct = self._one(x[rows], target[begin:end], samples)
            losses.append(loss)
            hits += correct
            if not self._sending:
                self._sums.put([_gradient(p) for p in self.summed])
        self._sending = False
        for layer, count in zip(self.dropouts, calls, strict=True):
            layer.row, layer.calls = 0, count + 1
        if self.exchange is None:
            for parameter, gradient in zip(self.summed, self._sums.total(), strict=True):
                parameter.grad = gradient
        else:
            self.exchange.finish()
        everybody = self.group.collect((np.concatenate(losses), hits))
        total = np.concatenate([each for each, _ in everybody]).sum(dtype=np.float64)
        return Done(float(total) / samples, sum(hits for _, hits in everybody))

    def _one(self, x: np.ndarray, target: np.ndarray, samples: int) -> tuple[np.ndarray, int]:
        """One shard: every sample's loss, and how many were right; the gradients of its part of the mean are left."""
        for parameter in self.trained:
            parameter.grad = None
        if not len(target):
            self._nothing()
            return np.empty(0, self.trained[0].dtype), 0
        logits = self.model(beside(x, self.trained[0].data))
        smoothing = self.label_smoothing
        each, cache = ops.cross_entropy.forward(logits, target, reduction="none", label_smoothing=smoothing)
        share = np.full(len(target), 1, logits.dtype) / logits.dtype.type(samples)
        self.model.backward(ops.cross_entropy.backward(beside(share, logits), cache), input_grad=False)
        return to_cpu(each), right(logits, target)

    def _place(self, parameter: Parameter) -> Array:
        """Memory for a gradient, which stays."""
        return parameter.data * 0 if self.exchange is None else self.exchange.place(parameter)

    def _nothing(self) -> None:
        """A shard without samples: its gradients are zeros."""
        for parameter in reversed(self.summed):
            parameter.accumulate(_gradient(parameter))
        for dense in reversed(self.dense):
            if dense.weight.requires_grad:
                weight = dense.weight.data
                dense.weight.accumulate(dense.add(weight.T[:0], weight[:0]))

    def _send(self, parameter: Parameter) -> None:
        """The last shard's gradient completes the branch of the tree that is this process's."""
        if not self._sending or self.exchange is None:
            return
        i = next((i for i, other in enumerate(self.summed) if other is parameter), None)
        if i is not None:
            for _, partial in reversed(self._sums.partial):
                parameter.grad = partial[i] + parameter.grad
        self.exchange.ready(parameter)

    def logits(self, x: Array, samples: int) -> np.ndarray:
        """As above; shard by shard, for a layer's last bits may depend on how many images come together."""
        rows = [logits_of(self.model, x[begin:end]) for begin, end in pairwise(self.share.within(samples))]
        return self.whole(array_module(x).concatenate(rows))

    def whole(self, rows: Array) -> np.ndarray:
        """Everybody's rows, in the batch's order."""
        return np.concatenate(self.group.collect(to_cpu(rows)))


def is_dense(layer: Layer) -> bool:
    return type(layer) is Linear


def in_shards(layers: Sequential, i: int) -> InShards:
    """The i-th layer, which from now on is one of these."""
    layers[i] = made = as_kind(layers[i], InShards)
    return made


def as_kind(layer: Any, kind: type, **more: Any) -> Any:
    """The same layer, with the same parameters, of another kind, which has some attributes more."""
    made = copy.copy(layer)
    made.__class__ = kind
    vars(made).update(more)
    return made


def _gradient(parameter: Parameter) -> Array:
    """Zero where a shard is empty, so that its place in the tree is as good as any other."""
    return array_module(parameter.data).zeros_like(parameter.data) if parameter.grad is None else parameter.grad


def _add_all(first: Gradients, second: Sequence[Array]) -> Gradients:
    for mine, other in zip(first, second, strict=True):
        mine += other
    return first
