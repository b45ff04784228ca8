"""A machine made busy on purpose: one spinning process a core while it lasts, and none afterwards."""

import os
import time

from alexnet_np.measure.machine import PROC, own_cores, process_ticks
from alexnet_np.measure.spinning import spinning


def children() -> set[int]:
    found = set()
    for pid in process_ticks():
        try:
            parent = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == os.getpid():
            found.add(pid)
    return found


def test_one_process_a_core_computes_and_ends():
    before = children()
    with spinning() as count:
        started = children() - before
        assert count == len(started) == len(own_cores())
        time.sleep(0.5)
        ticks = process_ticks()
        assert all(ticks[pid][1] > 0 for pid in started), "they compute"
    assert children() == before
    with spinning(False) as count:
        assert count == 0 and children() == before
