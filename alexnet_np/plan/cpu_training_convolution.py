"""A convolution, and perhaps the ReLU after it, in a training plan on the CPU: by Winograd, or where that cannot be by
its op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from alexnet_np import ops, threads
from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels import conv2d_space_to_depth_numba as depth
from alexnet_np.kernels import conv2d_winograd_gradients_numba as adjoint
from alexnet_np.kernels import conv2d_winograd_numba as winograd
from alexnet_np.kernels import conv2d_winograd_training_numba as filters
from alexnet_np.kernels.conv2d_layer import Layer
from alexnet_np.kernels.conv2d_winograd_strays_numba import Exact
from alexnet_np.kernels.conv2d_winograd_tiling_numba import tiling
from alexnet_np.kernels.conv2d_winograd_transforms import cut
from alexnet_np.kernels.cpu.simd import LANES, MACHINE
from alexnet_np.kernels.gemm_numba import WIDTH
from alexnet_np.kernels.problems import of_convolution
from alexnet_np.plan import steps
from alexnet_np.plan.cpu_buffers import InputBuffer
from alexnet_np.plan.cpu_steps import dense
from alexnet_np.plan.cpu_training_buffers import Images, Spread, Update, updates_of
from alexnet_np.plan.cpu_training_steps import Gradients, Step, differentiate


class Convolution(steps.Convolution, Step):
    """What both ways share; `masks`: its ReLU's gradient is its own business, and not a pooling's after it."""

    keeps_source = True
    masks = False

    def forward(self, x: Images, weights: None, keep: bool = True) -> Images:
        self.updates: Mapping[str, Update] = {}
        facts = {**self.options._asdict(), "planned": True, "training": True, "machine": MACHINE}
        facts["folds"] = isinstance(x, InputBuffer) and x.folds
        problem = of_convolution(self._input(), self.layer.weight.data, self.geometry, **facts)
        choice = choices.choose(problem)
        self.source, self.target = x, Images(self.name, *self.place.leaving)
        self.way: Any = Winograd(self, choice) if choice.algorithm == "winograd" else ByOp(self)
        self.say(self.way.name)
        return self.target

    def backward(self, dy: Images, needs: bool, parameters: Mapping[str, Update]) -> tuple[Any, Gradients]:
        super().backward(dy, needs, parameters)
        self.updates = updates_of(self.name, parameters)
        self.gradients = {kind: np.empty(u.parameter.shape, np.float32) for kind, u in self.updates.items()}
        self.way.prepare_back()
        return self.dx, {f"{self.name}.{kind}": gradient for kind, gradient in self.gradients.items()}

    def begin(self, count: int) -> None:
        self.way.begin(count)

    def run(self, first: int, count: int) -> None:
        self.way.run(first, count)

    def run_back(self, first: int, count: int) -> None:
        if self.masks:
            differentiate("relu", self.dy, self.target, self.dy, first, count)
        self.way.run_back(first, count)

    def finish(self, count: int) -> None:
        self.way.write(self.gradients, count)
        for kind, gradient in self.gradients.items():
            self.updates[kind].apply(gradient)

    @property
    def own_bytes(self) -> int:
        return self.way.nbytes() + (sum(g.nbytes for g in self.gradients.values()) if self.goes_back else 0)


class Winograd:
    """Filters transformed once a batch for both directions; the gradient of the weight gathered from slice to slice."""

    def __init__(self, step: Convolution, choice: choices.Choice) -> None:
        self.step, self.m, self.r = step, choice.m, choice.r
        self.block = choice.sizes["block_tiles"]
        geometry, x, y = step.geometry, step.source, step.target
        (top, _, left, _), output, S = geometry.padding, geometry.output, geometry.stride[0]
        self.S, self.groups, m, r = S, geometry.groups, choice.m, choice.r
        if S > 1:
            x.fold(S, (output[0] + r - 1, output[1] + r - 1), (top, left))
            top = left = 0
        reach = [cut(out, m, r).reach(m, r) for out in output]  # of the last tile, from the first one's corner
        x.need(max(top, left), max(0, reach[0] - top - x.H, reach[1] - left - x.W))
        self.corner = (top, left)
        F, CG = step.layer.weight.shape[:2]
        self.narrow = self.groups > 1 and bool(CG % LANES or F // self.groups % LANES)
        if self.narrow:
            self.groups = 1
        self.C, self.F = x.channels // self.groups, y.channels // self.groups
        shape = step.layer.weight.shape
        plain = S == 1 and not self.narrow and (self.F * self.groups, self.C) == shape[:2]
        self.spread = None if plain else Spread(shape, self._lay_out)
        size = filters.filters_room(self.F, self.C, m + r - 1)
        self.u = np.empty((self.groups, size), np.float32)
        self.bias = np.zeros(self.F * self.groups + WIDTH, np.float32)
        self.turned: Array | None = None
        self.adjoints: list[adjoint.Adjoint] = []
        self.name = f"{'depth ' if S > 1 else ''}{choice}"

    def _lay_out(self, weight: Array) -> Array:
        wide = depth.filters_to_depth(weight, self.S) if self.S > 1 else weight
        wide = dense(wide, self.step.geometry.groups) if self.narrow else wide
        short = self.F * self.groups - len(wide), self.C - wide.shape[1]
        return np.pad(wide, ((0, short[0]), (0, short[1]), (0, 0), (0, 0)))

    def prepare_back(self) -> None:
        step, (m, r) = self.step, (self.m, self.r)
        if step.dx is not None:
            size = filters.filters_room(self.C, self.F, m + r - 1)
            self.turned = np.zeros((self.groups, size), np.float32)
        weight = "weight" in step.updates
        facts = {"batch": step.options.batch, "direction": "backward", "training": True, "machine": MACHINE}
        problem = of_convolution(step._input(), step.layer.weight.data, step.geometry, **facts)
        self.gradient_tiles = choices.choose(problem).sizes.get("gradient_tiles", self.block)
        turned: Any = [None] * self.groups if self.turned is None else self.turned
        self.adjoints = [adjoint.Adjoint(self.C, self.F, m, r, self.corner, u, weight) for u in turned]
        F = self.F * self.groups
        self.total = np.empty((F, self.C, r, r), np.float32) if weight and self.spread is not None else None
        self.sums = np.empty((step.options.batch, F), np.float32) if "bias" in step.updates else None

    def begin(self, count: int) -> None:
        weight, bias = self.step.layer.weight.data, self.step.layer.bias
        real = self.step.geometry.groups
        self.exact = Exact(weight, self.m, real, self.S)
        apart = weight.reshape(self.groups, -1, *weight.shape[1:])
        self.exacts = [Exact(own, self.m, real // self.groups, self.S) for own in apart]
        wide = weight if self.spread is None else self.spread.fill(weight)
        for g, of_group in enumerate(wide.reshape(self.groups, self.F, self.C, self.r, self.r)):
            filters.transform(of_group, self.m, self.u[g], None if self.turned is None else self.turned[g])
        if bias is not None:
            self.bias[: len(bias)] = bias.data
        for group in self.adjoints:
            group.begun = False

    def run(self, first: int, count: int) -> None:
        x, y = self.step.source, self.step.target
        layer = Layer(count, self.C, self.F, self.groups, self.step.relu)
        tiles = tiling(self.m, self.r, self.corner, y.image)
        given = (x.array, x.at(first), self.u.reshape(-1), self.bias)
        winograd.forward(*given, y.array, y.at(first), layer, tiles, self.block, self.exact)

    def run_back(self, first: int, count: int) -> None:
        x, dy, dx = self.step.source, self.step.dy, self.step.dx
        xi, yi = x.at(first), dy.at(first)
        if self.sums is not None:
            with threads.parallel():
                adjoint.sum_pixels[count](dy.array, yi, first, self.F * self.groups, self.sums)
        if dx is None and "weight" not in self.step.updates:
            return
        into, di = (x.array, xi) if dx is None else (dx.array, dx.at(first))  # not written where it is not wanted
        for g, group in enumerate(self.adjoints):
            source, given = xi.channels_from(g * self.C), yi.channels_from(g * self.F)
            target = di.channels_from(g * self.C)
            group.add(x.array, source, dy.array, given, into, target, count, self.gradient_tiles, self.exacts[g])

    def write(self, gradients: Gradients, count: int) -> None:
        if "weight" in gradients:
            total = gradients["weight"] if self.total is None else self.total
            for g, group in enumerate(self.adjoints):
                group.write(total[g * self.F : (g + 1) * self.F])
            if self.spread is not None:
                self.spread.read(total, gradients["weight"])
        if self.sums is not None:
            bias = gradients["bias"]
            self.sums[:count, : len(bias)].sum(0, out=bias)

    def nbytes(self) -> int:
        arrays = [self.u, self.turned, getattr(self, "sums", None), getattr(self, "total", None)]
        arrays += [group.du for group in self.adjoints]
        return sum(array.nbytes for array in arrays if array is not None)


class ByOp:
    """What Winograd cannot compute, by the op on slices of the batch; allocates."""

    name = "by its op"

    def __init__(self, step: Convolution) -> None:
        self.step = step
        self.kept: dict[int, Any] = {}

    def prepare_back(self) -> None:
        pass

    def begin(self, count: int) -> None:
        for gradient in getattr(self.step, "gradients", {}).values():
            gradient[...] = 0

    def run(self, first: int, count: int) -> None:
        step, layer = self.step, self.step.layer
        bias = None if layer.bias is None else layer.bias.data
        x, y = step.source.view(first, count), step.target.view(first, count)
        y[...], self.kept[first] = ops.conv2d.forward(x, layer.weight.data, bias, **layer.arguments())
        if step.relu:
            np.maximum(y, 0, out=y)

    def run_back(self, first: int, count: int) -> None:
        step = self.step
        needs = (step.dx is not None, "weight" in step.updates, "bias" in step.updates)
        found = ops.conv2d.backward(step.dy.view(first, count), self.kept.pop(first), needs)
        if step.dx is not None:
            step.dx.view(first, count)[...] = found[0]
        for kind, gradient in zip(("weight", "bias"), found[1:], strict=True):
            if gradient is not None:
                step.gradients[kind] += gradient

    def write(self, gradients: Gradients, count: int) -> None:
        pass

    def nbytes(self) -> int:
        return 0
