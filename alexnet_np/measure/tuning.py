"""`anp.tune()`: which ways and sizes of choices.py are the fastest on this machine, measured by AlexNet's own layers.

Layer by layer, on the CPU and, where there is one, on the GPU (tuning_cpu.py, tuning_gpu.py), choices are changed one
by one and timed (tuning_subjects.py); what is faster, and makes no whole plan or training step slower
(tuning_whole.py), is kept (kernels/tuning.py). Every candidate computes the same to rounding: what the tests of
choices.py hold all ways to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from alexnet_np import arguments
from alexnet_np.backend import available_backends
from alexnet_np.errors import BackendError
from alexnet_np.identity import alexnet
from alexnet_np.kernels import choices as table
from alexnet_np.kernels.choices import Row
from alexnet_np.measure.tuning_subjects import Contest, Late, Subject

SECONDS = 110.0  # by default; kernels that are compiled for the first time may take some more
FOR_THE_GPU = 0.3  # of the time, where there is one
FOR_THE_WHOLE = 0.15  # of the CPU's time

Make = Callable[[], Subject]
Told = Callable[[float], None]


class Stopped(KeyboardInterrupt):
    """Ctrl-C, after which what was found until then is kept."""


class Tuned(NamedTuple):
    """What was found, and how many of the pieces of work the time was enough for."""

    rows: list[Row]
    measured: int
    of: int


def tune(
    seconds: float = SECONDS,
    *,
    preset: str = "torchvision",
    width: float = 1.0,
    told: Told | None = None,
) -> list[Any]:
    """Measure for at most about `seconds`, keep what is faster than the shipped table, and return it, a Row each.

    `preset`, `width`: whose layers. `told`: called with the share that is done, from 0 to 1.
    What was kept before for this machine is measured anew; where the time is not enough, the rest of it stays. So it
    does after Ctrl-C, and what was found until then is kept: Stopped, a KeyboardInterrupt, says how much.
    Raises ArgumentError, BackendError without Numba and without a GPU.
    """
    return measure(seconds, preset, width, told).rows


def choices() -> str:
    """Every row that says who computes what, in the order in which it is asked: overrides, what was measured on this
    machine, what was shipped; for printing."""
    return table.show()


def measure(seconds: float, preset: str = "torchvision", width: float = 1.0, told: Told | None = None) -> Tuned:
    """See `tune`."""
    seconds = arguments.above("tune", "seconds", seconds)
    model = alexnet(preset, width=width, seed=0).eval()
    size = (model.input_size or 224,) * 2
    begin = time.monotonic()
    on_cpu, on_gpu = works(model, size)
    if not on_cpu and not on_gpu:
        raise BackendError("tune: it measures the numba backend's kernels, and the GPU's: neither is there")
    for_cpu = seconds * (1 - FOR_THE_GPU if on_gpu and on_cpu else 1)
    before, pieces = table.rows_here(), len(on_cpu) + len(on_gpu)
    table.use_measured([])
    found: list[Row] = []
    seen: list[Subject] = []

    def keep() -> None:
        table.keep(found + [row for row in before if not any(subject.is_of(row) for subject in seen)])

    def tell(done: int) -> None:
        if told is not None:
            told(done / (pieces + bool(on_cpu)))

    try:
        for subject, rows in contests(on_cpu, begin + for_cpu * (1 - FOR_THE_WHOLE)):
            found += rows
            seen.append(subject)
            tell(len(seen))
        if on_cpu:
            found = in_the_whole(model, size, found, begin + for_cpu)
            tell(len(seen) + 1)
        for subject, rows in contests(on_gpu, begin + seconds):
            found += rows
            seen.append(subject)
            tell(len(seen) + bool(on_cpu))
    except KeyboardInterrupt:
        keep()
        raise Stopped(f"what {len(seen)} of {pieces} pieces of work gave is kept") from None
    except BaseException:
        table.use_measured(before)
        raise
    keep()
    return Tuned(table.rows_here(), len(seen), pieces)


def in_the_whole(model: Any, size: tuple[int, int], rows: list[Row], end: float) -> list[Row]:
    """Those of `rows` that make no whole plan and no training step slower."""
    from alexnet_np.measure import tuning_whole  # only now: a GPU needs no Numba

    return tuning_whole.sound(model, size, rows, end)


def contests(work: list[Make], end: float) -> Iterator[tuple[Subject, list[Row]]]:
    """What is timed, and what was found of it, until the time is up."""
    for make in work:
        if time.monotonic() > end:
            return
        subject = make()
        try:
            rows = Contest(subject, end).rows()
        except Late:
            return
        yield subject._replace(build=lambda: lambda: None), rows  # its arrays can go


def works(model: Any, size: tuple[int, int]) -> tuple[list[Make], list[Make]]:
    """What there is to time on the CPU, and on the GPU."""
    usable = available_backends()
    on_cpu: list[Make] = []
    on_gpu: list[Make] = []
    if usable["numba"] is True:
        from alexnet_np.measure import tuning_cpu  # only now: a GPU needs no Numba

        on_cpu = list(tuning_cpu.subjects(model, size))
    if usable["cuda"] is True:
        from alexnet_np.measure import tuning_gpu  # only now: a CPU needs none of it
        from alexnet_np.measure.gpu import Gpu

        on_gpu = list(tuning_gpu.subjects(model, size, Gpu()))
    return on_cpu, on_gpu
