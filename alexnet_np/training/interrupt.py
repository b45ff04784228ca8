"""Ctrl-C as a request, so that a run stops between two steps and never within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alexnet_np.errors import AlexNetError


class Stopped(AlexNetError):
    """Training was asked to stop, and did, after saving where it was."""


class StopRequest:
    """`asked` becomes true at the first Ctrl-C (or SIGTERM); the second one raises KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self.asked = False

    def handle(self, signum: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM inside the `with`, but where they are ignored. Only the main thread gets signals."""
    request = StopRequest()
    caught = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in caught}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, request.handle)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
