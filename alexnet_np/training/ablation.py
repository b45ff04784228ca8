"""Two or three networks that differ in one idea, trained side by side: the same images in the same order to each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import closing

from alexnet_np.backend import use_backend
from alexnet_np.data.loader import Loader
from alexnet_np.training.config import Config
from alexnet_np.training.metrics import Event
from alexnet_np.training.run import Run
from alexnet_np.training.task import evaluation_augment, first_images
from alexnet_np.training.variants import ABLATIONS

VALIDATION_IMAGES = 2000  # at most: a curve of errors around 10% is then good to 0.7 per cent


def ablate(
    what: str, config: Config, workers: int = 2, listener: Callable[[str, Event], None] | None = None
) -> dict[str, list[Event]]:
    """Train every variant of ABLATIONS[what] from the same seed; returns each one's "batch" and "epoch" events.

    Weights start from the same random numbers and batches are the same, so what differs between two curves is the idea.
    `listener` is called with every event as it happens, and the name of its variant.
    Raises what a run raises; AlexNetError where a variant diverges.
    """
    runs = {name: Run(dataclasses.replace(config, **changes), workers) for name, changes in ABLATIONS[what].items()}
    events: dict[str, list[Event]] = {name: [] for name in runs}

    def report(name: str, event: Event) -> None:
        events[name].append(event)
        if listener is not None:
            listener(name, event)

    first, *_ = runs.values()
    images = first_images(first.task.validation, VALIDATION_IMAGES)
    augment = evaluation_augment(config, first.task.recipe)
    validation = Loader(images, config.batch_size, augment=augment, workers=workers, dtype=config.dtype)
    with use_backend(config.backend):
        for epoch in range(config.epochs):
            _train(runs, epoch, report)
            for name, run in runs.items():
                report(name, _validate(run, validation))
    return events


def _train(runs: dict[str, Run], epoch: int, report: Callable[[str, Event], None]) -> None:
    first, *_ = runs.values()
    with closing(first.train_batches.epoch(epoch)) as batches:
        for x, target in batches:
            for name, run in runs.items():
                report(name, run.step(x, target))


def _validate(run: Run, loader: Loader) -> Event:
    with closing(loader.epoch(0)) as batches:
        return run.finish_epoch(run.evaluate(batches))
