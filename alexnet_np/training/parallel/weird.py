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

from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from alexnet_np import ops
from alexnet_np.device import Array, array_module, beside, to_cpu
from alexnet_np.layers import Dropout, Linear
from alexnet_np.models import AlexNet
from alexnet_np.training.config import Config
from alexnet_np.training.parallel.crossing import gather_units, sum_parts, sum_units
from alexnet_np.training.parallel.exchange import Exchange
from alexnet_np.training.parallel.group import Group
from alexnet_np.training.parallel.sharded import Shared
from alexnet_np.training.parallel.trees import cuts
from alexnet_np.training.sgd import SGD
from alexnet_np.training.stepping import Done, right


class Columns(Linear):
    """This process's units of a dense layer, for everybody's rows. Its parameters are those of `whole`, cut."""

    def __init__(self, whole: Linear, group: Group, first: bool, last: bool) -> None:
        super().__init__(1, 1)
        self.units, self.group, self.first, self.last = whole.out_features, group, first, last
        self.weight, self.bias, self.training = whole.weight, whole.bias, whole.training
        self.backend = whole.backend
        cut = cuts(self.units, group.size)
        self.own = slice(cut[group.rank], cut[group.rank + 1])
        for parameter in whole.parameters():
            parameter.data = parameter.data[self.own].copy()
        self._rows: list[int] = []  # how many rows everybody had

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], self.units)

    def compute(self, x: Array) -> tuple[Array, Any]:
        x = self._gather_rows(x) if self.first else gather_units(self.group, x, self.in_features)
        y, cache = super().compute(x)
        return (gather_units(self.group, y, self.units) if self.last else y), cache

    def gradients(self, dy: Array, input_grad: bool) -> Array | None:
        dx = super().gradients(dy[:, self.own].copy() if self.last else dy, input_grad)
        if dx is None:
            return None
        if not self.first:
            return sum_units(self.group, dx)
        return sum_parts(self.group, [dx[begin:end] for begin, end in pairwise(accumulate(self._rows, initial=0))])

    def _gather_rows(self, x: Array) -> Array:
        self._rows = self.group.collect(len(x))
        xp = array_module(x)
        whole = xp.empty((sum(self._rows), *x.shape[1:]), x.dtype)
        self.group.gather_uneven(xp.ascontiguousarray(x), whole, [rows * x.shape[1] for rows in self._rows])
        return whole


class Weird(Shared):
    """Steps of `model` by `optimizer`; of dense layers, this process's units. As stepping.Stepper; see there."""

    def __init__(self, model: AlexNet, optimizer: SGD, group: Group, config: Config, overlap: bool = True) -> None:
        self.model, self.optimizer, self.group, self.label_smoothing = model, optimizer, group, config.label_smoothing
        self.rows = {}
        dense = [i for i, layer in enumerate(model.classifier) if isinstance(layer, Linear)]
        for i, layer in enumerate(model.classifier):
            if isinstance(layer, Linear):
                model.classifier[i] = columns = Columns(layer, group, i == dense[0], i == dense[-1])
                self.rows[f"classifier.{i}."] = columns.own
            elif isinstance(layer, Dropout) and self.rows:
                layer.columns = (columns.own.start, columns.units)
        self.dropouts = [layer for _, layer in model.leaves() if isinstance(layer, Dropout)]
        self.trained = [p for p in model.features.parameters() if p.requires_grad]
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
