"""For the command line: what is in a weight file."""

from __future__ import annotations

import os
from math import prod
from typing import NamedTuple

from alexnet_np.weights import finding
from alexnet_np.weights.reading import opened


class Row(NamedTuple):
    """One array of a weight file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameters: int


class Contents(NamedTuple):
    rows: list[Row]
    parameters: int


def inspect(path: str | os.PathLike[str]) -> Contents:
    """The arrays in a weight file, and how many numbers they have together. No number is read. Raises WeightsError."""
    with opened(path) as contents:
        found = finding.mapping(contents)
    rows = [Row(name, leaf.shape, leaf.dtype, prod(leaf.shape)) for name, leaf in found.leaves.items()]
    return Contents(rows, sum(row.parameters for row in rows))
