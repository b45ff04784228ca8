"""A team of threads that takes the blocks of a program: steps one after another, each of blocks in any order.

Numba's own parallel loops cut the work in one part a thread and wait for every thread at the end of each loop. On a
machine that does something else too, one that has lost its core makes all of them wait, at every step. Here

1. blocks are taken from one number, a few at a time and fewer towards the end of a step;
2. who finishes the last block of a step begins the next one: no thread leads, and none is waited for but those that are
   in the middle of a block; one that comes late finds the work further on, or done;
3. who finds nothing to take spins shortly, then sleeps, and leaves its core to others; it wakes on another core than
   that of whoever calls (placement.py).

Which blocks there are does not depend on the threads, and every block writes what is its own. So results have the same
bits whoever takes what. A kernel (jit.py) is a program of one step; a plan (plan/) records all of its own.

Source: guided blocks: Polychronopoulos and Kuck, "Guided Self-Scheduling" (1987).
"""

from __future__ import annotations

import atexit
import os
import threading

import numpy as np

from alexnet_np.device import Array
from alexnet_np.errors import BackendError
from alexnet_np.kernels.cpu.atomics import add, call, load, pause, replace, sleep_while, store, wake
from alexnet_np.kernels.cpu.jit import kernel
from alexnet_np.kernels.cpu.placement import Placement

# Where a team's numbers lie, those that are written at different times on cache lines of their own.
STATE = 0  # what is to be taken: the step's number, how many threads may take, how many blocks are left
DONE = 8  # blocks of the step that are finished
BELL = 16  # changes whenever STATE becomes another step
SLEEPERS = 24
STOP = 32
FAILED = 40
FIRST, END = 48, 49  # the number of the program's first step, and of the one after its last
STEPS = 56  # three words each: function, closure, blocks

LEFT_BITS, ACTIVE_BITS = 24, 8
LEFT, ACTIVE, NUMBERS = 2**LEFT_BITS - 1, 2**ACTIVE_BITS - 1, 2**31 - 1
SHIFT = LEFT_BITS + ACTIVE_BITS

WORDS = 3
MOST_STEPS = 1024  # of a program that runs at once
SHARES = 4  # a thread takes what is left, divided by the threads and by this
SPINS = 30000  # looks before a thread sleeps, a millisecond: what lies between two kernels in Python is shorter


@kernel
def words(number, active, left):
    return number << SHIFT | active << LEFT_BITS | left


