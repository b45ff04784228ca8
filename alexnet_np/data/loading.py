"""Image files for inference: find them, decode them in the background, go on past the bad ones."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.data.background import batches_in_background
from alexnet_np.data.preprocess import float_dtype, normalise, read_pixels, source_name
from alexnet_np.data.recipe import Preprocessing, positive
from alexnet_np.errors import ImageError

# What counts as an image inside a folder. A file that is named itself is read whatever its name.
SUFFIXES = {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".tif", ".tiff"} | {
    ".pgm",
    ".png",
    ".ppm",
    ".webp",
}


class LoadedBatch(NamedTuple):
    """Some files, decoded: row i of `x` is the image of files[i]; what could not be read stands in `failures`."""

    files: list[str]
    x: np.ndarray  # (len(files), C, H, W)
    failures: list[ImageError]


def find_images(paths: Iterable[str | os.PathLike] | str | os.PathLike) -> list[str]:
    """The image files that `paths` name: files and "-" as they are, folders searched through, in sorted order.

    Inside a folder the suffix decides; hidden files and folders are passed over, links are followed, each folder once.
    Raises ImageError for a path that does not exist and for a folder without an image.
    """
    found: list[str] = []
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        if path == "-" or Path(path).is_file():
            found.append(str(path))
        elif Path(path).is_dir():
            inside = images_below(path)
            if not inside:
                raise ImageError(f"{source_name(path)}: no images in this folder (of {' '.join(sorted(SUFFIXES))})")
            found += inside
        else:
            raise ImageError(f"{source_name(path)}: no such file or folder")
    return found


def images_below(folder: str | os.PathLike) -> list[str]:
    """Every image file below `folder`, sorted by its path."""
    return sorted_files(folder)[0]


def sorted_files(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """The image files below `folder` and the others, sorted by their paths; hidden ones are neither.

    Links are followed, and a folder that was seen already, by whatever name, is not looked into again.
    """
    found = []
    seen = {_identity(folder)}
    for parent, folders, files in os.walk(Path(folder), followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        new = {name: _identity(Path(parent, name)) for name in folders}
        folders[:] = [name for name in folders if new[name] not in seen]
        seen |= set(new.values())
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    images = [str(path) for path in sorted(found) if path.suffix.lower() in SUFFIXES]
    return images, [str(path) for path in sorted(found) if path.suffix.lower() not in SUFFIXES]


def _identity(folder: str | os.PathLike) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def load_batches(
    files: Sequence[str],
    batch_size: int,
    recipe: Preprocessing,
    *,
    workers: int = 2,
    dtype: Any = "float32",
) -> Generator[LoadedBatch]:
    """Preprocess `files` by `recipe` in batches, in their order, decoding ahead in `workers` threads.

    Yields LoadedBatch(files, x, failures): a file that cannot be read is left out of `files` and `x`, its ImageError
    put in `failures`. Any other exception is raised. Closing the iterator stops the threads.
    """
    positive("batch_size", batch_size)
    positive("workers", workers)
    dtype = float_dtype(dtype)

    def allocate(size: int) -> np.ndarray:
        return np.empty((size, *recipe.shape), dtype)

    def fill(chunk: Sequence[str], rows: np.ndarray) -> list[ImageError | None]:
        failures: list[ImageError | None] = []
        for file, row in zip(chunk, rows, strict=True):
            try:
                normalise(read_pixels(file, recipe), recipe, row)
                failures.append(None)
            except ImageError as error:
                failures.append(ImageError(str(error)))  # without the traceback, which would keep the batch alive
        return failures

    def run() -> Generator[LoadedBatch]:
        batches = (files[start : start + batch_size] for start in range(0, len(files), batch_size))
        with closing(batches_in_background(batches, allocate, fill, workers)) as made:
            for batch in made:
                yield _without_failures(*batch)

    return run()


def _without_failures(files: Sequence[str], x: np.ndarray, failures: list[ImageError | None]) -> LoadedBatch:
    good = [i for i, failure in enumerate(failures) if failure is None]
    if len(good) < len(files):
        x = x[good]
    return LoadedBatch([files[i] for i in good], x, [failure for failure in failures if failure is not None])
