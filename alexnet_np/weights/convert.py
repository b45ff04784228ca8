"""For the command line: what is in a weight file, and writing one in another format."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.device import as_array, to_cpu
from alexnet_np.errors import WeightsError, one_line
from alexnet_np.files import replacing
from alexnet_np.text import quoted
from alexnet_np.weights import numpy_file, safetensors_file
from alexnet_np.weights.reading import read

# The weights of every layer but the last, whose outputs are the classes of whoever trained it.
SHAPES = {
    "torchvision": [
        *[(64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)],
        *[(4096, 9216), (4096, 4096)],
    ],
    "paper": [
        *[(96, 3, 11, 11), (256, 48, 5, 5), (384, 256, 3, 3), (384, 192, 3, 3), (256, 192, 3, 3)],
        *[(4096, 9216), (4096, 4096)],
    ],
    "d2l": [
        *[(96, 1, 11, 11), (256, 96, 5, 5), (384, 256, 3, 3), (384, 384, 3, 3), (256, 384, 3, 3)],
        *[(4096, 6400), (4096, 4096)],
    ],
}
WRITERS = {".safetensors": safetensors_file, ".npz": numpy_file}


class Row(NamedTuple):
    """One array of a weight file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameters: int


class Contents(NamedTuple):
    rows: list[Row]
    preset: str | None  # whose shapes these are, at full width and for any number of classes
    parameters: int


def inspect(path: str | os.PathLike[str]) -> Contents:
    """The arrays in a weight file, and the preset that they fit. Raises WeightsError."""
    rows = [Row(name, array.shape, array.dtype.name, array.size) for name, array in read(path).items()]
    return Contents(rows, find_preset({row.name: row.shape for row in rows}), sum(row.parameters for row in rows))


def find_preset(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The preset whose layers have these shapes, whatever they are called and in whatever order."""
    layers = Counter[tuple[int, ...]](shape for shape in shapes.values() if len(shape) > 1)
    for preset, known in SHAPES.items():
        head = list((layers - Counter(known)).elements())
        if layers.total() == len(known) + 1 and len(head) == 1 and head[0][1:] == (4096,):
            return preset
    return None


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