@kernel
def take(team, worker):
    """STATE as it was, and how many blocks are now this thread's: none where there is nothing for it."""
    while True:
        now = load(team, STATE)
        left, active = now & LEFT, now >> LEFT_BITS & ACTIVE
        if left == 0 or worker >= active:
            return now, 0
        count = max(1, left // (SHARES * active))
        if replace(team, STATE, now, now - count):
            return now, count


@kernel
def compute(team, worker, taken, count):
    """The blocks that were taken; the next step, if they were the last of theirs."""
    number, left = taken >> SHIFT, taken & LEFT
    at = STEPS + WORDS * ((number - team[FIRST]) & NUMBERS)
    blocks = team[at + 2]
    if call(team[at], team[at + 1], blocks - left, count, worker) != 0:
        store(team, FAILED, 1)
    if add(team, DONE, count) + count == blocks:
        begin(team, number + 1 & NUMBERS, taken >> LEFT_BITS & ACTIVE)


@kernel
def begin(team, number, active):
    """The step `number`, or none after the last."""
    store(team, DONE, 0)
    over = number == team[END]
    left = 0 if over else team[STEPS + WORDS * ((number - team[FIRST]) & NUMBERS) + 2]
    store(team, STATE, words(number, active, left))
    add(team, BELL, 1)
    if load(team, SLEEPERS) > 0:
        wake(team, BELL)


@kernel
def wait(team, seen, spins):
    """Until STATE is of another step than in `seen`, or the team stops."""
    number = seen >> SHIFT
    for _ in range(spins):
        pause()
        if load(team, STATE) >> SHIFT != number:
            return
    add(team, SLEEPERS, 1)
    bell = load(team, BELL)
    if load(team, STATE) >> SHIFT == number and load(team, STOP) == 0:
        sleep_while(team, BELL, bell)
    add(team, SLEEPERS, -1)


@kernel
def serve(team, worker, spins):
    """What a thread of the team does until it stops."""
    while load(team, STOP) == 0:
        taken, count = take(team, worker)
        if count > 0:
            compute(team, worker, taken, count)
        else:
            wait(team, taken, spins)


@kernel
def lead(team, steps, active, spins):
    """Run the steps (count, WORDS), with the team; whether all went well."""
    first = (load(team, STATE) >> SHIFT) + 1 & NUMBERS
    for i in range(len(steps)):
        for k in range(WORDS):
            team[STEPS + WORDS * i + k] = steps[i, k]
    team[FIRST], team[END] = first, first + len(steps) & NUMBERS
    store(team, FAILED, 0)
    begin(team, first, active)
    while True:
        taken, count = take(team, 0)
        if count > 0:
            compute(team, 0, taken, count)
        elif taken >> SHIFT == team[END]:
            return load(team, FAILED) == 0
        else:
            wait(team, taken, spins)


@kernel
def alone(steps):
    """Run the steps in this thread; whether all went well."""
    failed = 0
    for i in range(len(steps)):
        failed |= call(steps[i, 0], steps[i, 1], 0, steps[i, 2], 0)
    return failed == 0


class Team:
    """The threads of this process beside the one that calls."""

    def __init__(self) -> None:
        self.numbers = np.zeros(STEPS + WORDS * MOST_STEPS, np.int64)
        self.turn = threading.Lock()  # one program at a time
        self.helpers: list[threading.Thread] = []
        self.placement = Placement()

    def start(self, active: int) -> None:
        if not self.helpers:
            alone(np.empty((0, WORDS), np.int64))  # compiled now: who finds the team busy needs it, which is chance
        for worker in range(len(self.helpers) + 1, active):
            name = f"alexnet-np-{worker}"
            helper = threading.Thread(target=serve, args=(self.numbers, worker, SPINS), name=name, daemon=True)
            helper.start()
            self.helpers.append(helper)

    def keep_off(self) -> bool:
        """Whether some sleep; then they will wake elsewhere than here."""
        sleep = bool(self.numbers[SLEEPERS] > 0)
        if sleep:
            self.placement.keep_off(helper.native_id for helper in self.helpers if helper.native_id is not None)
        return sleep

    def stop(self) -> None:
        """So that no thread runs compiled code that the end of the process takes away."""
        self.numbers[STOP] = 1
        while any(helper.is_alive() for helper in self.helpers):
            ring(self.numbers)
            for helper in self.helpers:
                helper.join(0.01)


@kernel
def ring(team):
    add(team, BELL, 1)
    wake(team, BELL)


_team = Team()


def _anew() -> None:
    """A forked child has none of the threads."""
    global _team
    _team = Team()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_anew)
atexit.register(lambda: _team.stop())


def rouse(active: int) -> None:
    """Wake the threads that a program of `active` will want in a moment: a core that has halted takes its time.

    Meanwhile the caller prepares what they are to do; those that find nothing spin a while, and sleep again.
    """
    if active > 1 and _team.keep_off():
        ring(_team.numbers)


def run(steps: Array, active: int) -> None:
    """Run steps (count, WORDS) by `active` threads; by this one where the team has other work, or this is little.

    Raises BackendError where a block failed, which is when there was no memory.
    """
    team = _team
    few = active == 1 or (len(steps) == 1 and steps[0, 2] == 1)
    if few or not team.turn.acquire(blocking=False):
        well = alone(steps)
    else:
        try:
            team.start(min(active, ACTIVE))
            team.keep_off()
            parts = (steps[at : at + MOST_STEPS] for at in range(0, len(steps), MOST_STEPS))
            well = all(lead(team.numbers, part, min(active, ACTIVE), SPINS) for part in parts)
        finally:
            team.placement.allow()
            team.turn.release()
    if not well:
        raise BackendError("a kernel failed: is there memory left?")
