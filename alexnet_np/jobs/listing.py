"""Which images a job on a cluster is about, and what each was when it was listed.

Local files and folders as `find` has them, and whatever fsspec reads: "s3://bucket/photographs", "memory://", an
"https://" page of links. Of a remote folder the endings decide, as of a local one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.data.loading import SUFFIXES
from alexnet_np.data.preprocess import read_pixels
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.errors import ImageError, MissingPackageError, one_line
from alexnet_np.jobs.finding import Failure, failed, find
from alexnet_np.jobs.parts import stamp

CHANGES = ("size", "ETag", "etag", "LastModified", "last_modified", "mtime", "created")  # what file systems say


class Listed(NamedTuple):
    """The images in their order, and beside each what tells it from another of its name."""

    files: list[str]
    stamps: list[tuple]
    failures: list[Failure]  # paths that name no image
    targets: Sequence[int] = ()  # their classes, where they have any (labelled.py)


def is_url(path: str) -> bool:
    return "://" in path


def list_images(paths: Sequence[str]) -> Listed:
    """Raises MissingPackageError where fsspec, or what it needs for such an address, is not installed."""
    listed = Listed([], [], [])
    for path in paths:
        found = _below_url(path) if is_url(path) else _below(path)
        listed.files.extend(found.files)
        listed.stamps.extend(found.stamps)
        listed.failures.extend(found.failures)
    return listed


def _below(path: str) -> Listed:
    files, failures = find([path])
    return Listed(files, [stamp(file) for file in files], failures)


def _below_url(url: str) -> Listed:
    try:
        names, stamps = files_below(url)
        suffixes = [PurePosixPath(name).suffix.lower() for name in names]
        alone = names == [url]
        chosen = [i for i, suffix in enumerate(suffixes) if alone or suffix in SUFFIXES]
        if not chosen:
            raise ImageError(f"{url}: no images in this folder (of {' '.join(sorted(SUFFIXES))})")
        return Listed([names[i] for i in chosen], [stamps[i] for i in chosen], [])
    except ImageError as error:
        return Listed([], [], [failed(url, error)])


def files_below(url: str) -> tuple[list[str], list[tuple]]:
    """The addresses of all files of a folder, sorted, and beside each its stamp; of a file itself as it was given.

    Raises ImageError where there is none, MissingPackageError.
    """
    system, path = file_system(url)
    try:
        found = system.find(path, detail=True)
    except Exception as error:  # each file system has errors of its own
        raise ImageError(f"{url}: cannot be listed: {one_line(error)}") from None
    if not found:
        raise ImageError(f"{url}: no such file or folder")
    stamps = [tuple(str(found[name][key]) for key in CHANGES if key in found[name]) for name in sorted(found)]
    if list(found) == [path]:
        return [url], stamps
    return [system.unstrip_protocol(name) for name in sorted(found)], stamps


def file_system(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingPackageError(
            f"{url}: {one_line(error)}; pip install fsspec, and s3fs or gcsfs for those"
        ) from None


def read_from(folder: str, file: str, recipe: Preprocessing) -> np.ndarray:
    """`read_pixels` of a file below `folder`, or of an address, on whatever machine this is. Raises ImageError."""
    if not is_url(file):
        path = os.path.join(folder, file)  # noqa: PTH118 -- a name may be "-", or end in spaces: kept as it is
        try:
            return read_pixels(path, recipe)
        except ImageError as error:
            raise ImageError(str(error).replace(path, file, 1)) from None
    system, path = file_system(file)
    try:
        opened: Any = BytesIO(system.cat_file(path))
    except FileNotFoundError:
        raise ImageError(f"{file}: no such file") from None
    except Exception as error:
        raise ImageError(f"{file}: cannot be read: {one_line(error)}") from None
    opened.name = file  # by which errors call it
    return read_pixels(opened, recipe)


def absolute(out: str) -> str:
    """A folder's name that means the same on every machine that sees it."""
    return out if is_url(out) else str(Path(out).absolute())
