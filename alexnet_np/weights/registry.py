"""Published weights: where they are, how to know them, and how they come onto this machine.

A file is looked for in our own cache ($ALEXNET_NP_HOME, by default alexnet-np in $XDG_CACHE_HOME or ~/.cache), then in
torch.hub's ($TORCH_HOME/hub/checkpoints, by default torch/hub/checkpoints in the same). It counts as the published
one when its size and its SHA-256 are those below.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from alexnet_np.backend import one_line
from alexnet_np.errors import MissingPackageError, WeightsError
from alexnet_np.weights import read
from alexnet_np.weights.files import replacing

TIMEOUT = 30.0  # seconds without a byte before a download is given up
CHUNK = 1 << 20


class Entry(NamedTuple):
    """One published weight file."""

    file: str
    url: str
    size: int  # bytes
    sha256: str
    format: str
    preset: str
    num_classes: int
    top1: float  # per cent of ImageNet's validation images, one centre crop of 224
    top5: float
    source: str  # of the accuracies


ENTRIES = {
    "IMAGENET1K_V1": Entry(
        file="alexnet-owt-7be5be79.pth",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        size=244_408_911,
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        format="torch zip",
        preset="torchvision",
        num_classes=1000,
        top1=56.522,
        top5=79.066,
        source="torchvision's documentation of AlexNet_Weights.IMAGENET1K_V1",
    ),
}
ALIASES = {"DEFAULT": "IMAGENET1K_V1"}  # as torchvision has it


def names() -> list[str]:
    return [*ENTRIES, *ALIASES]


def entry(name: str) -> Entry:
    """The registry's entry. Raises WeightsError naming the choices."""
    try:
        return ENTRIES[ALIASES.get(name, name)]
    except KeyError:
        raise WeightsError(f"no published weights are called {name!r}: choose one of {', '.join(names())}") from None


def load(weights: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The weights of a registry name, downloaded if need be, or of a file. Raises WeightsError."""
    if isinstance(weights, str) and weights in names():
        return read(find(weights) or download(weights))
    if not Path(weights).exists():
        raise WeightsError(
            f"{os.fspath(weights)}: neither a file nor one of the published weights {', '.join(names())}"
        )
    return read(weights)


def find(name: str) -> Path | None:
    """The published file if it is on this machine, whole and unchanged. Never downloads. Raises WeightsError."""
    wanted = entry(name)
    return next((path for path in places(wanted) if why_not(path, wanted) is None), None)


def places(wanted: Entry) -> list[Path]:
    """Where the file may be; the first is where `download` puts it."""
    return [cache() / wanted.file, torch_hub() / wanted.file]


def cache() -> Path:
    home = os.environ.get("ALEXNET_NP_HOME")
    return Path(home).expanduser() if home else _user_cache() / "alexnet-np"


def torch_hub() -> Path:
    home = os.environ.get("TORCH_HOME")
    return (Path(home).expanduser() if home else _user_cache() / "torch") / "hub" / "checkpoints"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def why_not(path: Path, wanted: Entry) -> str | None:
    """Why `path` is not the published file; None if it is.

    Hashing takes as long as several readings, so a file that was found right is remembered in our cache by its place,
    size and times. Whatever changes the file changes its times, and it is hashed again.
    """
    try:
        status = path.stat()
        if status.st_size != wanted.size:
            return f"{path} has {status.st_size} bytes instead of {wanted.size}"
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
        seen = f"{wanted.sha256} {path.resolve()} {status.st_dev} {status.st_ino} {times}"
        mark = cache() / f"{wanted.file}.verified"
        if mark.is_file() and mark.read_text(errors="replace") == seen:
            return None
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{path}: {error.strerror}"
    if found != wanted.sha256:
        return f"{path} has SHA-256 {found} instead of {wanted.sha256}"
    with suppress(OSError):  # a cache that cannot be written to only costs the hashing next time
        mark.parent.mkdir(parents=True, exist_ok=True)
        with replacing(mark) as temporary:
            temporary.write_text(seen)
    return None


def download(name: str, progress: bool = True) -> Path:
    """Fetch published weights into our cache and return their path. Raises WeightsError; then the cache is as it was.

    The file takes its name only when it is whole: size and SHA-256 checked, and flushed to the disk.
    """
    from http.client import HTTPException

    wanted = entry(name)
    target = places(wanted)[0]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary, temporary.open("xb") as file, _progress_bar(wanted, progress) as advance:
            _fetch(wanted, file, advance)
    except (OSError, HTTPException) as error:
        found = [fault for path in places(wanted) if path.exists() and (fault := why_not(path, wanted))]
        raise WeightsError(
            f"{name}: cannot download {wanted.url}: {one_line(error)}; fetch {wanted.file} ({wanted.size} bytes) by "
            f"other means and put it at {target}{''.join(f' ({fault})' for fault in found)}"
        ) from error
    return target


def _fetch(wanted: Entry, file: BinaryIO, advance: Callable[[int], None]) -> None:
    from urllib.request import Request, urlopen  # only now: it takes longer to import than all the rest

    digest, received = hashlib.sha256(), 0
    with urlopen(Request(wanted.url, headers={"User-Agent": "alexnet-np"}), timeout=TIMEOUT) as response:
        while received <= wanted.size and (part := response.read(CHUNK)):
            file.write(part)
            digest.update(part)
            received += len(part)
            advance(len(part))
    if received != wanted.size:
        raise WeightsError(f"it sent {'more than' if received > wanted.size else received} of {wanted.size} bytes")
    if digest.hexdigest() != wanted.sha256:
        raise WeightsError(f"what it sent has SHA-256 {digest.hexdigest()} instead of {wanted.sha256}")


@contextmanager
def _progress_bar(wanted: Entry, shown: bool) -> Iterator[Callable[[int], None]]:
    """Gives the function to call with every number of bytes received."""
    if not shown:
        yield lambda received: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
    except ImportError:
        raise MissingPackageError(
            "the progress bar needs the package rich: pip install rich, or progress=False"
        ) from None
    columns = "{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(wanted.file, total=wanted.size)
        yield lambda received: bar.advance(task, received)
