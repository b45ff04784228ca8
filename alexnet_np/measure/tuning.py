"""`anp.tune()`: which ways and sizes of choices.py are the fastest on this machine, measured by AlexNet's own layers.

The convolutions of a plan are timed with one choice changed, in turn with the best so far, at batch 1 and at 32; what
is at least GAIN faster is kept (kernels/tuning.py). Every candidate computes the same to rounding: what the tests of
choices.py hold all ways to.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from alexnet_np import arguments, layers, plan
from alexnet_np.backend import available_backends
from alexnet_np.errors import BackendError
from alexnet_np.identity import alexnet
from alexnet_np.kernels import choices as table
from alexnet_np.models import AlexNet

GAIN = 0.03  # faster by less is chance
TURNS = 7  # timings of each of two candidates; the medians are compared, and the least
BATCHES = {1: (1, 1), 32: (2, 1 << 30)}  # what is timed -> the batches that the row then serves
TILES = {3: (5, 6, 4), 5: (3,)}  # of Winograd, by the filter that it sees
BLOCKS = (24, 36, 60, 108, 192)
ROOMS = (4 << 20, 8 << 20, 12 << 20, 24 << 20)


def tune(
    seconds: float = 110.0,
    *,
    preset: str = "torchvision",
    width: float = 1.0,
    told: Callable[[float], None] | None = None,
) -> list[Any]:
    """Measure for at most about `seconds`, keep what is faster than the table, and return it, a Row each.

    `preset`, `width`: whose convolutions. `told`: called with the share that is done, from 0 to 1.
    What was kept before for this machine is measured anew. Raises ArgumentError, BackendError without Numba.
    """
    seconds = arguments.above("tune", "seconds", seconds)
    usable = available_backends()["numba"]
    if usable is not True:
        raise BackendError(f"tune: it measures the numba backend's kernels, and that is missing: {usable}")
    model = alexnet(preset, width=width, seed=0).eval()
    found: list[table.Row] = []
    before = table.rows_here()
    table.use_measured([])
    try:
        end, work = time.monotonic() + seconds, list(candidates(model))
        for i, (batch, row) in enumerate(work):
            if time.monotonic() > end:
                break
            gain = faster(model, batch, row, found)
            if gain > GAIN:
                row.why = f"measured: {gain:.0%} less for all convolutions at batch {batch}"
                found.insert(0, row)
            if told is not None:
                told((i + 1) / len(work))
    except BaseException:
        table.use_measured(before)
        raise
    table.keep(found)
    return found


def choices() -> str:
    """Every row that says who computes what, in the order in which it is asked: overrides, what was measured on this
    machine, what was shipped; for printing."""
    return table.show()


def candidates(model: AlexNet) -> Iterator[tuple[int, table.Row]]:
    """(batch, row): every way for every convolution of the model, then the sizes."""
    shape = (1, model.in_channels, 224, 224)
    for batch, served in BATCHES.items():
        at: tuple[int, ...] = shape
        for _, layer in model.leaves():
            after = layer.output_shape(at)
            if isinstance(layer, layers.Conv2d):
                F, C, K, _ = layer.weight.shape
                stride, _ = arguments.pair("tune", "stride", layer.stride, 1)
                where: dict[str, Any] = {
                    "C": C,
                    "F": F // layer.groups,
                    "kernel": K,
                    "OH": after[2],
                    "OW": after[3],
                    "batch": served,
                }
                where |= {"direction": "forward", "exact": False, "dtype": "float32"}
                yield batch, table.Row("direct", **where)
                for m in TILES.get(-(-K // stride), ()):
                    yield batch, table.Row("winograd", tiles=(m,), **where)
            at = after
            if isinstance(layer, layers.Flatten) or len(at) != 4:
                break
        for block in BLOCKS:
            yield batch, table.Row(block_tiles=block, batch=served, direction="forward")
    for room in ROOMS:
        yield 32, table.Row(op="stages", stage_bytes=room)
        yield 32, table.Row(op="stages", chunk_bytes=room)


def faster(model: AlexNet, batch: int, row: table.Row, found: list[table.Row]) -> float:
    """How much less time the convolutions take with `row` before what was found, as a share; nothing where no step of
    the plan is another one then."""
    x = np.random.default_rng(0).standard_normal((batch, model.in_channels, 224, 224), dtype=np.float32)
    plans = []
    for first in ((), (row,)):
        with table.overriding(*first, *found):
            plans.append(plan.compile(model, batch, outputs=["features"]))
    if row.algorithm is not None and repr(plans[0]) == repr(plans[1]):
        return 0.0
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(TURNS + 1):
        for one, spent in zip(plans, times, strict=True):
            begin = time.perf_counter()
            one(x)
            if turn:
                spent.append(time.perf_counter() - begin)
    gains = (1 - better(times[1]) / better(times[0]) for better in (statistics.median, min))
    return min(gains)  # on a busy machine one of them is soon off by chance
