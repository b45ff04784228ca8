"""What crosses between processes of which each has some units, or maps, of the layers: the units themselves, gathered;
and backward their gradients, of which every process has made a share, summed.

Units lie on the last axis: of rows (B,K) they do, of images (B,H,W,C) is how the kernels keep them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import add

from alexnet_np.device import Array, array_module
from alexnet_np.training.parallel.group import Group
from alexnet_np.training.parallel.trees import cuts, fold


def gather_units(group: Group, part: Array, units: int) -> Array:
    """(..., units) of everybody's (..., some of them)."""
    xp, rows, cut = array_module(part), part.shape[:-1], cuts(units, group.size)
    counts = [math.prod(rows) * (end - begin) for begin, end in pairwise(cut)]
    flat = xp.empty(sum(counts), part.dtype)
    group.gather_uneven(xp.ascontiguousarray(part).reshape(-1), flat, counts)
    parts = xp.split(flat, list(accumulate(counts))[:-1])
    shapes = [(*rows, end - begin) for begin, end in pairwise(cut)]
    return xp.concatenate([each.reshape(shape) for each, shape in zip(parts, shapes, strict=True)], axis=-1)


def sum_units(group: Group, shares: Array) -> Array:
    """Everybody has a share (..., units) of a sum; returns the sum for this process's units."""
    return sum_parts(group, [shares[..., begin:end] for begin, end in pairwise(cuts(shares.shape[-1], group.size))])


def sum_parts(group: Group, parts: Sequence[Array]) -> Array:
    """parts[r] goes to rank r; returns the sum, by the tree, of what came."""
    xp = array_module(parts[0])
    flat = xp.concatenate([xp.ascontiguousarray(part).reshape(-1) for part in parts])
    came = group.scatter_uneven(flat, [part.size for part in parts])
    return fold(add, list(came)).reshape(parts[group.rank].shape)


def units_last(x: Array) -> Array:
    """A view of images (B,C,H,W) as (B,H,W,C); rows as they are."""
    return array_module(x).moveaxis(x, 1, -1)


def units_second(x: Array) -> Array:
    """The way back."""
    return array_module(x).moveaxis(x, -1, 1)
