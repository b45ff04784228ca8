"""Files that appear under their name only when they are whole, and the folder for those that can be made again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`. What was written there takes the name of `path` when the block ends well.

    It is on the disk before it does, and after an error or an interrupt it is gone.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def package() -> Path:
    """Where this package's own files lie."""
    return Path(__file__).parent


def user_cache() -> Path:
    """$XDG_CACHE_HOME or ~/.cache. Raises RuntimeError for a user without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def own_cache() -> Path:
    """Where this package keeps what it has fetched or made: $ALEXNET_NP_HOME, else alexnet-np in the user's cache.

    Weight files lie in it, data sets in folders of their own. Raises RuntimeError for a user without a home.
    """
    home = os.environ.get("ALEXNET_NP_HOME")
    return Path(home).expanduser() if home else user_cache() / "alexnet-np"
