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
from alexnet_np.training.parallel.group import MOST_PATIENCE, Group

SILENT = 75  # exit code: EX_TEMPFAIL, try again later
PATIENCE = 2.0  # seconds that rank 1 waits before it says what rank 0 may be saying already; rank 2 twice as long
BEGINNING = 3600.0  # seconds that a large data set may take to be looked through before anything happens


@contextmanager
def together(group: Group) -> Iterator[None]:
    """Inside the `with`, an error of ours, of the system or of the keyboard is said in one line and ends every process.

    An error that all have alike (a misspelt file) is said by rank 0 alone, because the others wait a moment.
    """
    if group.size == 1:
        yield
        return
    try:
        yield
    except Stopped:  # all agreed on it
        raise
    except (AlexNetError, OSError, MemoryError) as error:
        time.sleep(patience(group))
        say(group, one_line(error))
        group.end(1)
    except KeyboardInterrupt:  # the second one: the first only asks
        time.sleep(patience(group))
        say(group, "interrupted before it could save")
        group.end(130)
    except Exception as error:  # a fault of ours: whole, for whoever will mend it
        traceback.print_exc()
        say(group, f"{type(error).__name__}: {one_line(error)}; this should not happen, and ends all processes")
        group.end(1)


def say(group: Group, what: str) -> None:
    """In one line on standard error."""
    print(f"alexnet: rank {group.rank} of {group.size}: {what}", file=sys.stderr, flush=True)


def patience(group: Group) -> float:
    """Seconds that this process lets those of lower rank speak first."""
    return min(PATIENCE * group.rank, MOST_PATIENCE)


class Watchdog:
    """Ends every process where no step has ended for `timeout` seconds. A listener of a Trainer, and a `with`.

    Before the first event an hour is allowed.
    """

    def __init__(self, group: Group, timeout: float, folder: Path) -> None:
        self.group, self.timeout, self.folder = group, timeout, folder
        self.step, self._beat, self._limit = 0, time.monotonic(), max(timeout, BEGINNING)
        self._ended = threading.Event()

    def __call__(self, event: Event) -> None:
        self.step, self._beat, self._limit = event.get("step", self.step), time.monotonic(), self.timeout

    def __enter__(self) -> Watchdog:
        if self.group.size > 1:
            threading.Thread(target=self._watch, name="alexnet-watchdog", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self.timeout / 4)):
            limit = self._limit
            if time.monotonic() - self._beat > limit + patience(self.group):
                say(
                    self.group,
                    f"no answer for {limit:g} s in step {self.step + 1}; ended. To go on: "
                    f"alexnet train --resume --out {self.folder}",
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
