"""Vectors and the names of their files as .npy, .npz or .parquet, written a part at a time: no part is held for long.

.npy        the vectors (N,features) float32; the names stand in NAME.npy.txt, a line each
.npz        `files` and `embeddings`
.parquet    a row a file: `file` (string), `embedding` (fixed size list of float32)
"""

from __future__ import annotations

import importlib.util
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from alexnet_np.errors import ArgumentError, DataError, MissingPackageError, one_line
from alexnet_np.files import replacing


class Vectors(NamedTuple):
    """What to write: a row for each of `names`, some rows at a time."""

    names: list[str]
    features: int
    parts: Iterator[np.ndarray]  # (n, features) float32


def check_output(out: Path) -> None:
    """Raise now what `write` would raise after hours: ArgumentError, MissingPackageError."""
    if out.suffix not in WRITERS:
        raise ArgumentError(f"{out}: vectors are written as {', '.join(WRITERS)}, by the ending of the name")
    if not out.parent.is_dir():
        raise ArgumentError(f"{out}: there is no folder {out.parent}; create it first")
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingPackageError(f"{out}: .parquet needs the package pyarrow: pip install pyarrow, or write .npz")


def write(out: Path, vectors: Vectors) -> None:
    """The file, whole or not there. Raises DataError."""
    try:
        WRITERS[out.suffix](out, vectors)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or one_line(error)}") from error


def write_npy(out: Path, vectors: Vectors) -> None:
    with replacing(out.with_name(f"{out.name}.txt")) as temporary:
        temporary.write_bytes(b"".join(os.fsencode(name) + b"\n" for name in vectors.names))
    with replacing(out) as temporary, temporary.open("wb") as file:
        write_array(file, vectors)


def write_npz(out: Path, vectors: Vectors) -> None:
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:  # stored, as np.savez does
        with archive.open("files.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.array(vectors.names))
        with archive.open("embeddings.npy", "w", force_zip64=True) as file:
            write_array(file, vectors)


def write_array(file: IO[bytes], vectors: Vectors) -> None:
    """As np.save does, but for one part after the other."""
    shape = (len(vectors.names), vectors.features)
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for part in vectors.parts:
        file.write(np.ascontiguousarray(part, "<f4").data)


def write_parquet(out: Path, vectors: Vectors) -> None:
    import pyarrow
    from pyarrow import parquet

    numbers = pyarrow.list_(pyarrow.float32(), vectors.features)
    schema = pyarrow.schema([("file", pyarrow.string()), ("embedding", numbers)])
    first = 0
    names_alone: Any = ["file"]  # have a dictionary: numbers hardly recur, and looking for it takes longer than writing
    with replacing(out) as temporary, parquet.ParquetWriter(temporary, schema, use_dictionary=names_alone) as writer:
        for part in vectors.parts:
            names = vectors.names[first : first + len(part)]
            files = [name.encode(errors="backslashreplace").decode() for name in names]  # its strings are valid UTF-8
            column: Any = pyarrow.FixedSizeListArray.from_arrays(part.ravel(), vectors.features)
            writer.write_table(pyarrow.table({"file": files, "embedding": column}, schema))
            first += len(part)


WRITERS: dict[str, Callable[[Path, Vectors], None]] = {
    ".npy": write_npy,
    ".npz": write_npz,
    ".parquet": write_parquet,
}
