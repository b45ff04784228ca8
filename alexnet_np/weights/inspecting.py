"""What is in a weight file, unread."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from alexnet_np.weights import finding
from alexnet_np.weights.fitting import Fit
from alexnet_np.weights.leaves import Contents, Leaf
from alexnet_np.weights.reading import opened


class Row(NamedTuple):
    """One array of a weight file."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # as the file has it: "bfloat16" too
    parameters: int


class Listed(NamedTuple):
    """The arrays that are taken, and what is left."""

    format: str  # in words
    rows: list[Row]
    where: str  # what their names in the file begin with, and here do not
    left: list[str]  # what else is in the file, in words
    parameters: int


def inspect(path: str | os.PathLike[str], part: str | None = None) -> Listed:
    """The arrays in a weight file, and how many numbers they have together. No number is read. Raises WeightsError."""
    with opened(path) as contents:
        return listed(finding.only(contents, part))


def listed(contents: Contents) -> Listed:
    """What read() takes. Raises WeightsError."""
    found = finding.mapping(contents)
    return _listed(contents, found.leaves, found.where, found.left)


def listed_fit(contents: Contents, fit: Fit) -> Listed:
    """What a model takes, by its own names."""
    return _listed(contents, fit.leaves, fit.where, fit.left)


def _listed(contents: Contents, leaves: Mapping[str, Leaf], where: str, left: list[str]) -> Listed:
    rows = [Row(name, leaf.shape, leaf.dtype, prod(leaf.shape)) for name, leaf in leaves.items()]
    return Listed(contents.format, rows, where, left, sum(row.parameters for row in rows))
