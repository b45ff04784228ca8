"""The methods, each with its settings: which pixels the value of a unit comes from. x and what they return: (N,C,H,W).

x      the network's input, s(x) the unit's value: a class's logit before the softmax, or any other number
ds/dx  its gradient with respect to that input
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from alexnet_np import arguments, random
from alexnet_np.device import Array, array_module, beside
from alexnet_np.errors import ArgumentError
from alexnet_np.layers import ReLU
from alexnet_np.study.attribution.network import BATCH, DeconvReLU, GuidedReLU, Unit, gradients, scores

Tick = Callable[[int], None]  # how many more passes are done


@dataclass(frozen=True)
class Method:
    """Settings are checked when it is made."""

    relu: ClassVar[type[ReLU] | None] = None  # what takes the place of every ReLU
    signed: ClassVar[bool] = False  # whether what speaks against the unit is to be shown beside what speaks for it

    def passes(self, shape: tuple[int, ...]) -> int:
        """Through the network, for an image of `shape` (C,H,W)."""
        return 1

    def values(self, unit: Unit, x: Array, tick: Tick) -> Array:
        """What of the unit's value each number of x accounts for."""
        made = [gradients(unit.net, x[part], unit.indices[part]) for part in batches(len(x), tick)]
        return array_module(x).concatenate(made)


@dataclass(frozen=True)
class Saliency(Method):
    """|ds/dx|.  Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks" (2014), sec. 3."""

    def values(self, unit: Unit, x: Array, tick: Tick) -> Array:
        return abs(super().values(unit, x, tick))


@dataclass(frozen=True)
class GuidedBackprop(Method):
    """ds/dx where every ReLU, those between dense layers too, passes on max(dx, 0); may be negative at the input.

    Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for simplicity" (2015), sec. 3.4.
    """

    relu = GuidedReLU


@dataclass(frozen=True)
class Deconvnet(Method):
    """ds/dx where every ReLU passes on max(dy, 0), whether it was off or not.

    Max pooling gives to each window's winner, adding up where several windows have the same one; convolutions and
    normalisation go back as in the gradient.
    Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2014), sec. 2.1.
    """

    relu = DeconvReLU


@dataclass(frozen=True)
class SmoothGrad(Method):
    """The mean of ds/dx over noisy copies of the image: x + N(0, (noise * (max x - min x))^2).

    Smilkov, Thorat, Kim, Viegas, Wattenberg, "SmoothGrad: removing noise by adding noise" (2017), sec. 3.
    """

    samples: int = 50
    noise: float = 0.15  # of the image's range
    seed: int = 0

    def __post_init__(self) -> None:
        arguments.integer("smooth_grad", "samples", self.samples, 1)
        arguments.number("smooth_grad", "noise", self.noise, 0)
        arguments.seed("smooth_grad", self.seed)

    def passes(self, shape: tuple[int, ...]) -> int:
        return self.samples

    def values(self, unit: Unit, x: Array, tick: Tick) -> Array:
        made = array_module(x).empty_like(x)
        for n, one in enumerate(x):
            numbers = random.generator(self.seed, n)
            deviation = self.noise * float(one.max() - one.min())
            total = array_module(x).zeros_like(one)
            for part in batches(self.samples, tick):
                count = part.stop - part.start
                drawn = deviation * numbers.standard_normal((count, *one.shape))
                noisy = one + beside(drawn.astype(x.dtype), x)
                total += gradients(unit.net, noisy, [unit.indices[n]] * count).sum(0)
            made[n] = total / self.samples
        return made


@dataclass(frozen=True)
class IntegratedGradients(Method):
    """(x - baseline) times the integral of ds/dx on the straight way there; summed, s(x) - s(baseline).

    The integral by Gauss and Legendre's rule with `steps` points. `baseline`: one number for all of the input; 0 is the
    mean colour of the training set in most presets.
    Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks" (2017), sec. 3.
    """

    steps: int = 50
    baseline: float = 0.0

    def __post_init__(self) -> None:
        arguments.integer("integrated_gradients", "steps", self.steps, 1)
        arguments.number("integrated_gradients", "baseline", self.baseline)

    def passes(self, shape: tuple[int, ...]) -> int:
        return self.steps

    def values(self, unit: Unit, x: Array, tick: Tick) -> Array:
        points, weights = np.polynomial.legendre.leggauss(self.steps)  # on [-1, 1]
        made = array_module(x).empty_like(x)
        for n, one in enumerate(x):
            away = one - x.dtype.type(self.baseline)
            total = array_module(x).zeros_like(one)
            for part in batches(self.steps, tick):
                at, weight = (
                    beside(numbers[part].astype(x.dtype).reshape(-1, 1, 1, 1), x)
                    for numbers in ((1 + points) / 2, weights / 2)
                )
                on_the_way = x.dtype.type(self.baseline) + at * away
                total += (weight * gradients(unit.net, on_the_way, [unit.indices[n]] * len(at))).sum(0)
            made[n] = away * total
        return made


@dataclass(frozen=True)
class Occlusion(Method):
    """s(x) - s(x with a square window set to `baseline`), for every place of the window, `stride` pixels apart.

    ceil((H - window) / stride) + 1 places from top to bottom, the last clipped at the edge; a pixel has the mean over
    the places that cover it. The same in all channels.
    Zeiler and Fergus (2014), sec. 4.2.
    """

    signed = True

    window: int = 15
    stride: int = 8
    baseline: float = 0.0

    def __post_init__(self) -> None:
        arguments.integer("occlusion", "window", self.window, 1)
        arguments.integer("occlusion", "stride", self.stride, 1)
        arguments.number("occlusion", "baseline", self.baseline)
        if self.stride > self.window:
            raise ArgumentError(
                f"occlusion: a stride of {self.stride} leaves out pixels between windows of {self.window}; at most that"
            )

    def passes(self, shape: tuple[int, ...]) -> int:
        return 1 + len(self.places(shape))

    def places(self, shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
        """Rows and columns of every window. Raises ArgumentError for one larger than the image."""
        H, W = shape[-2:]
        if self.window > min(H, W):
            raise ArgumentError(f"occlusion: a window of {self.window} is larger than the {H}x{W} image")
        rows, columns = (
            [
                slice(i * self.stride, i * self.stride + self.window)
                for i in range(-(-(side - self.window) // self.stride) + 1)
            ]
            for side in (H, W)
        )
        return [(row, column) for row in rows for column in columns]

    def values(self, unit: Unit, x: Array, tick: Tick) -> Array:
        windows = self.places(x.shape)
        total, covered = array_module(x).zeros_like(x), np.zeros(x.shape[-2:], np.float64)
        for row, column in windows:
            covered[row, column] += 1
        for n, one in enumerate(x):
            (whole,) = scores(unit.net, one[None], [unit.indices[n]])
            tick(1)
            for part in batches(len(windows), tick):
                occluded = array_module(x).repeat(one[None], part.stop - part.start, axis=0)
                for each, (row, column) in zip(occluded, windows[part], strict=True):
                    each[:, row, column] = self.baseline
                lost = whole - scores(unit.net, occluded, [unit.indices[n]] * len(occluded))
                for amount, (row, column) in zip(lost, windows[part], strict=True):
                    total[n, :, row, column] += amount
        return total / beside(covered.astype(x.dtype), x)


def batches(count: int, tick: Tick) -> Iterator[slice]:
    """Slices of 0..count, BATCH at a time; `tick` is told after each."""
    for start in range(0, count, BATCH):
        stop = min(start + BATCH, count)
        yield slice(start, stop)
        tick(stop - start)
