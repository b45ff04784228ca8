"""The steps of an inference plan: each reads one buffer, writes the next, and holds its weights packed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels import adaptive_avg_pool2d_nhwc_numba as avg_pool
from alexnet_np.kernels import choices, linear_numba
from alexnet_np.kernels import conv2d_direct_numba as direct
from alexnet_np.kernels import conv2d_space_to_depth_numba as depth
from alexnet_np.kernels import conv2d_winograd_numba as winograd
from alexnet_np.kernels import local_response_norm_nhwc_numba as lrn
from alexnet_np.kernels import max_pool2d_nhwc_numba as max_pool
from alexnet_np.kernels.cpu.image import Image, framed
from alexnet_np.kernels.cpu.simd import MACHINE
from alexnet_np.kernels.gemm_numba import WIDTH, padded_width
from alexnet_np.kernels.problems import DENSE, Problem
from alexnet_np.ops.conv2d import Geometry
from alexnet_np.ops.local_response_norm import Geometry as Norm

NO_SWITCHES = np.zeros(1, np.uint8)


@dataclass(eq=False)
class Buffer:
    """Channels-last images in frames of zeros. The frame is written once; only its inside is ever overwritten."""

    name: str
    C: int
    H: int
    W: int
    before: int = 0
    after: int = 0
    images: int = 0
    whole_chunk: bool = True  # holds the images of a whole chunk, not only of one pass
    array: Array = field(default_factory=lambda: np.empty(0, np.float32))

    def need_frame(self, before: int, after: int) -> None:
        self.before, self.after = max(self.before, before), max(self.after, after)

    @property
    def image(self) -> Image:
        return framed(self.C, self.H, self.W, self.before, self.after)

    def at(self, first: int) -> Image:
        """Where image `first` of the chunk lies, the first of a pass."""
        return self.image.skip(first) if self.whole_chunk else self.image

    @property
    def layout(self) -> str:
        frame = self.before + self.after
        return f"{self.H + frame}x{self.W + frame}x{self.C}"

    @property
    def image_bytes(self) -> int:
        return 4 * self.image.image

    def allocate(self, images: int, whole_chunk: bool = True) -> None:
        self.images, self.whole_chunk = images, whole_chunk
        self.array = np.zeros(images * self.image.image, np.float32)


def share(buffers: list[Buffer]) -> None:
    """Let every other of `buffers` use the same memory: in a pass, each is done with when the next but one is written.

    Those with frames keep their own, for the frames must stay zeros.
    """
    for i in (0, 1):
        plain = [buffer for buffer in buffers[i::2] if not buffer.before and not buffer.after]
        memory = np.empty(max((buffer.array.size for buffer in plain), default=0), np.float32)
        for buffer in plain:
            buffer.array = memory[: buffer.array.size]


@dataclass(eq=False)
class Rows:
    """A matrix, a row an image, with room for whole tiles."""

    name: str
    features: int
    images: int = 0
    array: Array = field(default_factory=lambda: np.empty(0, np.float32))

    @property
    def stride(self) -> int:
        return padded_width(self.features)

    @property
    def layout(self) -> str:
        return str(self.stride)

    def allocate(self, images: int) -> None:
        self.images = images
        self.array = np.zeros(images * self.stride, np.float32)


class Step:
    """One line of the plan. `run(first, count)` does images first..first+count of the chunk (Dense: of the batch)."""

    name = ""
    algorithm = ""
    target: Any
    weights: Array = np.empty(0, np.float32)
    macs = 0  # of one image, as the layer defines them, not as the algorithm saves them

    def refresh(self) -> None:
        """Read the layer's weights again."""

    def run(self, first: int, count: int) -> None:
        raise NotImplementedError


class Load(Step):
    """The caller's (N,C,H,W) to channels-last; S x S pixels become channels where the convolution's stride is S."""

    name = "input"

    def __init__(self, shape: tuple[int, ...], S: int, padding: tuple[int, int], target: Buffer) -> None:
        self.shape, self.S, self.padding, self.target = shape, S, padding, target
        self.algorithm = f"space to depth {S}" if S > 1 else "channels last"
        self.x = np.empty(0, np.float32)

    def run(self, first: int, count: int) -> None:
        d = self.target
        with threads.parallel():
            depth.space_to_depth(
                self.x, first, count, *self.shape, self.S, *self.padding, d.array, d.at(first), d.C
            )  # fmt: skip


