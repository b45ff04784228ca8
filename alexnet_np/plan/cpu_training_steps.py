"""The steps of a training plan on the CPU: each forward from buffer to buffer, and backward from gradient to gradient.

`forward` and `backward` lay a step out, as steps.py says; then, batch by batch,

    begin(count)               once before its images come: how many there will be
    run(first, count)          computes images first..first+count, of the whole batch or of a slice that is in the cache
    run_back(first, count)     their dx, and their share of the parameters' gradients
    finish(count)              once after them: the parameters are updated

Convolutions are in cpu_training_convolution.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from alexnet_np import layers, threads
from alexnet_np.device import Array
from alexnet_np.kernels import avg_pool2d_nhwc_numba as avg_pool
from alexnet_np.kernels import dropout_numba, flatten_nhwc_numba, linear_numba, linear_training_numba, relu_numba
from alexnet_np.kernels import local_response_norm_nhwc_numba as lrn
from alexnet_np.kernels import local_response_norm_within_numba as within
from alexnet_np.kernels import max_pool2d_nhwc_numba as max_pool
from alexnet_np.kernels import relu_tanh_sigmoid_gradients_nhwc_numba as activation_gradients
from alexnet_np.kernels import relu_tanh_sigmoid_nhwc_numba as activations
from alexnet_np.kernels.cpu.simd import LANES, MACHINE
from alexnet_np.kernels.gemm_numba import WIDTH
from alexnet_np.plan import cpu_steps, steps
from alexnet_np.plan.cpu_buffers import Rows
from alexnet_np.plan.cpu_training_buffers import Images, Update, updates_of
from alexnet_np.plan.layout import Place
from alexnet_np.plan.steps import Classes

Gradients = dict[str, Array]


class Step(steps.Step):
    source: Any  # what it reads: Images, or Rows
    target: Any
    dy: Any
    dx: Any = None  # None where nobody needs it
    keeps_source = keeps_target = False  # whether its backward reads them
    goes_back = False  # whether it has a backward at all

    def between(self, x: Any) -> Any:
        self.source = x
        self.target = Rows(self.name, x.features) if isinstance(x, Rows) else Images(self.name, *self.place.leaving)
        return self.target

    def forward(self, x: Any, weights: None, keep: bool = True) -> Any:
        return self.between(x)

    def backward(self, dy: Any, needs: bool, parameters: Mapping[str, Update]) -> tuple[Any, Gradients]:
        self.dy, self.goes_back = dy, True
        if needs:
            self.dx = self.gradient_of_source()
        return self.dx, {}

    def gradient_of_source(self) -> Any:
        x = self.source
        return Rows(self.name, x.features) if isinstance(x, Rows) else Images(self.name, x.C, x.H, x.W)

    def begin(self, count: int) -> None:
        pass

    def run(self, first: int, count: int) -> None:
        raise NotImplementedError

    def run_back(self, first: int, count: int) -> None:
        raise NotImplementedError

    def finish(self, count: int) -> None:
        pass

    @property
    def own_bytes(self) -> int:
        """What it holds beside its buffers."""
        return 0


class Load(cpu_steps.Load, Step):  # type: ignore[misc]  # both read weights of their own kind
    """Where the first convolution is trained, the images of the whole batch stay as it reads them, for its gradient."""


class Dense(steps.Dense, Step):
    """Its weight is read as it is, and updated while its gradient is in the cache."""

    keeps_source = True

    def forward(self, x: Rows, weights: None, keep: bool = True) -> Rows:
        self.keeps_target = self.relu
        N, K = self.layer.weight.shape
        self.source, self.target = x, Rows(self.name, N)
        self.bias = np.zeros(-(-N // WIDTH) * WIDTH, np.float32)
        self.updates: Mapping[str, Update] = {}
        self.fused = linear_training_numba.fits(self.layer.weight.data)
        self.say("gemm")
        return self.target

    def backward(self, dy: Rows, needs: bool, parameters: Mapping[str, Update]) -> tuple[Any, Gradients]:
        super().backward(dy, needs, parameters)
        self.updates = updates_of(self.name, parameters)
        self.gradients = {
            kind: np.empty(update.parameter.shape, np.float32)
            for kind, update in self.updates.items()
            if kind == "bias" or not self.fused  # the weight's is applied as it is computed
        }
        if self.fused and "weight" in self.updates:
            self.algorithm += ", sgd in cache"
        return self.dx, {f"{self.name}.{kind}": gradient for kind, gradient in self.gradients.items()}

    def begin(self, count: int) -> None:
        if self.layer.bias is not None:
            self.bias[: self.target.features] = self.layer.bias.data

    def run(self, first: int, count: int) -> None:
        x, y = self.source, self.target
        weight = self.layer.weight.data.reshape(-1)
        linear_training_numba.forward(x.array, weight, self.bias, self.relu, y.array, self._shape(count, x, y))

    def _shape(self, count: int, x: Rows, y: Rows) -> linear_numba.Shape:
        return linear_numba.Shape(count, y.features, x.features, x.stride, y.stride)

    def run_back(self, first: int, count: int) -> None:
        x, dy, dx, weight = self.source, self.dy, self.dx, self.layer.weight.data
        if self.relu:
            given, output = (rows.array[: count * rows.stride] for rows in (dy, self.target))
            relu_numba.mask(given, output, given)
        if "bias" in self.updates:
            dy.view(0, count).sum(0, out=self.gradients["bias"])
        if self.fused:
            update = linear_training_numba.Update(*self.updates["weight"].now()) if "weight" in self.updates else None
            into = None if dx is None else dx.array
            shape = self._shape(count, x, dy)
            linear_training_numba.backward(dy.array, x.array, weight.reshape(-1), into, update, shape)
            return
        if dx is not None:
            np.matmul(dy.view(0, count), weight, out=dx.view(0, count))
        if "weight" in self.updates:
            np.matmul(dy.view(0, count).T, x.view(0, count), out=self.gradients["weight"])

    def finish(self, count: int) -> None:
        for kind, gradient in self.gradients.items():
            self.updates[kind].apply(gradient)

    @property
    def own_bytes(self) -> int:
        return sum(gradient.nbytes for gradient in self.gradients.values()) if self.goes_back else 0


class Activation(steps.Activation, Step):
    keeps_target = True

    def run(self, first: int, count: int) -> None:
        x, y, kind = self.source, self.target, activations.KINDS.index(self.algorithm)
        with threads.parallel():
            xi, yi = x.at(first), y.at(first)
            activations.activate[count * xi.H](kind, x.array, xi, y.array, yi, self.place.entering[0])

    def run_back(self, first: int, count: int) -> None:
        if self.dx is not None:
            differentiate(self.algorithm, self.dy, self.target, self.dx, first, count)


def differentiate(kind: str, dy: Any, y: Any, dx: Any, first: int, count: int) -> None:
    """dx, which may be dy, of the activation called `kind` that gave y."""
    width = y.stride if isinstance(y, Rows) else y.channels
    places = (buffer.at(first) for buffer in (dy, y, dx))
    given, output, target = places
    with threads.parallel():
        arguments = (dy.array, given, y.array, output, dx.array, target, width)
        activation_gradients.gradients[count * output.H](activations.KINDS.index(kind), *arguments)


class MaxPool(steps.MaxPool, Step):
    """`rectified`: ReLU stands right before it. A window whose maximum is 0 passes nothing on, so ReLU's own output is
    not needed: its gradient is masked by this step's, which is smaller."""

    rectified = False

    def run(self, first: int, count: int) -> None:
        g, x, y = self.geometry, self.source, self.target
        switches = self.switches[first * y.H * y.W * y.channels :]
        with threads.parallel():
            window = max_pool.window_of(g)
            arguments = (x.array, x.at(first), y.array, y.at(first), switches, 1)
            max_pool.pool[count * y.H](*arguments, y.channels, window)

    def begin(self, count: int) -> None:
        y = self.target
        if not hasattr(self, "switches"):
            self.switches = np.empty(self.options.batch * y.H * y.W * y.channels, np.uint8)

    def run_back(self, first: int, count: int) -> None:
        y, dy, dx = self.target, self.dy, self.dx
        if dx is None:
            return
        if self.rectified:
            differentiate("relu", dy, y, dy, first, count)
        yi, xi = dy.at(first), dx.at(first)
        given, into = dy.array[yi.at :], dx.array[xi.at :]
        switches = self.switches[first * y.H * y.W * y.channels :]
        with threads.parallel():
            window = max_pool.window_of(self.geometry)
            arguments = (given, switches, yi._replace(at=0), into, xi._replace(at=0))
            max_pool.unpool[count * xi.H](*arguments, y.channels, window)

    @property
    def own_bytes(self) -> int:
        return self.switches.nbytes if hasattr(self, "switches") else 0


