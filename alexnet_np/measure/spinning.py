"""A busy machine, made on purpose: everybody's laptop has something else to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from alexnet_np.measure.machine import own_cores


@contextmanager
def spinning(wanted: bool = True) -> Iterator[int]:
    """Inside the `with`, one process a core that computes and never waits, at the usual priority; gives how many."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in own_cores() if wanted]
    try:
        yield len(started)
    finally:
        for process in started:
            process.kill()
            process.wait()
