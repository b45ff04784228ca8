"""The steps of a plan on the CPU: each reads one buffer, writes the next, and holds its weights packed.

`forward` says what a step needs of the buffer before it and names the one after it; once all have their memory,
`run(first, count)` computes images first..first+count of the chunk, or of the batch where they are rows by then.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alexnet_np import layers, threads
from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError
from alexnet_np.kernels import adaptive_avg_pool2d_nhwc_numba as average_pool
from alexnet_np.kernels import avg_pool2d_nhwc_numba as avg_pool
from alexnet_np.kernels import choices, flatten_nhwc_numba, linear_int16_numba, linear_numba
from alexnet_np.kernels import conv2d_direct_numba as direct
from alexnet_np.kernels import conv2d_space_to_depth_numba as depth
from alexnet_np.kernels import conv2d_winograd_numba as winograd
from alexnet_np.kernels import local_response_norm_nhwc_numba as lrn
from alexnet_np.kernels import local_response_norm_within_numba as within
from alexnet_np.kernels import max_pool2d_nhwc_numba as max_pool
from alexnet_np.kernels import preprocess_nhwc_numba as preprocess
from alexnet_np.kernels import relu_tanh_sigmoid_nhwc_numba as activations
from alexnet_np.kernels.array_version import array_version
from alexnet_np.kernels.conv2d_layer import Layer
from alexnet_np.kernels.conv2d_winograd_strays_numba import Exact
from alexnet_np.kernels.conv2d_winograd_tiling_numba import tiling
from alexnet_np.kernels.conv2d_winograd_transforms import cut
from alexnet_np.kernels.cpu.image import framed
from alexnet_np.kernels.cpu.simd import MACHINE
from alexnet_np.kernels.gemm_numba import WIDTH
from alexnet_np.kernels.problems import DENSE, of_convolution
from alexnet_np.plan import steps
from alexnet_np.plan.cpu_buffers import Buffer, InputBuffer, Rows
from alexnet_np.plan.cpu_weights import PackedWeights
from alexnet_np.plan.steps import Classes

PANELS = 8  # of a dense weight that are packed in place at a time
NO_SWITCHES = np.zeros(1, np.uint8)


class Step(steps.Step):
    source: Any  # what it reads: a Buffer, or Rows
    target: Any
    weights: Array = np.empty(0, np.float32)  # packed
    scales: Array = np.empty(0, np.float32)  # of weights in 16 bits
    by_kernels = True  # whether `run` launches kernels, and does nothing else

    @property
    def packed_bytes(self) -> int:
        return self.weights.nbytes + self.scales.nbytes

    def between(self, x: Any) -> Any:
        """Read x, whole vectors at a time, and write a buffer of this step's own."""
        if isinstance(x, Rows):
            self.source, self.target = x, Rows(self.name, x.features)
        else:
            x.need()
            self.source, self.target = x, Buffer(self.name, *self.place.leaving)
        return self.target

    def forward(self, x: Any, weights: PackedWeights, keep: bool = False) -> Any:
        return self.between(x)

    def run(self, first: int, count: int) -> None:
        raise NotImplementedError


class Load(steps.Input, Step):
    """The caller's images, channels-last; S x S pixels become channels where the convolution's stride is S."""

    table: Array  # (C,256), flat: what a byte becomes in each channel
    order: Array  # (C,): which of a pixel's bytes each channel is

    def forward(self, x: InputBuffer, weights: PackedWeights, keep: bool = False) -> InputBuffer:
        x.folds = not self.place.wanted
        self.source = self.target = x
        self.x = np.empty(0, np.float32)  # a chunk of images, flat
        self.images = 0  # in it
        return x

    def run(self, first: int, count: int) -> None:
        x, y, (C, H, W) = self.x, self.target, self.place.entering
        folding = depth.Folding(C, H, W, y.S, *y.corner)
        with threads.parallel():
            if x.dtype == np.uint8:
                given = framed(C, H, W).skip(first)
                arguments = (x, given, self.table, self.order, y.array, y.at(first), folding)
                preprocess.bytes_to_depth[count * y.H](*arguments)
            else:
                depth.space_to_depth[count * y.H](x, first, folding, y.array, y.at(first), y.channels)

    def say(self) -> None:
        S = self.target.S
        self.algorithm = f"space to depth {S}" if S > 1 else "channels last"