class AvgPool(steps.AvgPool, Step):
    def forward(self, x: Images, weights: None, keep: bool = True) -> Images:
        self.window = avg_pool.window_of(self.geometry)
        self.divisors = avg_pool.flat_divisors(self.geometry, (1, *self.place.entering))
        return super().forward(x, weights, keep)

    def run(self, first: int, count: int) -> None:
        x, y = self.source, self.target
        with threads.parallel():
            arguments = (x.array, x.at(first), y.array, y.at(first), self.divisors)
            avg_pool.pool[count * y.H](*arguments, y.channels, self.window)

    def run_back(self, first: int, count: int) -> None:
        dy, dx = self.dy, self.dx
        if dx is None:
            return
        yi, xi = dy.at(first), dx.at(first)
        given, into = dy.array[yi.at :], dx.array[xi.at :]
        with threads.parallel():
            arguments = (given, yi._replace(at=0), self.divisors, into, xi._replace(at=0))
            avg_pool.unpool[count * xi.H](*arguments, dy.channels, self.window)


class Normalise(steps.Normalise, Step):
    keeps_source = True

    def run(self, first: int, count: int) -> None:
        x, y, C = self.source, self.target, self.place.entering[0]
        with threads.parallel():
            given = (x.array, x.at(first), y.array, y.at(first), count, C)
            lrn.normalise_groups(*given, self.geometry, self._filled())

    def run_back(self, first: int, count: int) -> None:
        x, dy, dx, g = self.source, self.dy, self.dx, self.geometry
        if dx is None:
            return
        C, pixels = self.place.entering[0], count * x.H * x.W
        flat = (buffer.array[buffer.at(first).at :] for buffer in (dy, x, dx))
        given, source, into = flat
        with threads.parallel():
            for start in range(0, C, C // g.groups):
                lane = lrn.Group(start, max(C // g.groups, self._filled()), x.channels, C // g.groups)
                lrn.normalise_backward[-(-pixels // lrn.RUN)](given, source, pixels, lane, lrn.norm_of(g), into)

    def _filled(self) -> int:
        """How many channels are written at least: of one group also those that fill vectors up."""
        return self.source.channels if self.geometry.groups == 1 else LANES


class NormaliseWithin(steps.Normalise, Step):
    """Windows within each map."""

    keeps_source = True

    def run(self, first: int, count: int) -> None:
        x, y = self.source, self.target
        within.normalise_images((x.array, x.at(first)), (y.array, y.at(first)), self._cut(count), self.geometry)

    def run_back(self, first: int, count: int) -> None:
        if self.dx is not None:
            dy, x, dx = ((each.array, each.at(first)) for each in (self.dy, self.source, self.dx))
            within.differentiate_images(dy, x, dx, self._cut(count), self.geometry)

    def _cut(self, count: int) -> within.Rows:
        return within.Rows(count, self.source.channels, self.source.H, self.source.C)


class Dropout(steps.Dropout, Step):
    """The mask is drawn for the whole batch, in the order of its elements (N,C,H,W)."""

    def begin(self, count: int) -> None:
        size = int(np.prod(self.place.entering))
        if not hasattr(self, "mask"):
            self.mask = np.empty(-(-self.options.batch * size // 4) * 4, np.bool_)
        blocks = -(-count * size // 4) * 4
        seed = (self.layer.seed & 0xFFFFFFFF) << 32 | self.layer.calls & 0xFFFFFFFF  # as the layer itself
        dropout_numba.draw_into(self.mask[:blocks], self.layer.p, seed)
        self.scale = np.float32(1 / (1 - self.layer.p) if self.layer.p < 1 else 0)

    def run(self, first: int, count: int) -> None:
        self._scale(self.source, self.target, first, count)

    def run_back(self, first: int, count: int) -> None:
        if self.dx is not None:
            self._scale(self.dy, self.dx, first, count)

    def _scale(self, x: Any, y: Any, first: int, count: int) -> None:
        of_one = int(np.prod(self.place.entering))
        mask = self.mask[first * of_one : (first + count) * of_one]
        if isinstance(x, Rows):
            with threads.parallel():
                xi, yi = x.at(first), y.at(first)
                dropout_numba.scale_rows[count](x.array, xi, mask, self.scale, y.array, yi, of_one)
        else:
            shape = (count, *self.place.entering)
            y.view(first, count)[...] = np.where(mask.reshape(shape), x.view(first, count) * self.scale, np.float32(0))

    @property
    def own_bytes(self) -> int:
        return self.mask.nbytes if hasattr(self, "mask") else 0


class Flatten(steps.Flatten, Step):
    def forward(self, x: Images, weights: None, keep: bool = True) -> Rows:
        self.source, self.target = x, Rows(self.name, self.place.leaving[0])
        return self.target

    def run(self, first: int, count: int) -> None:
        x, y = self.source, self.target
        with threads.parallel():
            flatten_nhwc_numba.to_rows[count * x.H](x.array, x.at(first), y.array, y.at(first), x.C)

    def run_back(self, first: int, count: int) -> None:
        dy, dx = self.dy, self.dx
        if dx is None:
            return
        with threads.parallel():
            arguments = (dy.array, dy.at(first), dx.array, dx.at(first))
            flatten_nhwc_numba.from_rows[count * dx.H](*arguments, dx.C, dx.channels)


class ByOp(Step):
    """A layer that has no kernel here, by its op, which allocates. What it keeps refers to its input's buffer."""

    keeps_source = True

    def forward(self, x: Any, weights: None, keep: bool = True) -> Any:
        self.kept: dict[int, Any] = {}
        self.source = x
        rows = len(self.place.leaving) == 1
        self.target = Rows(self.name, *self.place.leaving) if rows else Images(self.name, *self.place.leaving)
        self.algorithm = f"{self.algorithm or type(self.layer).__name__}, by its op"
        return self.target

    def run(self, first: int, count: int) -> None:
        x = self.source.view(first, count)
        self.target.view(first, count)[...], self.kept[first] = self.layer.op.forward(x, **self.layer.arguments())

    def run_back(self, first: int, count: int) -> None:
        kept = self.kept.pop(first)
        if self.dx is not None:
            self.dx.view(first, count)[...] = self.layer.op.backward(self.dy.view(first, count), kept)


class MaxPoolByOp(steps.MaxPool, ByOp): ...


class NormaliseByOp(steps.Normalise, ByOp): ...


class AverageByOp(steps.Average, ByOp): ...


def max_pooling(place: Place, options: steps.Options) -> Step:
    """Windows with gaps, and those of more places than a byte counts, are left to the op."""
    step = MaxPool(place, options)
    (KH, KW), dilation = step.geometry.kernel, step.geometry.dilation
    return MaxPoolByOp(place, options) if dilation != (1, 1) or KH * KW > 256 else step


def normalisation(place: Place, options: steps.Options) -> Step:
    """Groups that would not fill a vector are left to the op."""
    if place.layer.region == "within":  # type: ignore[attr-defined]
        return NormaliseWithin(place, options)
    step, C = Normalise(place, options), place.entering[0]
    g = step.geometry
    narrow = g.groups > 1 and C // g.groups < MACHINE.lanes
    return NormaliseByOp(place, options) if narrow else step


def other_steps() -> Classes:
    """All but the convolutions'."""
    return {
        layers.Identity: Load,
        layers.Linear: Dense,
        layers.ReLU: Activation,
        layers.Tanh: Activation,
        layers.Sigmoid: Activation,
        layers.MaxPool2d: max_pooling,
        layers.AvgPool2d: AvgPool,
        layers.LocalResponseNorm: normalisation,
        layers.AdaptiveAvgPool2d: AverageByOp,
        layers.Dropout: Dropout,
        layers.Flatten: Flatten,
    }
