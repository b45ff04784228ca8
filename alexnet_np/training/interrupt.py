"""Ctrl-C, SIGTERM, SIGUSR1 or a file RUN/stop as a request: a run stops between two steps and never within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_np.errors import AlexNetError

# SIGUSR1 is what launchers of many processes hand on, and what a batch system can be told to send before time is up.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Stopped(AlexNetError):
    """Training was asked to stop, and did, after saving where it was."""


class StopRequest:
    """`asked` is true from the first signal on, or when `file` is there; a second Ctrl-C raises KeyboardInterrupt."""

    def __init__(self, file: Path | None = None) -> None:
        self._signalled, self._file = False, file

    @property
    def asked(self) -> bool:
        return self._signalled or (self._file is not None and self._file.exists())

    def obeyed(self) -> None:
        """Take the file away, so that the run can be resumed."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def handle(self, signum: int, frame: Any) -> None:
        if self._signalled and signum in (signal.SIGINT, signal.SIGTERM):
            raise KeyboardInterrupt
        self._signalled = True


@contextmanager
def stop_requests(file: Path | None = None) -> Iterator[StopRequest]:
    """Catch SIGNALS inside the `with`, but where they are ignored. Only the main thread gets signals."""
    request = StopRequest(file)
    caught = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in caught}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, request.handle)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
