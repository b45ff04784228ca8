""".mat of MATLAB, version 5 (what `save` writes as -v6 and, compressed, as -v7).

A file is a row of elements, each with a tag of its type and size. A matrix is an element of elements: flags, axes,
name, and the numbers, or for a cell and a struct matrices again. It is read here, and not by SciPy, because SciPy's
reader (1.17, measured) dies of a segmentation fault on one in three hundred files with a few damaged bytes.

Source: The MathWorks, "MAT-File Format" (matfile_format.pdf), chapter 1.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.errors import WeightsError
from alexnet_np.weights.formats import matconvnet
from alexnet_np.weights.leaves import Contents, Inert, Leaf, Run, numbers
from alexnet_np.weights.source import Source

HEADER = 128
TYPES = {
    1: "int8",
    2: "uint8",
    3: "int16",
    4: "uint16",
    5: "int32",
    6: "uint32",
    7: "float32",
    9: "float64",
    12: "int64",
    13: "uint64",
}  # of the numbers as they are stored
MATRIX, COMPRESSED, TEXTS = 14, 15, {1, 2, 4, 16, 17}
CLASSES = {
    6: "float64",
    7: "float32",
    8: "int8",
    9: "uint8",
    10: "int16",
    11: "uint16",
    12: "int32",
    13: "uint32",
    14: "int64",
    15: "uint64",
}  # of the matrix that they are
CELL, STRUCT, CHAR = 1, 2, 4
COMPLEX = 0x0800
MAX_NODES = 100_000
MAX_DEPTH = 20
MAX_TEXT = 1 << 16  # bytes of a text or of a list of names
EXPANSION = 20  # times its size that a compressed element may become
SMALL = 64 << 20  # bytes that it may become in any case
CHUNK = 1 << 20


class Element(NamedTuple):
    type: int
    content: Source


def read(source: Source) -> Contents:
    """The variables of a .mat by name. Raises WeightsError."""
    reader = _Reader(source)
    tree: dict[str, Any] = {}
    for element in reader.elements(source.part(HEADER, source.size - HEADER)):
        if element.type == COMPRESSED:
            (element,) = reader.elements(_inflated(element.content))
        if element.type == MATRIX:
            name, value = reader.matrix(element.content, 0)
            tree[name] = value
    return matconvnet.contents(tree) or Contents(".mat of MATLAB", tree)


class _Reader:
    def __init__(self, source: Source) -> None:
        order = source.read(HEADER - 2, 2)
        if order not in (b"IM", b"MI"):
            raise WeightsError("damaged: a .mat that does not say the order of its bytes")
        self.order = "<" if order == b"IM" else ">"
        self.left = MAX_NODES

    def elements(self, source: Source) -> Iterator[Element]:
        """Those that follow one another in `source`. Raises WeightsError."""
        place = 0
        while place < source.size:
            self.left -= 1
            if self.left < 0:
                raise WeightsError("refused: a .mat of too many parts")
            kind, size = struct.unpack(f"{self.order}II", source.read(place, 8))
            if kind >> 16:  # a small one: its size and its content are in the tag
                yield Element(kind & 0xFFFF, source.part(place + 4, kind >> 16))
                place += 8
                continue
            yield Element(kind, source.part(place + 8, size))
            place += 8 + size + (0 if kind == COMPRESSED else -size % 8)

    def matrix(self, source: Source, depth: int) -> tuple[str, Any]:
        """The name and the value of a matrix: a leaf, a text, a list of a cell's contents, a dict of a struct's."""
        if not source.size:
            return "", None
        if depth > MAX_DEPTH:
            raise WeightsError("refused: a .mat of too many structs in structs")
        parts = self.elements(source)
        flags, axes, name = (next(parts, Element(0, source.part(0, 0))) for _ in range(3))
        (flag,) = struct.unpack(f"{self.order}I", flags.content.head(4))
        shape = self.integers(axes)
        value = self.value(flag, shape, parts, depth)
        return self.text(name), value

    def value(self, flag: int, shape: tuple[int, ...], parts: Iterator[Element], depth: int) -> Any:
        kind = flag & 0xFF
        if kind in CLASSES and not flag & COMPLEX:
            return self.array(CLASSES[kind], shape, next(parts, None))
        if kind == CHAR:
            element = next(parts, None)
            return "" if element is None or element.type not in TEXTS else self.text(element)
        if kind == CELL:
            return [self.matrix(part.content, depth + 1)[1] for part in parts if part.type == MATRIX]
        if kind == STRUCT:
            return self.struct(prod(shape), parts, depth)
        return Inert(f"MATLAB data of class {kind}")

    def struct(self, count: int, parts: Iterator[Element], depth: int) -> Any:
        """A dict; of a row of structs a list of them."""
        lengths = self.integers(next(parts))
        names = next(parts).content.head(MAX_TEXT)
        length = lengths[0] if lengths and 0 < lengths[0] <= 64 else len(names) or 1
        fields = [names[i : i + length].partition(b"\0")[0].decode("latin-1") for i in range(0, len(names), length)]
        values = [self.matrix(part.content, depth + 1)[1] for part in parts if part.type == MATRIX]
        if len(values) != count * len(fields):
            raise WeightsError(f"damaged: a struct of {count} times {len(fields)} fields has {len(values)}")
        rows = [dict(zip(fields, values[i * len(fields) :], strict=False)) for i in range(count if fields else 0)]
        return rows[0] if len(rows) == 1 else rows

    def array(self, dtype: str, shape: tuple[int, ...], element: Element | None) -> Leaf:
        """The numbers may be stored in fewer bytes than their class has: MATLAB writes whole doubles as integers."""
        stored = TYPES.get(element.type) if element else None
        if element is None or stored is None:
            raise WeightsError("damaged: a matrix without its numbers")
        nbytes = prod(shape) * np.dtype(stored).itemsize
        if nbytes != element.content.size:
            raise WeightsError(f"damaged: a matrix of shape {shape} claims {nbytes} bytes of {element.content.size}")
        run = Run(element.content, 0, nbytes)
        return Leaf(shape, dtype, partial(_array, run, stored, self.order == ">", shape, dtype))

    def integers(self, element: Element) -> tuple[int, ...]:
        if element.type != 5 or element.content.size > 4 * 64:
            raise WeightsError("damaged: a matrix without its axes")
        values = struct.unpack(
            f"{self.order}{element.content.size // 4}i", element.content.read(0, element.content.size)
        )
        if any(value < 0 for value in values):
            raise WeightsError(f"damaged: a matrix of axes {values}")
        return values

    def text(self, element: Element) -> str:
        encoding = "utf-8" if element.type in (1, 2, 16) else "utf-16-le" if self.order == "<" else "utf-16-be"
        return element.content.head(MAX_TEXT).decode(encoding, "replace")


def _array(run: Run, stored: str, big_endian: bool, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return numbers(run.array(), stored, big_endian).reshape(shape, order="F").astype(dtype, copy=False)


def _inflated(source: Source) -> Source:
    """What a compressed element holds, in memory that the arrays share."""
    machine, whole = zlib.decompressobj(), bytearray()
    for chunk in source.chunks(0, source.size):
        piece = machine.decompress(chunk.data, CHUNK)
        while piece:
            whole += piece
            if len(whole) > max(SMALL, EXPANSION * source.size):
                raise WeightsError(f"refused: {source.size} bytes of it become more than {len(whole)}")
            piece = machine.decompress(machine.unconsumed_tail, CHUNK)
    return Source(whole, 0, len(whole))