class Convolution(Step):
    def __init__(self, name: str, layer: Any, relu: bool, geometry: Geometry, choice: choices.Choice) -> None:
        self.name, self.layer, self.relu = name, layer, relu
        self.geometry, self.choice = geometry, choice
        self.fold = choice.algorithm == "winograd" and geometry.stride[0] > 1
        self.algorithm = f"{'depth ' if self.fold else ''}{choice}{' + bias + relu' if relu else ' + bias'}"
        self.macs = math.prod(layer.weight.shape) * math.prod(geometry.output)

    def connect(self, source: Buffer, target: Buffer) -> None:
        self.source, self.target = source, target
        g, (top, bottom, left, right) = self.geometry, self.geometry.padding
        if self.fold:
            top = bottom = left = right = 0
        if self.choice.algorithm == "winograd":
            m, r = self.choice.m, self.choice.r
            reach = [-(-out // m) * m + r - 1 for out in g.output]  # of the last tile, from the first one's corner
            after = (reach[0] - top - source.H, reach[1] - left - source.W)
        else:
            after = (bottom, right)
        source.need_frame(max(top, left), max(0, *after))
        self.corner = (top, left)
        self.refresh()

    def refresh(self) -> None:
        """A group that would not fill a vector is written out as a dense filter; filters are filled up to a vector."""
        weight, bias = self.layer.weight.data, self.layer.bias
        self.groups = self.geometry.groups
        if self.fold:
            weight = depth.filters_to_depth(weight, self.geometry.stride[0])
        if self.choice.form == DENSE:
            weight, self.groups = dense(weight, self.groups), 1
        short = (self.source.C // self.groups - weight.shape[1], self.target.C - len(weight))
        if any(short):
            weight = np.pad(weight, ((0, short[1]), (0, short[0]), (0, 0), (0, 0)))
        self.shape = (weight.shape[1], len(weight) // self.groups)
        if self.choice.algorithm == "winograd":
            self.weights = winograd.packed_filters(weight, self.choice.m, self.groups)
        else:
            self.weights = direct.packed_filters(weight, self.groups)
        self.bias = np.zeros(len(weight) + WIDTH, np.float32)
        if bias is not None:
            self.bias[: len(bias.data)] = bias.data

    def run(self, first: int, count: int) -> None:
        source, target, g = self.source, self.target, self.geometry
        common = (
            source.array, source.at(first), self.weights, self.bias, int(self.relu), target.array, target.at(first),
            count, *self.shape,
        )  # fmt: skip
        if self.choice.algorithm == "winograd":
            block = self.choice.sizes["block_tiles"]
            winograd.forward(*common, self.choice.m, self.choice.r, self.corner, block, self.groups)
        else:
            direct.forward(*common, g.kernel, g.stride, g.dilation, self.corner, self.groups)


def dense(weight: Array, groups: int) -> Array:
    """(F,C/groups,KH,KW) -> (F,C,KH,KW) with zeros between the groups."""
    F, CG, KH, KW = weight.shape
    whole = np.zeros((F, groups, CG, KH, KW), weight.dtype)
    for g in range(groups):
        part = slice(g * F // groups, (g + 1) * F // groups)
        whole[part, g] = weight[part]
    return whole.reshape(F, groups * CG, KH, KW)


class MaxPool(Step):
    def __init__(self, name: str, geometry: Any, source: Buffer, target: Buffer) -> None:
        self.name, self.geometry, self.source, self.target = name, geometry, source, target
        (KH, KW), (SH, SW) = geometry.kernel, geometry.stride
        self.algorithm = f"max {KH}x{KW}/{SH}" + (f"x{SW}" if SH != SW else "")

    def run(self, first: int, count: int) -> None:
        g, x, y = self.geometry, self.source, self.target
        with threads.parallel():
            max_pool.pool(
                x.array, x.at(first), y.array, y.at(first), NO_SWITCHES, 0, count, y.C, *g.kernel, *g.stride, *g.padding
            )


class Normalise(Step):
    algorithm = "window over channels"

    def __init__(self, name: str, norm: Norm, source: Buffer, target: Buffer) -> None:
        self.name, self.norm, self.source, self.target = name, norm, source, target

    def run(self, first: int, count: int) -> None:
        x, y = self.source, self.target
        with threads.parallel():
            lrn.normalise(x.array, x.at(first), y.array, y.at(first), count, y.C, *self.norm)


class Flatten(Step):
    """Adaptive average pooling and flattening."""

    def __init__(self, name: str, C: int, output: tuple[int, int], source: Buffer, target: Rows) -> None:
        self.name, self.C, self.output, self.source, self.target = name, C, output, source, target
        self.algorithm = "flatten" if output == (source.H, source.W) else f"average to {output[0]}x{output[1]}, flatten"
        self.chunk = 0  # which image of the batch is the chunk's first

    def run(self, first: int, count: int) -> None:
        x, y = self.source, self.target
        rows = y.array[(self.chunk + first) * y.stride :]
        with threads.parallel():
            avg_pool.pool_to_rows(x.array, x.at(first), count, self.C, *self.output, rows, y.stride)


class Dense(Step):
    """Its weights are there after the first `refresh`."""

    def __init__(self, name: str, layer: Any, relu: bool, source: Rows, target: Rows) -> None:
        self.name, self.layer, self.relu, self.source, self.target = name, layer, relu, source, target
        self.algorithm = f"packed gemm + bias{' + relu' if relu else ''}"
        self.macs = layer.weight.data.size
        N, K = layer.weight.shape
        self.weights = np.empty(-(-N // WIDTH) * K * WIDTH, np.float32)
        self.bias = np.zeros(-(-N // WIDTH) * WIDTH, np.float32)

    def refresh(self) -> None:
        weight, bias = self.layer.weight.data, self.layer.bias
        flat = np.require(weight, np.float32, ["C", "W"]).reshape(-1)  # kernels are compiled for writeable arrays
        with threads.parallel():
            linear_numba.pack_weight(flat, *weight.shape, self.weights)
        if bias is not None:
            self.bias[: len(bias.data)] = bias.data

    def run(self, first: int, count: int) -> None:
        N, K = self.layer.weight.shape
        x, y = self.source, self.target
        with threads.parallel() as workers:
            problem = Problem("linear", batch=count, C=K, F=N, planned=True, machine=MACHINE)
            block = min(K, choices.choose(problem).sizes["block_k"])
            linear_numba.forward(
                x.array, x.stride, self.weights, self.bias, int(self.relu), y.array, y.stride,
                count, N, K, block, workers,
            )  # fmt: skip
