"""A folder of images in ImageNet's layout, root/class/image, and its optional cache of decoded pixels."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.data import checked
from alexnet_np.data.background import batches_in_background
from alexnet_np.data.loading import sorted_files
from alexnet_np.data.preprocess import read_pixels
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.errors import AlexNetError, DataError, ImageError, one_line
from alexnet_np.files import replacing
from alexnet_np.text import counted

Progress = Callable[[int, int], None]  # images done, images in all

MOST_LISTED = 20  # pictures that are named one by one
CACHE_BATCH = 64  # images decoded and written at a time: 12 MB at 256x256


class ImageFolder:
    """The images below root/class/, each class a folder; classes and files in sorted order.

    An image is decoded to what augmentations start from: resized as the network's `recipe` says, and the central square
    of that (not of its crop), uint8, as in Krizhevsky et al. 2012, sec. 2.
    `classes`: the classes to expect, in their order, where another set (the training set) has decided them.
    Every image is looked into first, unless that was done before (checked.py): those that cannot be read (damaged,
    animated, larger than Pillow's guard) stand in `skipped` with the reason, or are refused if `strict`; files that are
    no images by their names are `left_out`.
    `cache`: a folder for the decoded pixels, written once (196,608 bytes an image at 256x256) and from then on mapped
    into memory; written anew when the list of files, or any file's size or time, has changed. `progress` is called
    meanwhile.
    Raises DataError, naming the folder; ImageError, naming the file.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        recipe: Preprocessing,
        *,
        classes: Sequence[str] | None = None,
        cache: str | os.PathLike | None = None,
        workers: int = 2,
        progress: Progress | None = None,
        strict: bool = False,
    ) -> None:
        self.recipe = recipe._replace(crop=recipe.resize)
        self.classes, files, targets, self.left_out = list_classes(Path(root), classes)
        faults = checked.faults(Path(root), files, workers)
        self.skipped = [str(fault) for fault in faults if fault is not None]
        if strict and self.skipped:
            raise ImageError(f"{self.skipped[0]}{f'; and {len(self.skipped) - 1} more' if self.skipped[1:] else ''}")
        good = [i for i, fault in enumerate(faults) if fault is None]
        self.files, self.targets = [files[i] for i in good], np.array([targets[i] for i in good], np.int64)
        for target in sorted(set(targets) - set(self.targets.tolist())):
            raise DataError(
                f"{Path(root) / self.classes[target]}: no image of this class can be read: {self.skipped[0]}"
            )
        self._cached = None if cache is None else self._open_cache(Path(root), Path(cache), workers, progress)

    def pixels(self, index: int) -> np.ndarray:
        if self._cached is not None:
            return self._cached[index]
        return read_pixels(self.files[index], self.recipe)

    def _open_cache(self, root: Path, folder: Path, workers: int, progress: Progress | None) -> np.ndarray:
        data, note = folder / "pixels.npy", folder / "index.json"
        try:
            stats = [Path(file).stat() for file in self.files]
            entries = [
                [str(Path(file).relative_to(root)), stat.st_size, stat.st_mtime_ns]
                for file, stat in zip(self.files, stats, strict=True)
            ]
            index = {
                "side": self.recipe.crop,
                "mode": self.recipe.mode,
                "warp": self.recipe.warp,
                "clip": self.recipe.like_torchvision,
                "resizing": self.recipe.resizing,
                "jpeg": self.recipe.jpeg,
                "files": entries,
            }
            if not _matches(note, index):
                folder.mkdir(parents=True, exist_ok=True)
                note.unlink(missing_ok=True)  # first, so that a crash below cannot leave it beside other pixels
                self._write_pixels(data, workers, progress)
                with replacing(note) as temporary:
                    temporary.write_text(json.dumps(index), encoding="utf-8")
            return np.load(data, mmap_mode="r")
        except AlexNetError:
            raise
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: an unusable cache: {one_line(error)}; delete it, or go without") from error

    def _write_pixels(self, path: Path, workers: int, progress: Progress | None) -> None:
        """Ordinary writes rather than through a memory map, where a full disk would kill the process."""
        side, channels = self.recipe.crop, self.recipe.channels
        batches = [self.files[i : i + CACHE_BATCH] for i in range(0, len(self.files), CACHE_BATCH)]

        def fill(files: Sequence[str], rows: np.ndarray) -> tuple:
            for file, row in zip(files, rows, strict=True):
                row[...] = read_pixels(file, self.recipe)
            return ()

        def allocate(size: int) -> np.ndarray:
            return np.empty((size, side, side, channels), np.uint8)

        done, header = 0, {"descr": "|u1", "fortran_order": False, "shape": (len(self.files), side, side, channels)}
        with replacing(path) as temporary, temporary.open("wb") as out:
            np.lib.format.write_array_header_1_0(out, header)
            with closing(batches_in_background(batches, allocate, fill, workers)) as made:
                for files, pixels, _ in made:
                    out.write(pixels.data)
                    done += len(files)
                    if progress is not None:
                        progress(done, len(self.files))

    def notices(self) -> list[str]:
        """What was left out, in words."""
        listed = [f"left out: {fault}" for fault in self.skipped[:MOST_LISTED]]
        if len(self.skipped) > MOST_LISTED:
            listed.append(f"left out: {len(self.skipped) - MOST_LISTED} more pictures that cannot be read")
        if self.left_out:
            listed.append(
                f"left out: {counted(len(self.left_out), 'file')}, no picture by name: {self.left_out[0]} first"
            )
        return listed


def list_classes(root: Path, classes: Sequence[str] | None) -> tuple[list[str], list[str], list[int], list[str]]:
    """The classes below `root`, their files, each file's class, and the files that are no images.

    An unknown class and an empty one are refused.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    found = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise DataError(f"{root}: holds no class folders; images are expected as {root / 'CLASS' / 'IMAGE'}")
    classes = found if classes is None else list(classes)
    files: list[str] = []
    targets: list[int] = []
    left_out = [str(path) for path in sorted(root.iterdir()) if path.is_file() and not path.name.startswith(".")]
    for name in found:
        if name not in classes:
            raise DataError(f"{root / name}: not one of the {len(classes)} classes expected: {', '.join(classes[:9])}")
        inside, others = sorted_files(root / name)
        left_out += others
        if not inside:
            raise DataError(f"{root / name}: no images for this class; add some or remove the folder")
        files += inside
        targets += [classes.index(name)] * len(inside)
    return classes, files, targets, left_out


def _matches(note: Path, index: dict[str, Any]) -> bool:
    try:
        return json.loads(note.read_text(encoding="utf-8")) == index
    except (OSError, ValueError):
        return False
