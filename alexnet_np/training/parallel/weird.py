"""One weird trick: convolutions by the data, dense layers by their units.

The convolutions have 4% of the parameters and 90% of the arithmetic: every process has them whole and computes its own
rows of the batch. The dense layers have 96% of the parameters: of each, every process has some units (rows of its
weight) and computes those for the whole batch. So no dense gradient travels; activations do, and their gradients back:

    rows    before the first dense layer: everybody's rows, gathered;      backward: to each its rows, summed
    units   before each further one, and after the last: everybody's units; backward: to each its units, summed

A process sends, of a batch of B, (R-1)/R * B * 4 * 2 * (features + units of every dense layer but the last) bytes and
once those of the logits, and 2 * (R-1)/R of the convolutions' gradients. That is less than all gradients' 244 MB up to
about 3,300 images, for torchvision's network.
Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014), arXiv:1404.5997, sec. 4,
scheme (a).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from alexnet_np import ops
from alexnet_np.device import Array, beside, to_cpu
from alexnet_np.layers import Dropout, Linear
from alexnet_np.models import AlexNet
from alexnet_np.training.config import Config
from alexnet_np.training.parallel.exchange import Exchange
from alexnet_np.training.parallel.group import Group
from alexnet_np.training.parallel.sharded import Shared
from alexnet_np.training.parallel.trees import cuts, fold
from alexnet_np.training.sgd import SGD
from alexnet_np.training.stepping import Done, right


class Columns(Linear):
    """This process's units of a dense layer, for everybody's rows. Its parameters are those of `whole`, cut."""

    def __init__(self, whole: Linear, group: Group, first: bool, last: bool) -> None:
        super().__init__(1, 1)
        self.units, self.group, self.first, self.last = whole.out_features, group, first, last
        self.weight, self.bias, self.training = whole.weight, whole.bias, whole.training
        self.backend = whole.backend
        for parameter in whole.parameters():
            parameter.data = self.own(parameter.data)
        self._rows: list[int] = []  # how many rows everybody had

    def own(self, array: Array) -> Array:
        """Of anything with a row a unit, this process's."""
        cut = cuts(self.units, self.group.size)
        return np.ascontiguousarray(array[cut[self.group.rank] : cut[self.group.rank + 1]])

    def whole(self, array: Array) -> Array:
        """Everybody's, of what `own` gave."""
        return np.concatenate(self.group.collect(array))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], self.units)

    def compute(self, x: Array) -> tuple[Array, Any]:
        x = self._gather_rows(x) if self.first else gather_units(self.group, x, self.in_features)
        y, cache = super().compute(x)
        return (gather_units(self.group, y, self.units) if self.last else y), cache

    def gradients(self, dy: Array, input_grad: bool) -> Array | None:
        cut = cuts(self.units, self.group.size)
        if self.last:
            dy = np.ascontiguousarray(dy[:, cut[self.group.rank] : cut[self.group.rank + 1]])
        dx = super().gradients(dy, input_grad)
        if dx is None:
            return None
        if self.first:
            parts = [dx[begin:end] for begin, end in pairwise(accumulate(self._rows, initial=0))]
        else:
            parts = [dx[:, begin:end] for begin, end in pairwise(cuts(self.in_features, self.group.size))]
        return sum_parts(self.group, parts)

    def _gather_rows(self, x: Array) -> Array:
        self._rows = self.group.collect(len(x))
        whole = np.empty((sum(self._rows), *x.shape[1:]), x.dtype)
        self.group.gather_uneven(np.ascontiguousarray(x), whole, [rows * x.shape[1] for rows in self._rows])
        return whole


def gather_units(group: Group, part: Array, units: int) -> Array:
    """(B, units) of everybody's (B, some of them)."""
    cut = cuts(units, group.size)
    counts = [len(part) * (end - begin) for begin, end in pairwise(cut)]
    flat = np.empty(sum(counts), part.dtype)
    group.gather_uneven(np.ascontiguousarray(part).reshape(-1), flat, counts)
    parts = np.split(flat, list(accumulate(counts))[:-1])
    return np.concatenate([each.reshape(len(part), -1) for each in parts], axis=1)


def sum_parts(group: Group, parts: Sequence[Array]) -> Array:
    """parts[r] goes to rank r; returns the sum, by the tree, of what came."""
    flat = np.concatenate([np.ascontiguousarray(part).reshape(-1) for part in parts])
    came = group.scatter_uneven(flat, [part.size for part in parts])
    return fold(np.add, list(came)).reshape(parts[group.rank].shape)


class Weird(Shared):
    """Steps of `model` by `optimizer`; of dense layers, this process's units. As stepping.Stepper; see there."""

    def __init__(self, model: AlexNet, optimizer: SGD, group: Group, config: Config, overlap: bool = True) -> None:
        self.model, self.optimizer, self.group, self.label_smoothing = model, optimizer, group, config.label_smoothing
        self.columns: dict[str, Columns] = {}
        dense = [i for i, layer in enumerate(model.classifier) if isinstance(layer, Linear)]
        for i, layer in enumerate(model.classifier):
            if isinstance(layer, Linear):
                model.classifier[i] = columns = Columns(layer, group, i == dense[0], i == dense[-1])
                self.columns[f"classifier.{i}."] = columns
            elif isinstance(layer, Dropout) and self.columns:
                layer.columns = (cuts(columns.units, group.size)[group.rank], columns.units)
        self.dropouts = [layer for _, layer in model.leaves() if isinstance(layer, Dropout)]
        self.trained = [p for p in model.features.parameters() if p.requires_grad]
        self.exchange: Exchange | None = None
        if self.trained:
            self.exchange = Exchange(group, self.trained, config.reduce, overlap=overlap)
            for parameter in self.trained:
                parameter.register_post_accumulate_grad_hook(self.exchange.ready)

    def gradients(self, x: np.ndarray, target: np.ndarray) -> Done:
        """Those of the whole batch, in the parameters; its mean loss and how many were right."""
        begin = cuts(len(target), self.group.size)[self.group.rank]
        for layer in self.dropouts:
            layer.row = 0 if layer.columns else begin
        for parameter in self.model.parameters():
            parameter.grad = None
        logits = self.model(beside(x, next(self.model.parameters()).data))
        loss, cache = ops.cross_entropy.forward(logits, target, label_smoothing=self.label_smoothing)
        self.model.backward(ops.cross_entropy.backward(1.0, cache), input_grad=False)
        if self.exchange is not None:
            self.exchange.finish()
        return Done(float(loss), right(logits, target))

    def whole(self, logits: Array) -> Array:
        """They are whole already."""
        return to_cpu(logits)

    def gathered(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Everybody's units of every array that belongs to a dense layer, by its name or a longer one."""
        return {name: self._layer(name).whole(a) if self._layer(name) else a for name, a in tensors.items()}

    def cut(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """The other way round."""
        return {name: self._layer(name).own(a) if self._layer(name) else a for name, a in tensors.items()}

    def _layer(self, name: str) -> Any:
        return next((layer for prefix, layer in self.columns.items() if prefix in name), None)
