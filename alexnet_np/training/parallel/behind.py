"""Work that is done while the caller computes on: by a thread, or on a stream of the GPU; or when the caller waits.

put     this work, after the caller's up to here
wait    until all of it is done: what the caller computes from here on may use it
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

from alexnet_np.device import Array, clear_errors, import_cupy, on_gpu

Work = Callable[[], None]


class Behind(Protocol):
    @property
    def waited(self) -> float:
        """Seconds that all `wait`s took, that is, of the work that no computation hid."""

    def put(self, work: Work) -> None: ...

    def wait(self) -> None:
        """Raises what the work raised."""

    def close(self) -> None: ...


class Later:
    """Nobody does it until the caller waits."""

    def __init__(self) -> None:
        self.waited = 0.0
        self._works: list[Work] = []

    def put(self, work: Work) -> None:
        self._works.append(work)

    def wait(self) -> None:
        begun = time.perf_counter()
        works, self._works = self._works, []
        for work in works:
            work()
        self.waited += time.perf_counter() - begun

    def close(self) -> None:
        pass


class Thread:
    """A thread of its own, with blocking calls: MPI's unfinished ones make no progress while Numba computes."""

    def __init__(self) -> None:
        self.waited = 0.0
        self._put = 0
        self._works: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="alexnet-exchange", daemon=True).start()

    def put(self, work: Work) -> None:
        self._put += 1
        self._works.put(work)

    def wait(self) -> None:
        begun = time.perf_counter()
        while self._put:
            failure = self._done.get()
            self._put -= 1
            if failure is not None:
                raise failure
        self.waited += time.perf_counter() - begun

    def close(self) -> None:
        self._works.put(None)

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            try:
                work()
                self._done.put(None)
            except BaseException as error:
                self._done.put(error)


class Stream:
    """A second stream of the GPU. The host goes on at once; what it queues after `wait` comes after the work."""

    def __init__(self, like: Array) -> None:
        self._cuda = import_cupy().cuda
        self._waited, self._pending = 0.0, False
        with clear_errors("cuda: a stream for the exchange of gradients"), self._cuda.Device(like.device.id):
            self._stream = self._cuda.Stream(non_blocking=True)
            self._before = self._cuda.Event(disable_timing=True)
            self._asked, self._after = self._cuda.Event(), self._cuda.Event()

    def put(self, work: Work) -> None:
        with clear_errors("cuda: an exchange of gradients"):
            self._stream.wait_event(self._cuda.get_current_stream().record(self._before))
            with self._stream:
                work()

    def wait(self) -> None:
        with clear_errors("cuda: an exchange of gradients"):
            self._count()
            caller = self._cuda.get_current_stream()
            caller.record(self._asked)
            caller.wait_event(self._stream.record(self._after))
            self._pending = True

    @property
    def waited(self) -> float:
        """By the GPU's own clock: from where its caller's stream had nothing else to do."""
        self._count()
        return self._waited

    def _count(self) -> None:
        """The last wait's time is known once it has passed."""
        if self._pending:
            self._after.synchronize()
            self._waited += max(0.0, self._cuda.get_elapsed_time(self._asked, self._after)) / 1e3
            self._pending = False

    def close(self) -> None:
        pass


def behind(like: Array) -> Behind:
    """The one for work on arrays such as `like`."""
    return Stream(like) if on_gpu(like) else Thread()
