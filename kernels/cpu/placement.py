"""Which core a thread wakes on: another one than that of whoever wakes it.

Linux puts a thread that is woken on an idle core, and where it finds none, on its waker's own, behind the one who works
there, until it balances its cores some milliseconds later. In a virtual machine it finds none: a core that has halted
counts as taken away by the host (vcpu_is_preempted). So whoever wakes others forbids them its own core first, and when
their work is done allows them again whatever it was before.

Elsewhere than on Linux nothing happens. Measured (EPYC Zen 4, two cores of a virtual machine, an image after a pause of
0.25 s): the second thread came 1.5 to 2.1 ms late in the median, now it waits when the work begins; 16.1 ms an image
became 11.2. In Python, for compiled into the team's kernels it made the first start 1.4 s longer.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress

get_core = getattr(ctypes.CDLL(None), "sched_getcpu", None) if sys.platform == "linux" else None


class Placement:
    """Of the threads of one team, by their native ids."""

    def __init__(self) -> None:
        self.before: dict[int, set[int]] = {}  # the cores of those that may not be on all of them now
        self.turn = threading.Lock()

    def keep_off(self, threads: Iterable[int]) -> None:
        """Those that sleep will not wake on the core of the caller. One that has no other is left alone."""
        if get_core is None:
            return
        with self.turn:
            here = get_core()
            for thread in threads:
                with suppress(OSError):  # it has ended, or a container forbids it
                    cores = self.before.get(thread) or os.sched_getaffinity(thread)
                    if others := cores - {here}:
                        os.sched_setaffinity(thread, others)
                        self.before[thread] = cores

    def allow(self) -> None:
        """They may go again wherever they might before."""
        if not self.before:  # as a rule: nobody slept
            return
        with self.turn:
            for thread, cores in self.before.items():
                with suppress(OSError):
                    os.sched_setaffinity(thread, cores)
            self.before.clear()
