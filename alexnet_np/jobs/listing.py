"""Which images a job on a cluster is about, and what each was when it was listed.

Local files and folders as `find` has them, and whatever fsspec reads: "s3://bucket/photographs", "gs://", "memory://",
an "https://" page of links. Of a remote folder the endings decide, as of a local one, and what is hidden is passed
over. A list names files, which are taken as they are: nobody asks a million addresses whether they are there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np

from alexnet_np.data.loading import SUFFIXES
from alexnet_np.data.preprocess import read_pixels
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.errors import ArgumentError, DataError, ImageError, MissingPackageError, one_line
from alexnet_np.jobs.finding import Failure, failed, find
from alexnet_np.jobs.parts import stamp

CHANGES = ("size", "ETag", "etag", "LastModified", "last_modified", "mtime", "created")  # what file systems say
PACKAGES = {  # what fsspec needs for an address, and the extra of ours that brings it
    **dict.fromkeys(("s3", "s3a"), ("s3fs", "s3")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "gs")),
    **dict.fromkeys(("http", "https"), ("aiohttp", "dask")),
}


class Listed(NamedTuple):
    """The images in their order, and beside each what tells it from another of its name."""

    files: list[str]
    stamps: list[tuple]
    failures: list[Failure]  # paths that name no image
    targets: Sequence[int] = ()  # their classes, where they have any (labelled.py)


def is_url(path: str) -> bool:
    return "://" in path


def list_images(paths: Sequence[str], named: Sequence[str] = ()) -> Listed:
    """The images that `paths` name or hold, then those of a list, `named`, one by one.

    Raises MissingPackageError where fsspec, or what it needs for such an address, is not installed; ArgumentError for
    an address of a kind that nobody knows.
    """
    listed = Listed([], [], [])
    for path in paths:
        found = _below_url(path) if is_url(path) else _below(path)
        listed.files.extend(found.files)
        listed.stamps.extend(found.stamps)
        listed.failures.extend(found.failures)
    listed.files.extend(named)
    listed.stamps.extend(() if is_url(file) else stamp(file) for file in named)
    return listed


def read_list(file: str) -> list[str]:
    """The paths and addresses in a text file, one a line, or in the column `file` of a .parquet, such as a part's.

    `file`: a path, an address, or "-" for lines on standard input. Raises DataError, MissingPackageError.
    """
    try:
        content = sys.stdin.buffer.read() if file == "-" else _content(file)
    except Exception as error:  # each file system has errors of its own
        if isinstance(error, MissingPackageError | ArgumentError):
            raise
        reason = "no such file" if isinstance(error, FileNotFoundError) else one_line(error)
        raise DataError(f"{file}: a list that cannot be read: {reason}") from None
    names = _column(file, content) if file.endswith(".parquet") else os.fsdecode(content).splitlines()
    names = [name for name in names if name.strip()]
    if not names:
        raise DataError(f"{file}: an empty list; one path or address a line is expected")
    return names


def _content(file: str) -> bytes:
    if not is_url(file):
        return Path(file).read_bytes()
    system, path = file_system(file)
    return system.cat_file(path)


def _column(file: str, content: bytes) -> list[str]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingPackageError(f"{file}: .parquet needs the package pyarrow: pip install pyarrow") from None
    try:
        return [str(name) for name in parquet.read_table(BytesIO(content), columns=["file"])["file"].to_pylist()]
    except (ArrowException, KeyError):
        raise DataError(f"{file}: no Parquet file with a column called file") from None


def _below(path: str) -> Listed:
    files, failures = find([path])
    return Listed(files, [stamp(file) for file in files], failures)


def _below_url(url: str) -> Listed:
    try:
        names, stamps = files_below(url)
        chosen = [i for i, name in enumerate(names) if names == [url] or shown(inside(name, url))]
        if not chosen:
            raise ImageError(f"{url}: no images in this folder (of {' '.join(sorted(SUFFIXES))})")
        return Listed([names[i] for i in chosen], [stamps[i] for i in chosen], [])
    except ImageError as error:
        return Listed([], [], [failed(url, error)])


def files_below(url: str) -> tuple[list[str], list[tuple]]:
    """The addresses of all files of a folder, sorted, and beside each its stamp; of a file itself as it was given.

    Raises ImageError where there is none, MissingPackageError, ArgumentError.
    """
    system, path = file_system(url)
    try:
        system.invalidate_cache(path)  # what others have written since
        found = system.find(path, detail=True)
        if not found:
            system.info(path)  # raises what keeps it from being found
    except FileNotFoundError as error:
        why = f"cannot be reached: {one_line(error.__cause__)}" if isinstance(error.__cause__, OSError) else ""
        raise ImageError(f"{url}: {why or 'no such file or folder'}") from None
    except Exception as error:  # each file system has errors of its own
        raise ImageError(f"{url}: cannot be listed: {one_line(error)}") from None
    said = [found[name] for name in sorted(found)]
    stamps = [tuple(str(each[key]) for key in CHANGES if each.get(key) is not None) for each in said]
    if list(found) == [path]:
        return [url], stamps
    return [system.unstrip_protocol(name) for name in sorted(found)], stamps


def inside(name: str, url: str) -> list[str]:
    """The parts of an address below the folder `url`: systems write theirs with or without a slash more."""
    folder = url.split("://", 1)[1].strip("/")
    return name[name.index(folder) + len(folder) :].strip("/").split("/")


def shown(parts: Sequence[str]) -> bool:
    """Whether these name an image that is not hidden."""
    return not any(part.startswith(".") for part in parts) and PurePosixPath(parts[-1]).suffix.lower() in SUFFIXES


def file_system(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it. Raises MissingPackageError, ArgumentError."""
    kind = url.split("://", 1)[0]
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)
    except ImportError:
        package, extra = PACKAGES.get(kind, (f"that fsspec needs for {kind}://", ""))
        install = f"pip install 'alexnet-np[{extra}]'" if extra else "see fsspec's documentation"
        raise MissingPackageError(f"{url}: needs the package {package}: {install}") from None
    except ValueError:
        raise ArgumentError(f"{url}: no kind of address is called {kind}://; fsspec knows s3, gs, https ...") from None


def opened(folder: str, file: str) -> str | IO[bytes]:
    """A file below `folder`, or of an address, for Pillow, on whatever machine this is. Raises ImageError."""
    if not is_url(file):
        return os.path.join(folder, file)  # noqa: PTH118 -- a name may be "-", or end in spaces: kept as it is
    system, path = file_system(file)
    try:
        content: Any = BytesIO(system.cat_file(path))
    except FileNotFoundError:
        raise ImageError(f"{file}: no such file") from None
    except Exception as error:
        raise ImageError(f"{file}: cannot be read: {one_line(error)}") from None
    content.name = file  # by which errors call it
    return content


def read_from(folder: str, file: str, recipe: Preprocessing) -> np.ndarray:
    """`read_pixels` of what `opened` gives. Raises ImageError."""
    source = opened(folder, file)
    try:
        return read_pixels(source, recipe)
    except ImageError as error:
        raise ImageError(str(error).replace(source, file, 1) if isinstance(source, str) else str(error)) from None


def absolute(out: str) -> str:
    """A folder's name that means the same on every machine that sees it."""
    return out if is_url(out) else str(Path(out).absolute())
