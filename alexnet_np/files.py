"""Files that appear under their name only when they are whole, and the folder for those that can be made again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from alexnet_np.errors import ArgumentError, DataError, one_line

DRAWN = {".png": "png", ".svg": "svg", ".pdf": "pdf", ".jpg": "jpeg", ".jpeg": "jpeg"}  # by Matplotlib
PAINTED = {ending: name for ending, name in DRAWN.items() if name != "svg"}  # by Pillow, which knows only pixels


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


def picture_format(out: Path, known: Mapping[str, str] = DRAWN) -> str:
    """The format that the ending of `out` names: to be asked before the work begins. Raises ArgumentError."""
    if out.suffix.lower() not in known:
        raise ArgumentError(f"{out}: a picture is written as {', '.join(known)}, by the ending of its name")
    if not out.parent.is_dir():
        raise ArgumentError(f"{out}: there is no folder {out.parent}; create it first")
    return known[out.suffix.lower()]


@contextmanager
def picture(out: Path, known: Mapping[str, str] = DRAWN) -> Iterator[tuple[Path, str]]:
    """The temporary file to draw into, as `replacing` gives it, and the format. Raises ArgumentError; DataError."""
    form = picture_format(out, known)
    try:
        with replacing(out) as temporary:
            yield temporary, form
    except OSError as error:
        if isinstance(error, DataError):
            raise
        reason = error.strerror or one_line(error)
        raise DataError(f"{out}: cannot be written: {reason}; name another file") from error


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
