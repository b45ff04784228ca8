"""For the command line: what is in a weight file, and writing one in another format."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.device import as_array, to_cpu
from alexnet_np.errors import WeightsError, one_line
from alexnet_np.files import replacing
from alexnet_np.text import quoted
from alexnet_np.weights import finding
from alexnet_np.weights.formats import npz_file, safetensors_file
from alexnet_np.weights.reading import opened

WRITERS = {".safetensors": safetensors_file, ".npz": npz_file}


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


def write(path: str | os.PathLike[str], mapping: Mapping[str, Any]) -> None:
    """Write name -> array to `path`, as .safetensors or .npz by its ending; an old file stays until the new is whole.

    Raises WeightsError.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise WeightsError(f"{path}: weights are written as {' or '.join(WRITERS)}, by the ending of the name")
    arrays = {name: _numbers(name, value) for name, value in mapping.items()}
    try:
        with replacing(path) as temporary:
            WRITERS[path.suffix].write(temporary, arrays)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written: {error.strerror or one_line(error)}") from error


def _numbers(name: str, value: Any) -> np.ndarray:
    array = to_cpu(as_array(value, name))
    if array.dtype.kind not in "biuf":
        raise WeightsError(f"{quoted(name)} has dtype {array.dtype}, which is no number of a network")
    return array
