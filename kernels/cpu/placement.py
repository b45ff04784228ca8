"""Which core a thread wakes on: another one than that of whoever wakes it.

Linux puts a thread that is woken on an idle core, and where it finds none, on its waker's own, behind the one who works
there, until it balances its cores some milliseconds later. In a virtual machine it finds none: a core that has halted
counts as taken away by the host (vcpu_is_preempted). So whoever wakes others forbids them its own core first, and who
has woken is allowed again whatever it was before: where it goes from there is the system's affair.

Elsewhere than on Linux nothing happens. Measured (EPYC Zen 4, two cores of a virtual machine, an image after a pause of
0.25 s): the second thread came 1.5 to 2.1 ms late in the median, now it waits when the work begins; 16.1 ms an image
became 11.2.
"""

from __future__ import annotations

import platform
import sys

import numpy as np

from alexnet_np.kernels.cpu.jit import kernel

# What a thread has in the array of its team, in words: its number, whether it sleeps, whether it may not go everywhere,
# the core of whoever looks; a bit for every core that it may be on, and the same without that one.
TID, ASLEEP, LIMITED, HERE = range(4)
MASK = 16  # words of a set of cores: 1024 cores, as the C library has it
FULL, OTHERS = 8, 8 + MASK
ROOM = 8 + 2 * MASK

CALLS = {"x86_64": (186, 203, 204, 309), "aarch64": (178, 122, 123, 168)}
KNOWN = sys.platform == "linux" and platform.machine() in CALLS

if KNOWN:
    from alexnet_np.kernels.cpu.atomics import address, load, pause, replace, store, system

    GETTID, SET_AFFINITY, GET_AFFINITY, GETCPU = CALLS[platform.machine()]

    @kernel
    def lock(team, at):
        while not replace(team, at, 0, 1):
            pause()

    @kernel
    def fall_asleep(team, at):
        """The thread whose words begin at `at` will sleep in a moment."""
        store(team, at + TID, system(GETTID, 0, 0, 0, 0, 0, 0))
        store(team, at + ASLEEP, 1)

    @kernel
    def awake(team, at, guard):
        """It does not sleep any more, and may go everywhere again. `guard`: a word that is 1 while somebody looks."""
        lock(team, guard)
        store(team, at + ASLEEP, 0)
        if load(team, at + LIMITED) == 1:
            system(SET_AFFINITY, 0, 8 * MASK, address(team, at + FULL), 0, 0, 0)
            store(team, at + LIMITED, 0)
        store(team, guard, 0)

    @kernel
    def keep_off(team, first, end, guard):
        """Those who sleep will not wake on this core; their words lie ROOM apart from `first` on."""
        lock(team, guard)
        team[first + HERE] = 0  # the system writes its lower half
        if system(GETCPU, address(team, first + HERE), 0, 0, 0, 0, 0) == 0:
            word, bit = team[first + HERE] // 64, np.int64(1) << (team[first + HERE] & 63)
            for at in range(first, end, ROOM):
                if load(team, at + ASLEEP) == 1 and word < MASK:
                    limit(team, at, word, bit)
        store(team, guard, 0)

    @kernel
    def limit(team, at, word, bit):
        """Take one core from those of a thread that sleeps, unless it has no other."""
        tid = load(team, at + TID)
        if load(team, at + LIMITED) == 0:  # else the system knows less than this array does
            for i in range(MASK):
                team[at + FULL + i] = 0
            if system(GET_AFFINITY, tid, 8 * MASK, address(team, at + FULL), 0, 0, 0) <= 0:
                return
        left = np.int64(0)
        for i in range(MASK):
            cores = team[at + FULL + i]
            team[at + OTHERS + i] = cores & ~bit if i == word else cores
            left |= team[at + OTHERS + i]
        if left != 0 and system(SET_AFFINITY, tid, 8 * MASK, address(team, at + OTHERS), 0, 0, 0) == 0:
            store(team, at + LIMITED, 1)

else:

    @kernel
    def fall_asleep(team, at):
        pass

    @kernel
    def awake(team, at, guard):
        pass

    @kernel
    def keep_off(team, first, end, guard):
        pass
