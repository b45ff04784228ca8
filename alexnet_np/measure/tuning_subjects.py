"""What `tune` times: a piece of work whose time a choice changes; and how the fastest choice for it is found.

The choices are changed one by one, first who computes it, then the sizes that the winner reads; each is timed in turn
with the best so far, and stays where it is at least GAIN faster. One that is not ahead after two turns is not timed
further. Of so many candidates one is ahead by chance now and then: what was found is timed once more, for longer, in
turn with what was chosen before, and kept where it is GAIN faster again.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from alexnet_np.kernels import choices as table
from alexnet_np.kernels.choices import Row
from alexnet_np.kernels.problems import MANY, Problem

GAIN = 0.03  # faster by less is chance
TURNS = 7  # timings of each of two candidates; the medians are compared, and the least
AGAIN = 13  # the same, of what was found
BEHIND = 0.15  # slower by so much in the first turn has lost; not ahead after the second, too
LEAST = 3e-3  # seconds of a timing: what takes less is run again and again
BATCHES = {1: (1, 1), 8: (2, 16), 32: (17, 64), 128: (65, MANY)}  # what is timed -> the batches that it speaks for

TRIED: dict[str, tuple[int, ...]] = {  # of every size in choices.py
    "block_tiles": (24, 32, 60, 108),
    "gradient_tiles": (100, 192, 400),
    "stage_bytes": (6 << 20, 12 << 20, 24 << 20),
    "chunk_bytes": (3 << 20, 6 << 20, 12 << 20),
    "column_bytes": (1 << 19, 2 << 20, 8 << 20, 32 << 20),
    "block_k": (256, 512, 1024, MANY),
    "block_panels": (4, 8, 16),
    "chunk": (1 << 12, 1 << 14, 1 << 16, 1 << 18),
    "positions": (64, 128, 256),
    "run": (8, 16, 32),
    "images": (1, 2, 4),
    "tile": (64, 128),
}

Candidate = Callable[[], float]  # seconds that it takes
Says = dict[str, Any]  # of a row: an algorithm with its tiles, or a size


class Subject(NamedTuple):
    """`problem`: as whoever computes it asks; `where`: of the rows that are kept, so whom else it speaks for."""

    name: str
    problem: Problem
    where: Says
    build: Callable[[], Callable[[], Any]]  # what to time, made and run by the choices then in force
    ways: tuple[str, ...] | None = None  # to be tried; None: every one that can compute it
    sizes: Mapping[str, tuple[str, ...]] = {}  # that a way reads; of "" whichever way it is
    clock: Callable[[Callable[[], Any]], float] | None = None  # seconds of a call, where it is not the wall's

    def row(self, says: Says, **facts: Any) -> Row:
        """Where `facts` are left out, a row for everything of the op: while one piece of work is timed, that is it."""
        if "gradient_tiles" in says:
            facts["direction"] = "backward"
        return Row(op=self.problem.op, device=self.problem.device, **{**facts, **says})

    def is_of(self, row: Row) -> bool:
        """Whether a row was kept of this subject."""
        here = (self.problem.op, self.problem.device) == (row.op, row.device)
        return here and row.where in (self.where, self.where | {"direction": "backward"})


class Late(Exception):
    """Time is up."""


class Contest:
    """The best choices so far for one subject; `end`: of the time, by time.monotonic()."""

    def __init__(self, subject: Subject, end: float) -> None:
        self.subject, self.end = subject, end
        self.found: dict[str, tuple[Says, float]] = {}  # by "way", or a size's name
        self.best: Candidate | None = None

    def rows(self) -> list[Row]:
        """What was found, as it is to be kept. Raises Late where the time is not enough to try everything."""
        shipped = self.best = self._built({})
        for says in self._ways():
            self._try("way", says)
        way = self._choice().algorithm
        for name in (*self.subject.sizes.get("", ()), *self.subject.sizes.get(way, ())):
            now = self._choice().sizes.get(name)
            for value in TRIED[name]:
                if value != now:
                    self._try(name, {name: value})
        if self.found and gain_of(shipped, self.best, self.end, AGAIN) < GAIN:
            self.found.clear()
        where, name = self.subject.where, self.subject.name
        made = ((says, f"measured: {gain:.0%} less for {name}") for says, gain in self.found.values())
        return [self.subject.row(says, **where, why=why) for says, why in made]

    def _ways(self) -> Iterator[Says]:
        now = str(self._choice())
        for way in table.ways(self.subject.problem):
            asked = self.subject.ways is None or way.algorithm in self.subject.ways
            if asked and str(way) != now:
                yield {"algorithm": way.algorithm} | ({"tiles": (way.m,)} if way.m else {})

    def _choice(self) -> table.Choice:
        with self._choosing({}):
            return table.choose(self.subject.problem)

    def _try(self, kind: str, says: Says) -> None:
        assert self.best is not None
        other = self._built(says)
        gain = gain_of(self.best, other, self.end)
        if gain > GAIN:
            self.found[kind], self.best = (says, gain), other

    @contextmanager
    def _choosing(self, says: Says) -> Iterator[None]:
        """Inside, what was found counts, and before it what `says` says."""
        found = [given for given, _ in self.found.values()]
        with table.overriding(*(self.subject.row(given) for given in (says, *found) if given)):
            yield

    def _built(self, says: Says) -> Candidate:
        with self._choosing(says):
            run, rows = self.subject.build(), table.in_force()

        def chosen() -> Any:
            with table.overriding(*rows):
                return run()

        return often(chosen, self.subject.clock or wall)


def gain_of(best: Candidate, other: Candidate, end: float, turns: int = TURNS) -> float:
    """How much less time `other` takes, as a share: of the medians or of the least, whichever is less. Raises Late."""
    times: tuple[list[float], list[float]] = ([], [])
    gain = 0.0
    for turn in range(turns):
        for candidate, spent in zip((best, other), times, strict=True):
            if time.monotonic() > end:
                raise Late
            spent.append(candidate())
        gain = min(1 - of(times[1]) / of(times[0]) for of in (statistics.median, min))
        if min(times[1]) >= min(times[0]) * (1 if turn else 1 + BEHIND):
            break
    return gain  # on a busy machine one of the two is soon off by chance


def often(run: Callable[[], Any], clock: Callable[[Callable[[], Any]], float]) -> Callable[[], float]:
    """Seconds of one `run`, of several where one is too short to be timed; warmed up."""
    run()
    count = max(1, math.ceil(LEAST / max(clock(run), 1e-7)))

    def several() -> None:
        for _ in range(count):
            run()

    return lambda: clock(several) / count


def wall(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin
