"""One process a run: a lock on its folder that the system itself drops when the process ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alexnet_np.errors import CheckpointError, one_line


@contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """Hold the run in `folder` (None: there is none to hold) while the block runs.

    Raises CheckpointError where another process holds it, or where no lock can be had. A dead process holds nothing:
    the lock is the system's (flock), not the file `checkpoints/.lock`, which stays.
    """
    if folder is None:
        yield
        return
    path = folder / "checkpoints" / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(blocking=False)
    except Timeout:
        raise CheckpointError(f"{folder}: another process trains here; wait for it, or choose another --out") from None
    except (OSError, NotImplementedError) as error:
        raise CheckpointError(f"{folder}: cannot be locked: {one_line(error)}; choose another --out") from error
    try:
        yield
    finally:
        lock.release()
