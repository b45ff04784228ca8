"""Whether what `tune` found layer by layer serves a whole plan and a whole training step, too.

A layer alone finds its weights and images in the caches; in the network, others have passed through them meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from alexnet_np import plan
from alexnet_np.kernels import choices
from alexnet_np.kernels.choices import Row
from alexnet_np.kernels.problems import MANY
from alexnet_np.measure.tuning_subjects import Candidate, Late, gain_of, often, wall
from alexnet_np.models import AlexNet
from alexnet_np.training.sgd import SGD

WHOLE = ((32, False), (1, False), (32, True), (8, False), (128, False))  # batch, whether it is trained

Build = Callable[[], Callable[[], Any]]


def sound(model: AlexNet, size: tuple[int, int], rows: list[Row], end: float) -> list[Row]:
    """`rows` without those with which a plan or a training step takes longer than without them; till the time is up."""
    for batch, training in WHOLE:
        asked = [row for row in rows if is_asked(row, batch, training)]
        try:
            if asked and slower(partial(build, model, size, batch, training), rows, end):
                rows = [row for row in rows if row not in asked]
        except Late:
            break
    return rows


def is_asked(row: Row, batch: int, training: bool) -> bool:
    """Whether a plan, or a training step, of so many images asks for what the row is of."""
    where = {"direction": "forward", "planned": True, "batch": (0, MANY), **row.where}
    least, most = where["batch"]
    alike = training or (where["planned"] and where["direction"] == "forward")
    return row.device == "cpu" and where.get("training") == training and least <= batch <= most and alike


def slower(build: Build, rows: list[Row], end: float) -> bool:
    """Whether what `build` makes takes longer with `rows` than without them, by the median and by the least."""
    return gain_of(candidate(build, rows), candidate(build, []), end) > 0


def candidate(build: Build, rows: list[Row]) -> Candidate:
    with choices.overriding(*rows):
        run = build()

    def chosen() -> Any:
        with choices.overriding(*rows):
            return run()

    return often(chosen, wall)


def build(model: AlexNet, size: tuple[int, int], batch: int, training: bool) -> Callable[[], Any]:
    x = np.random.default_rng(0).standard_normal((batch, model.in_channels, *size), dtype=np.float32)
    if training:
        step = plan.compile_training(model, SGD(model.named_parameters(), lr=0.0), batch, size)
        return lambda: step(x, np.zeros(batch, np.int64))
    made = plan.compile(model, batch, size=size)
    return lambda: made(x)
