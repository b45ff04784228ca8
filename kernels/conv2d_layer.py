"""What the channels-last kernels of a convolution are told of it, in two groups of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from alexnet_np.kernels.cpu.image import Image


class Layer(NamedTuple):
    """Of one call; C and F are the channels and filters of a group."""

    images: int
    C: int
    F: int
    groups: int = 1
    relu: bool = False


class Group(NamedTuple):
    """Of one group of it, which is what a kernel computes at a time."""

    images: int
    C: int
    F: int
    filters_at: int  # where its packed filters begin, in floats
    bias_at: int
    relu: int


def each_group(layer: Layer, xi: Image, yi: Image, filters: int) -> Iterator[tuple[Group, Image, Image]]:
    """Every group with its input and its output, out of `filters` packed floats."""
    for g in range(layer.groups):
        at = g * (filters // layer.groups), g * layer.F
        group = Group(layer.images, layer.C, layer.F, *at, int(layer.relu))
        yield group, xi.channels_from(g * layer.C), yi.channels_from(g * layer.F)
