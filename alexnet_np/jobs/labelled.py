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
from alexnet_np.errors import ArgumentError, DataError
from alexnet_np.jobs import store
from alexnet_np.jobs.listing import Listed, files_below, inside, is_url, list_images, shown
from alexnet_np.jobs.parts import stamp
from alexnet_np.training.evaluation import Evaluation, Judged, evaluation_of
from alexnet_np.training.task import VALIDATION_FOLDERS, evenly_spaced, held_out_below


def list_labelled(root: str, classes: Sequence[str] | None) -> tuple[Listed, list[str]]:
    """The images below ROOT's val/, by whatever name, else below ROOT, and their classes: `classes`, or the folders.

    Raises DataError; ImageError where an address cannot be listed.
    """
    if not is_url(root):
        known, files, targets, _ = list_classes(held_out_below(Path(root)), classes)
        return Listed(files, [stamp(file) for file in files], [], targets), known
    names, stamps = files_below(root)
    below = [inside(name, root) for name in names]
    held_out = {path[0].lower(): path[0] for path in below if len(path) > 1}
    val = next((held_out[name] for name in VALIDATION_FOLDERS if name in held_out), None)
    first = 0 if val is None else 1  # of the folders the one that is the class
    of = {i: path[first] for i, path in enumerate(below) if len(path) > first + 1 and shown(path)}
    if val is not None:
        of = {i: name for i, name in of.items() if below[i][0] == val}
    if not of:
        raise DataError(f"{root}: holds no class folders; images are expected as {root.rstrip('/')}/CLASS/IMAGE")
    return _labelled(root, Listed(names, stamps, []), of, classes)


def list_named(named: Sequence[str], classes: Sequence[str] | None) -> tuple[Listed, list[str]]:
    """The images of a list, in its order, each of the class that its folder is called. Raises DataError."""
    listed = list_images([], named)
    of = {i: PurePosixPath(name).parent.name for i, name in enumerate(named)}
    return _labelled("the list", listed, of, classes, in_order=True)


def _labelled(
    where: str, listed: Listed, of: dict[int, str], classes: Sequence[str] | None, in_order: bool = False
) -> tuple[Listed, list[str]]:
    """Those of the images that have a class: sorted by it, or in their order."""
    found = sorted(set(of.values()))
    if "" in found:
        bare = next(listed.files[i] for i, name in of.items() if not name)
        raise DataError(f"{where}: {bare} lies in no folder, whose name would be its class")
    known = found if classes is None else list(classes)
    for name in found:
        if name not in known:
            raise DataError(f"{where}: {name} is not one of the {len(known)} classes expected: {', '.join(known[:9])}")
    number = {name: i for i, name in enumerate(known)}
    chosen = list(of) if in_order else sorted(of, key=lambda i: (of[i], listed.files[i]))
    files, stamps = [listed.files[i] for i in chosen], [listed.stamps[i] for i in chosen]
    return Listed(files, stamps, listed.failures, [number[of[i]] for i in chosen]), known


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
    if count >= have:
        return listed
    chosen = evenly_spaced(count, have).tolist()
    files, stamps = [listed.files[i] for i in chosen], [listed.stamps[i] for i in chosen]
    return Listed(files, stamps, listed.failures, [listed.targets[i] for i in chosen])


def evaluation_in(out: str, parts: int, num_classes: int) -> Evaluation:
    """What the parts below OUT amount to: the numbers of one machine to the last digit. Raises DataError."""
    return evaluation_of((judged_in(out, store.part_name(i)) for i in range(parts)), num_classes)


def judged_in(out: str, name: str) -> Judged:
    table = store.read(out, name, ("class", "predicted", "log_probability", "in_top5"))
    return Judged(*(column.to_numpy() for column in table.columns))