class Convolution(steps.Convolution, Step):
    exact: Any = None  # Exact: what Winograd's stray tiles are computed with

    def forward(self, x: Buffer, weights: PackedWeights, keep: bool = False) -> Buffer:
        self.choice = self._choose(x)
        (top, bottom, left, right), output = self.geometry.padding, self.geometry.output
        m, r, winograd_ = self.choice.m, self.choice.r, self.choice.algorithm == "winograd"
        if self.fold and isinstance(x, InputBuffer):
            x.fold(self.geometry.stride[0], (output[0] + r - 1, output[1] + r - 1), (top, left))
            top = bottom = left = right = 0
        after = (bottom, right)
        if winograd_:
            reach = [cut(out, m, r).reach(m, r) for out in output]  # of the last tile, from the first one's corner
            after = (reach[0] - top - x.H, reach[1] - left - x.W)
        x.need(max(top, left), max(0, *after), whole_vectors=winograd_)
        self.corner = (top, left)
        self.source, self.target = x, Buffer(self.name, *self.place.leaving)
        self.target.own = not winograd_  # what fills a vector up is not written
        self.say(f"{'depth ' if self.fold else ''}{self.choice}")
        return self.target

    def _choose(self, x: Buffer) -> choices.Choice:
        """Who computes it. A stride is only folded away where the images come in, by who loads them."""
        folds = isinstance(x, InputBuffer) and x.folds
        facts = {**self.options._asdict(), "folds": folds, "planned": True, "machine": MACHINE}
        choice = choices.choose(of_convolution(self._input(), self.layer.weight.data, self.geometry, **facts))
        self.fold = choice.algorithm == "winograd" and self.geometry.stride != (1, 1)
        return choice

    def pack(self, weights: PackedWeights) -> None:
        """Winograd's as whole vectors; the others as they are: zero times infinity is none."""
        weight, bias = weights.filters[self.name]
        self.groups = self.geometry.groups
        if self.choice.algorithm == "winograd":
            weight = self._pack_winograd(weight)
        else:
            self.weights = direct.packed_filters(weight, self.groups)
        self.shape = (weight.shape[1], len(weight) // self.groups)
        self.bias = np.zeros(len(weight) + WIDTH, np.float32)
        if bias is not None:
            self.bias[: len(bias)] = bias

    def _pack_winograd(self, weight: Array) -> Array:
        """A group that would not fill a vector is written out as a dense filter; filters are filled up to a vector."""
        self.exact = Exact(weight, self.choice.m, self.groups, self.geometry.stride[0])
        weight = self.exact.weight
        if self.choice.form == DENSE:
            weight, self.groups = dense(weight, self.groups), 1
        short = (self.source.channels // self.groups - weight.shape[1], self.target.channels - len(weight))
        if any(short):
            weight = np.pad(weight, ((0, short[1]), (0, short[0]), (0, 0), (0, 0)))
        self.weights = winograd.packed_filters(weight, self.choice.m, self.groups)
        return weight

    def take(self, other: Convolution) -> None:
        """The weights as `other` has packed them."""
        self.groups, self.shape, self.weights, self.bias = other.groups, other.shape, other.weights, other.bias
        self.exact = other.exact

    def run(self, first: int, count: int) -> None:
        (C, F), x, y = self.shape, self.source, self.target
        arguments = (x.array, x.at(first), self.weights, self.bias, y.array, y.at(first))
        layer = Layer(count, C, F, self.groups, self.relu)
        if self.choice.algorithm == "winograd":
            tiles = tiling(self.choice.m, self.choice.r, self.corner, y.image)
            winograd.forward(*arguments, layer, tiles, self.choice.sizes["block_tiles"], self.exact)
        else:
            direct.forward(*arguments, layer, self.geometry)


def dense(weight: Array, groups: int) -> Array:
    """(F,C/groups,KH,KW) -> (F,C,KH,KW) with zeros between the groups."""
    F, CG, KH, KW = weight.shape
    whole = np.zeros((F, groups, CG, KH, KW), weight.dtype)
    for g in range(groups):
        part = slice(g * F // groups, (g + 1) * F // groups)
        whole[part, g] = weight[part]
    return whole.reshape(F, groups * CG, KH, KW)


def pack_in_place(flat: Array, N: int, K: int) -> None:
    """A weight (N,K) as panels in its own memory, for whole panels: each lies where its rows lay."""
    rows = PANELS * WIDTH
    room = np.empty(rows * K, np.float32)
    for first in range(0, N, rows):
        part = flat[first * K : (first + rows) * K]
        linear_numba.pack_weight[len(part) // K // WIDTH](part, len(part) // K, K, room)
        part[:] = room[: len(part)]


class Dense(steps.Dense, Step):
    """Its weights are there after the first `pack`."""

    def forward(self, x: Rows, weights: PackedWeights, keep: bool = False) -> Rows:
        self.weights, self.bias, self.scales = weights.panels(self.name, self.layer.weight.shape)
        self.source, self.target = x, Rows(self.name, len(self.layer.weight.data))
        self.say("packed gemm, int16" if self.scales.size else "packed gemm")
        return self.target

    def pack(self, weights: PackedWeights) -> None:
        weight, bias = weights.of_now(self.name)
        flat = np.require(weight, np.float32, ["C", "W"]).reshape(-1)  # kernels are compiled for writeable arrays
        with threads.parallel():
            if self.scales.size:
                linear_int16_numba.pack[-(-len(weight) // WIDTH)](flat, *weight.shape, self.weights, self.scales)
            elif self.weights.base is not None and np.may_share_memory(flat, self.weights):
                pack_in_place(flat, *weight.shape)
            else:
                linear_numba.pack_weight[-(-len(weight) // WIDTH)](flat, *weight.shape, self.weights)
        if not np.isfinite(self.scales).all():
            raise ArgumentError(f"compile: {self.name}.weight has values that are not finite, which int16 cannot hold")
        if bias is not None:
            self.bias[: len(bias)] = bias

    def take(self, other: Dense) -> None:
        """The weights as `other` has packed them: its panels, which `forward` found."""
        self.weights, self.bias, self.scales = other.weights, other.bias, other.scales

    def run(self, first: int, count: int) -> None:
        N, K = self.target.features, self.source.features
        x, y = self.source, self.target
        shape = linear_numba.Shape(count, N, K, x.stride, y.stride)
        if self.scales.size:
            linear_int16_numba.forward(x.array, self.weights, self.scales, self.bias, self.relu, y.array, shape)
        else:
            linear_numba.forward(x.array, self.weights, self.bias, self.relu, y.array, shape)


class Activation(steps.Activation, Step):
    def run(self, first: int, count: int) -> None:
        x, y, kind = self.source, self.target, activations.KINDS.index(self.algorithm)
        with threads.parallel():
            xi, yi = x.at(first), y.at(first)
            activations.activate[count * xi.H](kind, x.array, xi, y.array, yi, self.place.entering[0])


class MaxPool(steps.MaxPool, Step):
    """Windows with gaps are left to the array operations, which allocate."""

    def forward(self, x: Buffer, weights: PackedWeights, keep: bool = False) -> Buffer:
        self.dilated = self.geometry.dilation != (1, 1)
        y = self.between(x)
        if self.dilated:
            self.by_kernels = False
            self.algorithm += ", array operations"
            y.own = True  # what fills a vector up is not written
        return y

    def run(self, first: int, count: int) -> None:
        g, x, y = self.geometry, self.source, self.target
        if self.dilated:
            y.view(first, count)[:] = array_version("max_pool2d").compute(x.view(first, count), g)[0]
            return
        with threads.parallel():
            window = max_pool.window_of(g)
            arguments = (x.array, x.at(first), y.array, y.at(first), NO_SWITCHES, 0)
            max_pool.pool[count * y.H](*arguments, y.channels, window)


class AvgPool(steps.AvgPool, Step):
    def forward(self, x: Buffer, weights: PackedWeights, keep: bool = False) -> Buffer:
        self.window = avg_pool.window_of(self.geometry)
        self.divisors = avg_pool.flat_divisors(self.geometry, (1, *self.place.entering))
        return self.between(x)

    def run(self, first: int, count: int) -> None:
        x, y = self.source, self.target
        with threads.parallel():
            arguments = (x.array, x.at(first), y.array, y.at(first), self.divisors)
            avg_pool.pool[count * y.H](*arguments, y.channels, self.window)


class Normalise(steps.Normalise, Step):
    """Groups that would not fill a vector are left to the array operations."""

    def forward(self, x: Buffer, weights: PackedWeights, keep: bool = False) -> Buffer:
        C, groups = self.place.entering[0], self.geometry.groups
        self.within = self.geometry.region == "within"
        self.arrays = not self.within and groups > 1 and C // groups < MACHINE.lanes
        y = self.between(x)
        if self.arrays:
            self.by_kernels = False
            self.algorithm += ", array operations"
        y.own = y.own or self.arrays or groups > 1  # what fills a vector up is not written
        return y

    def run(self, first: int, count: int) -> None:
        x, y, g = self.source, self.target, self.geometry
        if self.arrays:
            y.view(first, count)[:] = array_version("local_response_norm").compute(x.view(first, count), g)
            return
        C = self.place.entering[0]
        if self.within:
            rows = within.Rows(count, y.channels, y.H, C)
            within.normalise_images((x.array, x.at(first)), (y.array, y.at(first)), rows, g)
            return
        with threads.parallel():
            lrn.normalise_groups(x.array, x.at(first), y.array, y.at(first), count, C, g)


class Average(steps.Average, Step):
    def run(self, first: int, count: int) -> None:
        x, y = self.source, self.target
        with threads.parallel():
            average_pool.pool[count * y.H](x.array, x.at(first), y.array, y.at(first), y.channels)


class Flatten(steps.Flatten, Step):
    chunk = 0  # which image of the batch is the chunk's first

    def forward(self, x: Buffer, weights: PackedWeights, keep: bool = False) -> Rows:
        self.source, self.target = x, Rows(self.name, self.place.leaving[0])
        return self.target

    def run(self, first: int, count: int) -> None:
        x, y = self.source, self.target
        with threads.parallel():
            into = y.at(self.chunk + first)
            flatten_nhwc_numba.to_rows[count * x.H](x.array, x.at(first), y.array, into, x.C)


STEPS: Classes = {
    layers.Identity: Load,
    layers.Conv2d: Convolution,
    layers.Linear: Dense,
    layers.ReLU: Activation,
    layers.Tanh: Activation,
    layers.Sigmoid: Activation,
    layers.MaxPool2d: MaxPool,
    layers.AvgPool2d: AvgPool,
    layers.LocalResponseNorm: Normalise,
    layers.AdaptiveAvgPool2d: Average,
    layers.Flatten: Flatten,
}
