"""A Winograd convolution of arrays, forward and backward, one slice of the batch after another.

What lies between an array and the kernels of conv2d_winograd_numba.py and its gradients: which convolutions they can
compute, the input folded where the stride is not 1, U kept while the weights stay as they are, and slices of the batch
small enough for what is written to be read again from the cache.

Parallel inside each slice. Measured (EPYC Zen 4, both cores): a training step of AlexNet at batch 128, its ReLU and
pooling in the same slices (conv2d_relu_max_pool2d_numba.py), 1.45 s; with whole batches, one op after another, 1.84 s.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels import choices
from alexnet_np.kernels import conv2d_space_to_depth_numba as depth
from alexnet_np.kernels import conv2d_winograd_gradients_numba as adjoint
from alexnet_np.kernels import conv2d_winograd_numba as winograd
from alexnet_np.kernels.conv2d_layer import Layer
from alexnet_np.kernels.conv2d_winograd_strays_numba import Exact
from alexnet_np.kernels.conv2d_winograd_tiling_numba import tiling
from alexnet_np.kernels.cpu import memory
from alexnet_np.kernels.cpu.image import Image, channels_last, framed
from alexnet_np.kernels.gemm_numba import padded_bias
from alexnet_np.ops.conv2d import Geometry, Gradients, Needs


class Fast(NamedTuple):
    """A Winograd convolution: F(m,r) with stride 1, of x itself or (S > 1) of x with S x S pixels in the channels."""

    m: int
    r: int
    S: int
    C: int  # channels and filters of a group
    F: int
    padding: tuple[int, int]  # top, left; of the folded x: none
    tiles: int  # how many to have in work at a time


def fast_form(choice: choices.Choice, weight: Array, geometry: Geometry) -> Fast:
    """What Winograd is to compute, by a choice of it."""
    S, (top, _, left, _) = geometry.stride[0], geometry.padding
    C, F = weight.shape[1] * S * S, len(weight) // geometry.groups
    tiles = choice.sizes.get("gradient_tiles", choice.sizes["block_tiles"])
    return Fast(choice.m, choice.r, S, C, F, (top, left) if S == 1 else (0, 0), tiles)


def cuts(N: int, floats: int) -> Iterator[slice]:
    """The batch in slices that fit in the shared cache, an image being so many floats."""
    step = adjoint.slice_of(N, choices.sizes("stages")["stage_bytes"] // (4 * floats))
    for first in range(0, N, max(1, step)):
        yield slice(first, min(first + step, N))


def compute(
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: Geometry,
    fast: Fast,
    relu: bool,
    then: Callable[[Array, slice], None] | None,
) -> Array:
    """y (N,F,OH,OW); see conv2d_numba.compute."""
    N, F = len(x), len(weight)
    y = memory.empty((N, *geometry.output, F))
    shift, kept = padded_bias(bias, F), transformed(weight, fast, geometry.groups)
    source, yi = Source(x, fast, geometry), framed(F, *geometry.output)
    tiles = tiling(fast.m, fast.r, fast.padding, yi)
    for images in cuts(N, max(yi.image, source.image.image)):
        flat, xi = source.take(images)
        layer = Layer(images.stop - images.start, fast.C, fast.F, geometry.groups, relu)
        into = y[images].reshape(-1)
        winograd.forward(flat, xi, kept.u, shift, into, yi, layer, tiles, fast.tiles, kept.exact)
        if then is not None:
            then(y, images)
    return y.transpose(0, 3, 1, 2)


def folded(weight: Array, fast: Fast) -> Array:
    return depth.filters_to_depth(weight, fast.S) if fast.S > 1 else weight


class Kept(NamedTuple):
    """U, what it was made of, and how."""

    weight: weakref.ref[Array]
    values: Array
    fast: Fast
    u: Array
    exact: Exact


_kept: list[Kept] = []


def transformed(weight: Array, fast: Fast, groups: int) -> Kept:
    """U, from an earlier call if the weight still has its values of then.

    The values are compared: `weight[...] = x`, or a view taken long ago, changes them unseen by any counter of changes.
    For AlexNet's that takes 0.3 ms; transforming them takes more than ten times as long.
    """
    for kept in _kept:
        alive: Any = kept.weight()
        if alive is weight and kept.fast == fast and np.array_equal(kept.values, weight):
            return kept
    forget(weight)
    values = weight.copy()
    filters = folded(values, fast)
    u, exact = winograd.packed_filters(filters, fast.m, groups), Exact(values, fast.m, groups, fast.S)
    _kept.append(Kept(weakref.ref(weight, forget), values, fast, u, exact))
    return _kept[-1]


def forget(weight: Array) -> None:
    """Drop U of `weight`, and of every weight that is gone."""
    _kept[:] = [kept for kept in _kept if kept.weight() is not None and kept.weight() is not weight]


class Source:
    """The input of a Winograd convolution as its kernels take it, some images at a time."""

    def __init__(self, x: Array, fast: Fast, geometry: Geometry) -> None:
        self.x, self.fast, self.geometry = x, fast, geometry
        if fast.S == 1:
            self.flat, self.image = channels_last(x)
        else:
            self.flat = np.require(x, np.float32, ["C", "W"]).reshape(-1)
            (C, H, W), (top, _, left, _) = x.shape[1:], geometry.padding
            self.folding = depth.Folding(C, H, W, fast.S, top, left)
            self.image = framed(fast.C, geometry.output[0] + fast.r - 1, geometry.output[1] + fast.r - 1)

    def take(self, images: slice) -> tuple[Array, Image]:
        """Flat memory, and where in it the images lie: x itself, or x folded, in memory that the next call may use."""
        if self.fast.S == 1:
            return self.flat, self.image.skip(images.start)
        count = images.stop - images.start
        folded = memory.empty((count * self.image.image,))
        with threads.parallel():
            depth.space_to_depth[count * self.image.H](
                self.flat, images.start, self.folding, folded, self.image, self.fast.C
            )
        return folded, self.image


class Backward:
    """The gradients of one Winograd convolution, gathered from one slice of the batch after another."""

    def __init__(self, x: Array, weight: Array, geometry: Geometry, fast: Fast, needs: Needs) -> None:
        forget(weight)  # training: the weights are about to change, and memory is needed
        self.x, self.weight, self.geometry, self.fast, self.needs = x, weight, geometry, fast, needs
        N, C, H, W = x.shape
        G = geometry.groups
        self.source = Source(x, fast, geometry)
        self.sums = np.empty((N, len(weight)), np.float32)  # over an image's pixels
        u: list[Array | None] = [None] * G
        filters = folded(weight, fast)
        self.exact = [Exact(weight[g * fast.F : (g + 1) * fast.F], fast.m, 1, fast.S) for g in range(G)]
        if needs[0]:
            u = list(winograd.packed_filters(filters, fast.m, G, adjoint=True).reshape(G, -1))
            self.lanes = adjoint.whole_vectors(fast.C)  # channels of a group with which dx is computed
            inner = self.source.image
            self.image = framed(G * self.lanes, inner.H, inner.W)
            self.dx = memory.empty((N, C, H, W) if fast.S > 1 else (N, H, W, G * self.lanes))
        self.groups = [adjoint.Adjoint(fast.C, fast.F, fast.m, fast.r, fast.padding, u[g], needs[1]) for g in range(G)]

    def add(self, dy: Array, yi: Image, images: slice) -> None:
        """The share of `images`, whose dy is flat channels-last memory, as yi says."""
        N, fast = images.stop - images.start, self.fast
        if self.needs[2]:
            with threads.parallel():
                adjoint.sum_pixels[N](dy, yi, images.start, len(self.weight), self.sums)
        if not (self.needs[0] or self.needs[1]):
            return
        x, xi = self.source.take(images)
        dx, di = x, xi  # not written where it is not wanted
        if self.needs[0]:
            dx = memory.empty((N * self.image.image,)) if fast.S > 1 else self.dx[images].reshape(-1)
            di = self.image
        for g, group in enumerate(self.groups):
            source, given = xi.channels_from(g * fast.C), yi.channels_from(g * fast.F)
            into = di.channels_from(g * self.lanes if self.needs[0] else 0)
            group.add(x, source, dy, given, dx, into, N, fast.tiles, self.exact[g])
        if self.needs[0] and fast.S > 1:
            with threads.parallel():
                folding, into = self.source.folding, self.dx[images].reshape(-1)
                depth.depth_to_space[N * folding.C * folding.H](dx, di, folding, into)

    def gradients(self) -> Gradients:
        return (
            self._input_gradient() if self.needs[0] else None,
            self._weight_gradient() if self.needs[1] else None,
            self.sums.sum(0) if self.needs[2] else None,
        )

    def _input_gradient(self) -> Array:
        if self.fast.S > 1:
            return self.dx
        N, C, H, W = self.x.shape
        dx = self.dx
        if self.lanes > self.fast.C:
            dx = dx.reshape(N, H, W, -1, self.lanes)[..., : self.fast.C].reshape(N, H, W, C)
        return dx.transpose(0, 3, 1, 2)

    def _weight_gradient(self) -> Array:
        F, C, K, _ = self.weight.shape
        fast = self.fast
        total = memory.empty((F, fast.C, fast.r, fast.r))
        for g, group in enumerate(self.groups):
            group.write(total[g * fast.F : (g + 1) * fast.F])
        return depth.filters_from_depth(total, fast.S, K) if fast.S > 1 else total
