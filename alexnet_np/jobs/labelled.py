"""Which labelled images an evaluation on a cluster is about, and what its parts amount to.

A folder a class, as the one-machine command reads them; below an address likewise. Nobody looks into the pictures
beforehand: the parts list those that cannot be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from alexnet_np.data.dataset import Dataset, Subset
from alexnet_np.data.image_folder import ImageFolder, list_classes
from alexnet_np.data.loading import SUFFIXES
from alexnet_np.errors import ArgumentError, DataError
from alexnet_np.jobs import store
from alexnet_np.jobs.listing import Listed, files_below, is_url
from alexnet_np.jobs.parts import stamp
from alexnet_np.training.evaluation import Evaluation, Judged, evaluation_of
from alexnet_np.training.task import VALIDATION_FOLDERS, held_out_below


def list_labelled(root: str, classes: Sequence[str] | None) -> tuple[Listed, list[str]]:
    """The images below ROOT's val/, by whatever name, else below ROOT, and their classes: `classes`, or the folders.

    Raises DataError; ImageError where an address cannot be listed.
    """
    if is_url(root):
        return _below_url(root, classes)
    known, files, targets, _ = list_classes(held_out_below(Path(root)), classes)
    return Listed(files, [stamp(file) for file in files], [], targets), known


def _below_url(url: str, classes: Sequence[str] | None) -> tuple[Listed, list[str]]:
    names, stamps = files_below(url)
    inside = [name.removeprefix(names[0][: _root(names[0], url)]).split("/") for name in names]
    held_out = {path[0].lower(): path[0] for path in inside if len(path) > 1}
    val = next((held_out[name] for name in VALIDATION_FOLDERS if name in held_out), None)
    skip = 0 if val is None else 1
    chosen = [
        i
        for i, path in enumerate(inside)
        if (val is None or path[0] == val)
        and len(path) > skip + 1
        and not any(part.startswith(".") for part in path)
        and PurePosixPath(path[-1]).suffix.lower() in SUFFIXES
    ]
    found = sorted({inside[i][skip] for i in chosen})
    if not found:
        raise DataError(f"{url}: holds no class folders; images are expected as {url}/CLASS/IMAGE")
    known = found if classes is None else list(classes)
    for name in found:
        if name not in known:
            raise DataError(f"{url}/{name}: not one of the {len(known)} classes expected: {', '.join(known[:9])}")
    number = {name: i for i, name in enumerate(known)}
    chosen.sort(key=lambda i: (inside[i][skip], names[i]))
    targets = [number[inside[i][skip]] for i in chosen]
    return Listed([names[i] for i in chosen], [stamps[i] for i in chosen], [], targets), known


def _root(name: str, url: str) -> int:
    """How much of an address below `url` stands for `url`: systems write theirs with or without a slash more."""
    path = url.split("://", 1)[1].strip("/")
    return name.index(path) + len(path) + 1


def of_dataset(dataset: Dataset) -> Listed:
    """The files of a folder, or of some of its images. Raises ArgumentError for images that are no files."""
    targets = dataset.targets.tolist()
    whole, indices = dataset, np.arange(len(targets))
    while isinstance(whole, Subset):
        indices = whole.indices[indices]
        whole = whole.whole
    if not isinstance(whole, ImageFolder):
        raise ArgumentError("--engine dask evaluates folders of images: name one with --data, or leave --engine out")
    files = [whole.files[i] for i in indices]
    return Listed(files, [stamp(file) for file in files], [], targets)


def evenly(listed: Listed, count: int) -> Listed:
    """`count` of the images, evenly spaced, as `first_images` takes them."""
    have = len(listed.files)
    chosen = range(have) if count >= have else [i * have // count for i in range(count)]
    files, stamps = [listed.files[i] for i in chosen], [listed.stamps[i] for i in chosen]
    return Listed(files, stamps, listed.failures, [listed.targets[i] for i in chosen])


def evaluation_in(out: str, parts: int, num_classes: int) -> Evaluation:
    """What the parts below OUT amount to: the numbers of one machine to the last digit. Raises DataError."""
    return evaluation_of((judged_in(out, store.part_name(i)) for i in range(parts)), num_classes)


def judged_in(out: str, name: str) -> Judged:
    table = store.read(out, name, ("class", "predicted", "log_probability", "in_top5"))
    return Judged(*(column.to_numpy() for column in table.columns))
