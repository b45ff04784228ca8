"""Chunks of work done by several workers at once, the results in the order of the chunks, a bounded number ahead.

Threads: Pillow's decoding, NumPy and the kernels release Python's global lock; packed weights are shared by being
there, and what a worker has computed is handed over without a copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

AHEAD = 2  # chunks a worker may have done or begun beyond the one that is waited for: bridges a slow file

T = TypeVar("T")
R = TypeVar("R")


def in_order(chunks: Iterable[T], workers: Sequence[Callable[[T], R]]) -> Generator[R]:
    """For each chunk, in order, what some worker made of it; no worker has two at a time.

    A worker's exception is raised here, at its chunk. Closing the generator, or leaving it by an exception, waits for
    what is being worked on and drops the rest.
    """
    idle: SimpleQueue[Callable[[T], R]] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def work(chunk: T) -> R:
        worker = idle.get()
        try:
            return worker(chunk)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(len(workers), thread_name_prefix="alexnet-jobs")
    begun: deque[Future[R]] = deque()
    try:
        for chunk in chunks:
            begun.append(pool.submit(work, chunk))
            if len(begun) > AHEAD * len(workers):
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
