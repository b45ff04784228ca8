"""Batches made by background threads, a bounded number ahead of whoever uses them.

Threads, not processes: Pillow's decoding and NumPy's arithmetic release Python's global lock, and a thread hands over
an array without copying it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

AHEAD = 2  # batches under way while one is in use: bounds the memory, and bridges a slow file
CHUNK = 8  # items a thread takes at a time: small, so that all threads together make the first batch

T = TypeVar("T")
R = TypeVar("R")


def batches_in_background(
    batches: Iterable[Sequence[T]],
    allocate: Callable[[int], np.ndarray],
    fill: Callable[[Sequence[T], np.ndarray], Sequence[R]],
    workers: int,
) -> Generator[tuple[Sequence[T], np.ndarray, list[R]], None, None]:
    """For each batch of items, in order: the items, their array, and what `fill` returned for each item.

    `allocate(n)` gives the array of a batch of n; `fill(items, rows)` writes a chunk of it, in a thread. An exception
    in `fill` is raised here, at its batch. Closing the iterator, or leaving it by an exception, stops the threads.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="alexnet-data")

    def start(items: Sequence[T]) -> tuple[Sequence[T], np.ndarray, list[Future]]:
        array = allocate(len(items))
        chunks = [slice(i, i + CHUNK) for i in range(0, len(items), CHUNK)]
        return items, array, [pool.submit(fill, items[chunk], array[chunk]) for chunk in chunks]

    def finish() -> tuple[Sequence[T], np.ndarray, list[R]]:
        items, array, futures = started.popleft()
        return items, array, [result for future in futures for result in future.result()]

    started: deque = deque()
    try:
        for items in batches:
            started.append(start(items))
            if len(started) > AHEAD:
                yield finish()
        while started:
            yield finish()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
