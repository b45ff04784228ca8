"""Several processes as one command: what ends one of them ends all, and one that waits for ever says so.

Every MPI that was tried waits for ever when one process leaves by an exception while others are in a call, and one of
them reports success for a process that just left. So: an error is said and ends all; a watchdog ends those who wait for
a process that answers no more; and a run has succeeded when its metrics hold the end record, not by any exit code.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet_np.errors import AlexNetError, one_line
from alexnet_np.threads import VARIABLE, set_num_threads
from alexnet_np.training.interrupt import Stopped
from alexnet_np.training.metrics import Event
from alexnet_np.training.parallel.group import Group

SILENT = 75  # exit code: EX_TEMPFAIL, try again later
PATIENCE = 1.0  # seconds that the other ranks wait before they say what rank 0 may be saying already


@contextmanager
def together(group: Group) -> Iterator[None]:
    """Inside the `with`, an error of ours, of the system or of the keyboard is said in one line and ends every process.

    An error that all have alike (a misspelt option) is said by rank 0 alone, because the others wait a moment.
    """
    if group.size == 1:
        yield
        return
    try:
        yield
    except Stopped:  # all agreed on it
        raise
    except (AlexNetError, OSError, MemoryError, KeyboardInterrupt) as error:
        if group.rank:
            time.sleep(PATIENCE)
        said = one_line(error) or type(error).__name__
        print(f"alexnet: rank {group.rank} of {group.size}: {said}", file=sys.stderr, flush=True)
        group.end(1)
    except Exception:  # a fault of ours: whole, and nobody waits for it
        traceback.print_exc()
        sys.stderr.flush()
        group.end(1)


class Watchdog:
    """Ends every process where no step has ended for `timeout` seconds. A listener of a Trainer, and a `with`."""

    def __init__(self, group: Group, timeout: float, folder: Path) -> None:
        self.group, self.timeout, self.folder = group, timeout, folder
        self.step, self._beat = 0, time.monotonic()
        self._ended = threading.Event()

    def __call__(self, event: Event) -> None:
        self.step, self._beat = event.get("step", self.step), time.monotonic()

    def __enter__(self) -> Watchdog:
        if self.group.size > 1:
            threading.Thread(target=self._watch, name="alexnet-watchdog", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self.timeout / 4)):
            if time.monotonic() - self._beat > self.timeout:
                print(
                    f"alexnet: rank {self.group.rank} of {self.group.size}: no answer for {self.timeout:g} s in step "
                    f"{self.step + 1}; ended. To go on: alexnet train --resume --out {self.folder}",
                    file=sys.stderr,
                    flush=True,
                )
                self.group.end(SILENT)


def share_cores(group: Group) -> None:
    """Divide this machine's cores among the processes on it, where the launcher has not bound each to its own."""
    if group.size == 1 or VARIABLE in os.environ or not hasattr(os, "sched_getaffinity"):
        return
    mine = socket.gethostname(), sorted(os.sched_getaffinity(0))
    alike = group.collect(mine).count(mine)
    if alike > 1:
        set_num_threads(max(1, len(mine[1]) // alike))


def check_alike(group: Group, what: str, value: str) -> None:
    """Raises AlexNetError unless `value` is the same everywhere."""
    everybody = group.collect(value)
    other = next((rank for rank, theirs in enumerate(everybody) if theirs != everybody[0]), None)
    if other is not None:
        raise AlexNetError(
            f"rank {other} has other {what} than rank 0: give every process the same files, versions and processor"
        )
