"""Which images a job is about, and what is said of those that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet_np.data.loading import find_images
from alexnet_np.data.preprocess import source_name
from alexnet_np.errors import ImageError


@dataclass(frozen=True)
class Failure:
    """A file that could not be read, and why."""

    file: str
    error: str


def find(paths: Sequence[str]) -> tuple[list[str], list[Failure]]:
    """The image files that `paths` name, a row for each time they are named, and the paths that name none."""
    found: list[str] = []
    failures = []
    for path in paths:
        try:
            found += find_images(path)
        except ImageError as error:
            failures.append(failed(path, error))
    once = [i for i, file in enumerate(found) if file != "-" or i == found.index("-")]  # it cannot be read again
    return [found[i] for i in once], failures


def failed(file: str, error: ImageError) -> Failure:
    return Failure(file, str(error).removeprefix(f"{source_name(file)}: "))
