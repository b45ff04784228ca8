"""A whole call of a plan as one program: what its steps launch is recorded once, and later calls start it at once.

Then nothing happens in Python between two steps, and no thread leads: whichever finishes a step's last block begins the
next step (kernels/cpu/team.py). On an idle machine that saves the launches; on a busy one, whoever has lost its core is
waited for only in the middle of a block.

Where a convolution meets tiles that are computed as the definition says, the program cannot know before: it says so in
`found`, and the call is computed again, step by step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from alexnet_np import threads
from alexnet_np.device import Array
from alexnet_np.kernels.cpu.blocks import recording

MOST = 4  # recordings that a plan keeps: one for each number of images, kind of input, and number of threads


class Call(NamedTuple):
    """That a step is to compute `images` images from `first` of the chunk that begins with image `chunk`."""

    step: Any
    chunk: int
    first: int
    images: int


class Recording:
    """The kernels of some calls of steps. Its memory is its own: any thread may run it, one at a time."""

    def __init__(self, calls: Iterable[Call], load: Any, scratch: Array | None = None) -> None:
        self.load = load
        self.loads: list[tuple[int, Call, slice]] = []  # which of the kernels read the caller's images, and which
        with threads.parallel(), recording(scratch) as self.program:
            for call in calls:
                if call.step is load:
                    images = slice(call.chunk, call.chunk + load.images)
                    self.loads.append((len(self.program), call, images))
                call.step.run(call.first, call.images)

    def run(self, x: Array) -> bool:
        """Compute x; False where a convolution has to be computed otherwise."""
        with threads.parallel():
            for index, (_, _, first, count), images in self.loads:
                self.load.x = x[images].reshape(-1)
                with recording() as again:
                    self.load.run(first, count)
                self.program.replace(index, again)
            self.program.found[0] = 0
            self.program.run()
        for index, _, _ in self.loads:
            self.program.forget(index)
        return not self.program.found[0]


def record(calls: Any, load: Any) -> Recording:
    """`calls()` as a Recording, in two goes: the first finds out how large a workspace has to be."""
    large: Array = Recording(calls(), load).program.scratch
    return Recording(calls(), load, large)


def key(x: Array) -> tuple[Any, ...]:
    """What a recording depends on beside the plan."""
    return len(x), x.dtype.str, threads.get_num_threads()
