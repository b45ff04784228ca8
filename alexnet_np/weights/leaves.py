"""An array that a file holds and that has not been read, and what a file as a whole holds.

Every reader answers with `Contents`: dicts, lists and objects as the file nests them, with a `Leaf` wherever there is
an array. Which of them are the weights, finding.py says; the numbers of those, and of no others, are read afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.weights.source import Source
from alexnet_np.weights.steps import Step

Shape = tuple[int, ...]
MAX_AXES = 64  # of an array, in NumPy and in torch
MAX_SIZE = 1 << 59  # elements that NumPy can number, whatever their dtype


@dataclass(frozen=True, eq=False)
class Leaf:
    """An array of `shape` and `dtype` (NumPy's name, or "bfloat16") that `read()` reads, and raises WeightsError.

    `same`: equal in two leaves where the file holds but one array under two names, as tied weights are.
    `is_owned`: what is read belongs to whoever reads it, and may be written to.
    """

    shape: Shape
    dtype: str
    read: Callable[[], Any]
    same: Any = None
    is_owned: bool = True

    def __post_init__(self) -> None:
        if len(self.shape) > MAX_AXES or prod(n or 1 for n in self.shape) >= MAX_SIZE:
            raise WeightsError(f"damaged: an array claims shape {self.shape[:MAX_AXES]}")

    @property
    def identity(self) -> Any:
        return id(self) if self.same is None else self.same


class Inert:
    """An object that the file would have had made, and that nobody made: its class by name, and what it was made of."""

    __slots__ = ("args", "items", "kind", "state")

    def __init__(self, kind: str, args: Any = ()) -> None:
        self.kind, self.args = kind, args
        self.state: Any = None
        self.items: Any = None


class Holder:
    """An object that is filled after it was made: a Parameter by its tensor, a pickled array by its numbers."""

    __slots__ = ("content",)

    def __init__(self, content: Any = None) -> None:
        self.content = content  # a leaf, or what else the file puts in its place


@dataclass(frozen=True)
class Contents:
    """What a file holds, unread."""

    format: str  # in words
    tree: Any  # dicts, lists, tuples and Inert objects, with leaves
    steps: tuple[Step, ...] = ()  # the layers in order, where the file says them
    channels: str | None = None  # what the first convolution takes, "RGB" or "BGR", where the format settles it
    input: tuple[int, ...] | None = None  # (C, H, W) of the input, where the file says it
    metadata: Mapping[str, str] = field(default_factory=dict)  # what the writer noted beside the arrays


@dataclass(frozen=True)
class Run:
    """Numbers that lie in one piece in a file: `nbytes` of them from `start` on."""

    source: Source
    start: int
    nbytes: int

    def array(self) -> np.ndarray:
        return self.source.array(self.start, self.nbytes)


def raw_dtype(name: str) -> np.dtype[Any]:
    """The dtype to read `name` as; NumPy has no bfloat16, so its 16 bits are read as they are."""
    return np.dtype("uint16" if name == "bfloat16" else name)


def numbers(raw: Any, dtype: str, big_endian: bool = False) -> np.ndarray:
    """Bytes as a 1-D array: a view of them where dtype, byte order and alignment allow it.

    bfloat16 becomes float32, which holds each of its values exactly.
    """
    array = np.frombuffer(raw, raw_dtype(dtype).newbyteorder(">" if big_endian else "<"))
    if not array.dtype.isnative or not array.flags.aligned or not array.flags.writeable:
        array = array.astype(array.dtype.newbyteorder("="))
    if dtype == "bfloat16":
        wide = array.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return array


def read_all(leaves: Mapping[str, Leaf]) -> dict[str, Any]:
    """The arrays by name, several read at a time: copying and checksums happen outside of the interpreter's lock."""
    from concurrent.futures import ThreadPoolExecutor  # only now: it takes longer to import than all of this

    with ThreadPoolExecutor() as pool:
        return dict(zip(leaves, pool.map(lambda leaf: leaf.read(), leaves.values()), strict=True))
