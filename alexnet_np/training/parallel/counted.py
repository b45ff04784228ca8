"""What a run's steps send from process to process, counted as it is sent, and how long they wait for it.

Counted are the arrays of a step. Left out are a few hundred bytes of it (losses, agreements to stop), and checkpoints.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from alexnet_np.device import Array
from alexnet_np.layers import Shape
from alexnet_np.models import AlexNet
from alexnet_np.training.parallel.group import Group
from alexnet_np.training.parallel.traffic import terms

T = TypeVar("T")


class Counted:
    """A Group as it is, which counts the bytes that this process sends to others, and the seconds that it waits.

    `waited`: in calls that somebody waits for. Sums of gradients are not among them, whose Exchange knows that.
    """

    def __init__(self, group: Group) -> None:
        self.rank, self.size, self.group = group.rank, group.size, group
        self.sent, self.waited = 0, 0.0
        self._lock = threading.Lock()  # an exchange has a thread of its own

    def collect(self, value: Any) -> list[Any]:
        return self._waiting(lambda: self.group.collect(value))

    def share(self, value: Any) -> Any:
        return self._waiting(lambda: self.group.share(value))

    def scatter(self, parts: Array, inbox: Array) -> None:
        self._moving(parts.nbytes // self.size * (self.size - 1), lambda: self.group.scatter(parts, inbox))

    def gather(self, part: Array, whole: Array) -> None:
        self._moving(part.nbytes * (self.size - 1), lambda: self.group.gather(part, whole))

    def gather_uneven(self, part: Array, whole: Array, counts: Sequence[int]) -> None:
        sent = part.nbytes * (self.size - 1)
        self._waiting(lambda: self._moving(sent, lambda: self.group.gather_uneven(part, whole, counts)))

    def scatter_uneven(self, parts: Array, counts: Sequence[int]) -> Array:
        sent = (parts.size - counts[self.rank]) * parts.itemsize
        return self._waiting(lambda: self._moving(sent, lambda: self.group.scatter_uneven(parts, counts)))

    def sum(self, numbers: Array) -> None:
        of_a_ring = 2 * numbers.nbytes // self.size * (self.size - 1)  # the library may send otherwise
        self._moving(of_a_ring, lambda: self.group.sum(numbers))

    def end(self, code: int) -> None:
        self.group.end(code)

    def _moving(self, count: int, call: Callable[[], T]) -> T:
        """A call that sends so many bytes."""
        with self._lock:
            self.sent += count
        return call()

    def _waiting(self, call: Callable[[], T]) -> T:
        begun = time.perf_counter()
        found = call()
        self.waited += time.perf_counter() - begun
        return found


@dataclass
class Traffic:
    """Of some steps of a run, of all processes together. `waited`: the share of their time, the mean process's."""

    processes: int
    steps: int = 0
    bytes: int = 0
    formula: int = 0
    waited: float = 0.0


class Meter:
    """Reads a run's traffic, step by step. `waits`: seconds that the exchange of gradients has been waited for."""

    def __init__(self, group: Counted, model: AlexNet, image: Shape, parallel: str, waits: Callable[[], float]) -> None:
        self.group, self._waits = group, waits
        whole = [sum(term.bytes for term in terms(model, (B, *image), parallel, group.size)) for B in (0, 1)]
        self._fixed, self._each = whole[0], whole[1] - whole[0]
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._now, self._seconds = Traffic(self.group.size), 0.0

    @contextmanager
    def step(self, samples: int) -> Iterator[None]:
        """Around a step for a batch of so many."""
        begun, sent, waited = time.perf_counter(), self.group.sent, self.group.waited + self._waits()
        yield
        now = self._now
        now.steps, now.formula = now.steps + 1, now.formula + self._fixed + samples * self._each
        now.bytes += self.group.sent - sent
        now.waited += self.group.waited + self._waits() - waited
        self._seconds += time.perf_counter() - begun

    def read(self) -> dict[str, Any]:
        """Since it was last read. All processes read it together."""
        mine = (self._now.bytes, self._now.waited / self._seconds if self._seconds else 0.0)
        everybody = self.group.collect(mine)
        self._now.bytes = sum(sent for sent, _ in everybody)
        self._now.waited = sum(share for _, share in everybody) / self.group.size
        found = asdict(self._now)
        self._begin_anew()
        return found
