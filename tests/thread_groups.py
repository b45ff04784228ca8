"""Threads that stand in for the processes of a group, so that what they tell each other can be tested without MPI."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


class Hall:
    """Where they meet: everybody puts something down, and takes what all have put."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier, self.table = size, threading.Barrier(size, timeout=60), [None] * size

    def meet(self, rank: int, value: Any) -> list[Any]:
        self.table[rank] = value
        self.barrier.wait()
        found = list(self.table)
        self.barrier.wait()
        return found


class Stood:
    """A training.parallel.group.Group."""

    def __init__(self, hall: Hall, rank: int, sums: Hall | None = None) -> None:
        self.hall, self.rank, self.size, self.scattered = hall, rank, hall.size, 0
        self.sums = sums or hall  # where an exchange's own thread meets those of the others

    def collect(self, value: Any) -> list[Any]:
        return self.hall.meet(self.rank, value)

    def share(self, value: Any) -> Any:
        return self.collect(value)[0]

    def scatter(self, parts: np.ndarray, inbox: np.ndarray) -> None:
        self.scattered += 1
        everybody = self.sums.meet(self.rank, parts.copy())
        inbox[...] = np.concatenate([each.reshape(self.size, -1)[self.rank] for each in everybody])

    def gather(self, part: np.ndarray, whole: np.ndarray) -> None:
        whole[...] = np.concatenate(self.sums.meet(self.rank, part.copy()))

    def sum(self, numbers: np.ndarray) -> None:
        numbers[...] = np.sum(self.sums.meet(self.rank, numbers.copy()), 0)

    def gather_uneven(self, part: np.ndarray, whole: np.ndarray, counts: Sequence[int]) -> None:
        everybody = self.collect(part.copy())
        assert [each.size for each in everybody] == list(counts)
        whole.reshape(-1)[...] = np.concatenate([each.reshape(-1) for each in everybody])

    def scatter_uneven(self, parts: np.ndarray, counts: Sequence[int]) -> np.ndarray:
        begin = sum(counts[: self.rank])
        return np.stack([each[begin : begin + counts[self.rank]] for each in self.collect(parts.copy())])

    def end(self, code: int) -> None:
        self.hall.barrier.abort()
        self.sums.barrier.abort()


def everybody(size: int, work: Callable[[Stood], Any]) -> list[Any]:
    """What work(group) returns in each of `size` threads. Raises what any of them raised."""
    hall, sums = Hall(size), Hall(size)
    found: list[Any] = [None] * size

    def one(rank: int) -> None:
        group = Stood(hall, rank, sums)
        try:
            found[rank] = work(group)
        except BaseException as error:
            found[rank] = error
            group.end(1)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures = [each for each in found if isinstance(each, BaseException)]
    for failure in sorted(failures, key=lambda each: isinstance(each, threading.BrokenBarrierError)):
        raise failure
    return found
