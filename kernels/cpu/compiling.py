"""What is said on standard error while kernels are compiled rather than read from the disk: a silent wait is worse.

On a terminal one line that tells which kernel, gone when it is done; anywhere else, or where other lines move on that
terminal already, one plain line once.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_np.kernels.cpu import code_cache

_lock = threading.RLock()
_names: list[str] = []  # of the kernels being compiled: the last is the one that the others wait for
_line: Any = None  # Rich's, while it stands on the terminal
_said: set[str] = set()


@contextmanager
def compiling(name: str) -> Iterator[None]:
    """Tell about `name` for as long as the block takes."""
    begin(name)
    try:
        yield
    finally:
        end()


def begin(name: str) -> None:
    global _line
    with _lock:
        _names.append(name)
        if len(_names) == 1:
            place, lasts = code_cache.folder()
            if not lasts:
                notice(f"compiling kernels, which {_kept_in(place)}; NUMBA_CACHE_DIR names a folder to keep them in")
            _line = _terminal_line()
            if _line is not None:
                _line.start()
            elif lasts:
                notice("compiling kernels for this machine, once")
        _show(name)


def end() -> None:
    global _line
    with _lock:
        _names.pop()
        if _names:
            _show(_names[-1])
        elif _line is not None:
            _line.stop()
            _line = None


def _show(name: str) -> None:
    if _line is not None:
        from rich.text import Text

        _line.update(Text(f"compiling for this machine, once: {name}", no_wrap=True, overflow="ellipsis"), refresh=True)


def _terminal_line() -> Any:
    """A line of Rich's on the terminal; None where there is none, or where another of its displays moves already."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.file_proxy import FileProxy
    from rich.live import Live

    console = Console(stderr=True)
    if isinstance(sys.stderr, FileProxy) or isinstance(sys.stdout, FileProxy) or console.is_dumb_terminal:
        return None
    return Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)


def _kept_in(place: Path | None) -> str:
    return f"last as long as {place.parent}" if place else "every process does anew"


def notice(line: str) -> None:
    """Say `line` on standard error; no more than once in a process."""
    if line not in _said and sys.stderr is not None:
        _said.add(line)
        print(f"alexnet-np: {line}", flush=True, file=sys.stderr)
