"""What every benchmark shares: contenders that take turns.

A work is one computation (an op at one shape, a whole network at one batch) with several contenders. They are verified
first, warmed up (compilation is not timed), then run in turn, round after round, so that a slow moment of the machine
hits all of them alike. Ratios of medians are what to read; seconds are only this machine's.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from alexnet_np.measure.machine import timed
from alexnet_np.measure.report import Row

SETTLE = 0.25  # seconds between turns: thread pools spin on after their work (OpenBLAS 0.1 s), on the next one's cores
FLUSH_BYTES = 64 << 20  # more than the last-level cache of most machines


class Clock(Protocol):
    """Times a call, and sets the stage for it."""

    def rest(self) -> None:
        """Before every turn: nobody else's work is still under way."""

    def clear(self) -> None:
        """Leave nothing of the contenders' in the caches."""

    def seconds(self, run: Callable[[], Any]) -> float: ...


class WallClock:
    """A call on the CPU."""

    def __init__(self) -> None:
        self.flush = np.zeros(0, np.uint8)

    def rest(self) -> None:
        time.sleep(SETTLE)

    def clear(self) -> None:
        if not self.flush.size:
            self.flush = np.zeros(FLUSH_BYTES, np.uint8)
        self.flush += 1

    def seconds(self, run: Callable[[], Any]) -> float:
        return timed(run)


@dataclass
class Contender:
    """One way to do the work: a callable, or the reason why it is missing here."""

    name: str
    run: Callable[[], Any] | None
    missing: str = ""
    peak: str = "gflops"  # which of the report's peaks bounds its arithmetic
    reduced: bool = False  # in fewer bits than float32: no ratio is of its time
    check: Callable[[Any], None] | None = None  # instead of the work's


@dataclass
class Work:
    """One computation, what it costs in the plain (direct) algorithm, and who does it."""

    name: str
    flops: float
    bytes: float
    contenders: list[Contender]
    check: Callable[[Any], None] | None = None  # raises AssertionError for a wrong result
    clock: Clock = field(default_factory=WallClock)
    summary: Callable[[list[Row]], list[str]] = lambda rows: []  # what its rows say together, in lines
    error: Callable[[Any], float] | None = None  # of a result, relative to float64 (L2)
    images: int = 0  # that a turn takes


Run = tuple[Callable[[], Any] | None, str]  # a callable, or None and why it is missing


def attempt(make: Callable[[], Run]) -> Run:
    """A contender that is not installed, or does not start here, is named with the reason rather than left out."""
    try:
        return make()
    except Exception as error:
        return None, " ".join(str(error).split())[:100]


def measure(
    work: Work,
    peaks: dict[str, float],
    peers: Iterable[str] = (),
    rounds: int = 11,
    cold: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Verify, warm up, then time every contender in turn. `cold` clears the caches before each run."""
    present = [c for c in work.contenders if c.run is not None]
    errors: dict[str, float] = {}
    for contender in present:
        progress(f"{work.name}: {contender.name}, verify and warm up")
        assert contender.run is not None
        for _ in range(2):
            result = contender.run()
        check = contender.check or work.check
        if check is not None:
            check(result)
        if work.error is not None:
            errors[contender.name] = work.error(result)
    seconds: dict[str, list[float]] = {c.name: [] for c in present}
    for i in range(rounds):
        progress(f"{work.name}: round {i + 1} of {rounds}")
        for contender in random.Random(i).sample(present, len(present)):  # nobody always follows the same one
            work.clock.rest()
            if cold:
                work.clock.clear()
            assert contender.run is not None
            seconds[contender.name].append(work.clock.seconds(contender.run))
    rows = [_row(work, c, seconds[c.name], peaks) for c in present]
    for row in rows:
        row.error = errors.get(row.contender)
    rows += [Row(work.name, c.name, c.missing, reduced=c.reduced) for c in work.contenders if c.run is None]
    compared = [row.median for row in rows if row.contender in set(peers) and not (row.missing or row.reduced)]
    fastest = min(compared, default=0.0)
    for row in rows:
        row.ratio = fastest / row.median if row.median else 0.0
    return rows


def relative_error(found: np.ndarray, truth: np.ndarray) -> float:
    """||found - truth|| / ||truth|| (L2)."""
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def _row(work: Work, contender: Contender, values: list[float], peaks: dict[str, float]) -> Row:
    median = statistics.median(values)
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [median] * 3
    gflops, gbps = work.flops / median / 1e9, work.bytes / median / 1e9
    spread = (quartiles[2] - quartiles[0]) / median
    row = Row(work.name, contender.name, "", median, min(values), spread, gflops, gbps, peak=contender.peak)
    row.reduced, row.images = contender.reduced, work.images
    row.peak_share = row.share_of(peaks)
    return row
