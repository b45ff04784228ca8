"""A published file comes onto this machine: whole, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet_np.errors import MissingPackageError
from alexnet_np.files import replacing

TIMEOUT = 30.0  # seconds without a byte before a download is given up
CHUNK = 1 << 20


def fetch(url: str, target: Path, size: int, sha256: str, progress: bool = True) -> None:
    """Download `url` to `target`, which takes its name only when it is whole: `size` bytes, `sha256`, on the disk.

    Shows a progress bar if `progress`. Raises OSError, saying what went wrong, and leaves `target` as it was;
    MissingPackageError for a progress bar without rich.
    """
    from http.client import HTTPException  # only now: it takes longer to import than all the rest
    from urllib.request import Request, urlopen

    target.parent.mkdir(parents=True, exist_ok=True)
    digest, received = hashlib.sha256(), 0
    with (
        replacing(target) as temporary,
        temporary.open("xb") as file,
        progress_bar(target.name, size, progress) as advance,
    ):
        try:
            with urlopen(Request(url, headers={"User-Agent": "alexnet-np"}), timeout=TIMEOUT) as response:
                while received <= size and (part := response.read(CHUNK)):
                    file.write(part)
                    digest.update(part)
                    received += len(part)
                    advance(len(part))
        except HTTPException as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        if received != size:
            raise OSError(f"it sent {'more than' if received > size else received} of {size} bytes")
        if digest.hexdigest() != sha256:
            raise OSError(f"what it sent has SHA-256 {digest.hexdigest()} instead of {sha256}")


@contextmanager
def progress_bar(name: str, size: int, shown: bool) -> Iterator[Callable[[int], None]]:
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
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not (console.is_terminal or console.is_jupyter)) as bar:
        task = bar.add_task(name, total=size)
        yield lambda received: bar.advance(task, received)
