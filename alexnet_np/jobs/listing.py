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


def is_url(path: str) -> bool:
    return "://" in path


def list_images(paths: Sequence[str]) -> Listed:
    """Raises MissingPackageError where fsspec, or what it needs for such an address, is not installed."""
    listed = Listed([], [], [])
    for path in paths:
        files, stamps, failures = _below_url(path) if is_url(path) else _below(path)
        listed.files.extend(files)
        listed.stamps.extend(stamps)
        listed.failures.extend(failures)
    return listed


def _below(path: str) -> Listed:
    files, failures = find([path])
    return Listed(files, [stamp(file) for file in files], failures)


def _below_url(url: str) -> Listed:
    try:
        system, path = file_system(url)
        found = system.find(path, detail=True)
        if not found:
            raise ImageError(f"{url}: no such file or folder")
        alone = list(found) == [path]
        names = sorted(name for name in found if alone or PurePosixPath(name).suffix.lower() in SUFFIXES)
        if not names:
            raise ImageError(f"{url}: no images in this folder (of {' '.join(sorted(SUFFIXES))})")
        stamps = [tuple(str(found[name][key]) for key in CHANGES if key in found[name]) for name in names]
        return Listed([system.unstrip_protocol(name) for name in names], stamps, [])
    except ImageError as error:
        return Listed([], [], [failed(url, error)])
    except MissingPackageError:
        raise
    except Exception as error:  # each file system has errors of its own
        return Listed([], [], [Failure(url, f"cannot be listed: {one_line(error)}")])


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
