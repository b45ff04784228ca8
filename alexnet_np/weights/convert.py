"""For the command line: what is in a weight file, and the same in another format."""

from __future__ import annotations

import os
from math import prod
from typing import NamedTuple

from alexnet_np.weights import finding, seal
from alexnet_np.weights.leaves import read_all
from alexnet_np.weights.reading import opened
from alexnet_np.weights.writing import write


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


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], part: str | None = None) -> Contents:
    """Write the weights in a file in another format, names, numbers and what it says of its network unchanged.

    `part`: which weights, where there are several. Raises WeightsError.
    """
    with opened(source) as contents:
        arrays = read_all(finding.mapping(contents, part).leaves)
        metadata = seal.without_state(contents.metadata)
    write(target, arrays, metadata=metadata)
    rows = [Row(name, array.shape, str(array.dtype), array.size) for name, array in arrays.items()]
    return Contents(rows, sum(row.parameters for row in rows))
