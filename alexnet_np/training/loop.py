"""The training loop: one `Trainer` is one run, which can be stopped anywhere and goes on bit for bit.

    trainer = Trainer(Config(epochs=3), Path("runs/first"))
    trainer.fit()

leaves behind

    runs/first/metrics.jsonl          what happened, a JSON object a line
    runs/first/checkpoints/           everything that the rest of the run depends on
    runs/first/weights.safetensors    the network, at the end
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from alexnet_np import arguments
from alexnet_np.backend import use_backend
from alexnet_np.device import Array
from alexnet_np.errors import CheckpointError, one_line
from alexnet_np.training import checkpoint
from alexnet_np.training.checkpoint import Checkpoints
from alexnet_np.training.config import Config
from alexnet_np.training.interrupt import Stopped, StopRequest, stop_requests
from alexnet_np.training.lock import locked
from alexnet_np.training.metrics import Event, MetricsLog, what_looks_broken
from alexnet_np.training.parallel.group import Alone, Group
from alexnet_np.training.parallel.launch import check_alike
from alexnet_np.training.run import Run, Saved, digest, environment, finished

ENDLESS = ("constant", "step", "plateau")  # schedules that do not depend on where the run ends
SPEEDS = ("images_per_second", "data_wait", "exchange")  # differ from run to run: equal runs end in equal files

Listener = Callable[[Event], None]


class Trainer:
    """One run of `config`, kept in `folder` if given.

    `workers`: threads that prepare data. `cache`: where a folder's decoded images are kept. `keep`: checkpoints that
    stay. `save_every`: seconds between two; there is one at the start and after every epoch in any case. None of these
    changes a bit of the result. `saved`: a checkpoint to go on from; see `resume`. `group`: the processes that train
    together, each with a Trainer of its own; rank 0 alone writes.
    Raises ArgumentError, DataError, ImageError, WeightsError, BackendError.
    """

    def __init__(
        self,
        config: Config,
        folder: str | os.PathLike[str] | None = None,
        *,
        workers: int = 2,
        keep: int = 3,
        save_every: float = 120.0,
        cache: str | os.PathLike[str] | None = None,
        saved: Saved | None = None,
        group: Group | None = None,
    ) -> None:
        config = arguments.instance("Trainer", "config", config, Config, "a Config")
        folder = None if folder is None else arguments.path("Trainer", "folder", folder)
        cache = None if cache is None else arguments.path("Trainer", "cache", cache)
        workers, keep = (arguments.integer("Trainer", *each, 1) for each in (("workers", workers), ("keep", keep)))
        self.config, self.folder = config, folder
        self.save_every = arguments.number("Trainer", "save_every", save_every, 0)
        writes = folder is not None and (group is None or group.rank == 0)
        self.checkpoints = Checkpoints(folder / "checkpoints", keep) if folder is not None and writes else None
        self.log = MetricsLog(folder / "metrics.jsonl") if folder is not None and writes else None
        self.run = Run(config, workers, cache, saved, group)
        self.last: Event = {} if saved is None else saved[1]["last"]  # the last epoch's figures
        self.notices: list[str] = list(self.run.notices)  # what whoever began or resumed should know
        self._begun = saved is not None
        self._saved_at = -math.inf
        self._listeners: list[Listener] = []

    @classmethod
    def resume(
        cls,
        folder: str | os.PathLike[str],
        asked: Mapping[str, Any] | None = None,
        group: Group | None = None,
        **options: Any,
    ) -> Trainer:
        """The run in `folder` as its newest whole checkpoint has it; `options` as for a new one.

        `asked`: configuration that it must agree with, but for `data`, which may have moved, and more `epochs`.
        Raises CheckpointError, and what a new run raises.
        """
        folder = arguments.path("Trainer.resume", "folder", folder)
        asked = {} if asked is None else arguments.mapping("Trainer.resume", "asked", asked, "a mapping")
        checkpoints, group = Checkpoints(folder / "checkpoints"), group or Alone()
        first = group.rank == 0
        with locked(folder if first and checkpoints.paths() else None):
            tensors, state, problems = group.share(checkpoints.load() if first else None)
            begun = Config.from_json(state["config"])
            begun.check_same(asked)
            changed = {name: asked[name] for name in ("data", "epochs") if name in asked}
            config = dataclasses.replace(begun, **changed)
            trainer = cls(config, folder, saved=(tensors, state), group=group, **options)
            if trainer.log is not None:
                trainer.log.cut(state["metrics_bytes"])
        trainer.notices += [f"{problem}; going on from the one before" for problem in problems]
        if config.epochs != begun.epochs:
            drawn = "" if config.schedule in ENDLESS else f", the schedule {config.schedule!r} drawn out over them"
            trainer.notices.append(f"going on to {config.epochs} epochs instead of {begun.epochs}{drawn}")
        trainer.notices += changes(state["environment"], environment(trainer.run.engine))
        return trainer

    def fit(self, listeners: Iterable[Listener] = ()) -> Event:
        """Train to the end and return the last epoch's figures. Each listener is called with every event.

        Raises Stopped after Ctrl-C, and may then be called again; CheckpointError where it cannot save, or where the
        folder holds another run; AlexNetError where the loss is no longer a number.
        """
        self._listeners = list(listeners)
        mine = None if self.log is None else self.folder
        asking = None if mine is None else mine / "stop"
        with locked(mine), use_backend(self.config.backend), stop_requests(asking) as stop:
            self._begin()
            self._gather_features(stop)
            while self.run.at.epoch < self.config.epochs:
                images_per_second = self._train_epoch(stop)
                self._finish_epoch(stop, images_per_second)
            self._end()
        return self.last

    def _begin(self) -> None:
        if self.checkpoints is not None and not self._begun and self.checkpoints.paths():
            raise CheckpointError(f"{self.folder}: holds a run already; --resume it, or choose another folder")
        if self.folder is not None and self.log is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._begun:
                self.log.cut(0)
            for abandoned in self.folder.rglob(".*.part"):  # by a process killed while it wrote
                shutil.rmtree(abandoned) if abandoned.is_dir() else abandoned.unlink()
        task = self.run.task
        self._report(
            {
                "kind": "start",
                "step": self.run.at.step,
                "engine": self.run.engine,
                "config": self.config.to_json(),
                "classes": task.classes,
                "images": len(task.train.targets),
                "validation_images": len(task.validation.targets),
                "batches": len(self.run.train_batches),
                "parameters": sum(p.data.size for p in self.run.model.parameters()),
                "environment": environment(self.run.engine),
            }
        )
        check_alike(self.run.group, "images", str(task.fingerprint()))
        if not self._begun:
            self.save()
            self._begun = True
        elif self.run.group.size > 1:
            check_alike(self.run.group, "weights", digest(self.run.tensors()))

    def _gather_features(self, stop: StopRequest) -> None:
        """Where the layers before the classifier are frozen: see Run.gather_features."""
        begun = time.perf_counter()

        def tell(done: int, images: int) -> None:
            if stop.asked:
                self._stop()
            self._tell({"kind": "gathering", "image": done, "images": images})

        if self.run.network is self.run.model and self.run.gather_features(self._features, tell):
            used = {"engine": self.run.engine, "seconds": time.perf_counter() - begun}
            self._report({"kind": "features", "step": self.run.at.step, **used})

    @property
    def _features(self) -> Path | None:
        """Where features that are computed once lie while the run goes on."""
        return None if self.folder is None else self.folder / "features"

    def _train_epoch(self, stop: StopRequest) -> float:
        """The batches of this epoch that are still to do; returns images a second."""
        run, loader = self.run, self.run.train_batches
        begun, already, speed = time.perf_counter(), run.at.images, 0.0
        with closing(loader.epoch(run.at.epoch, run.at.batch)) as batches:
            for x, target in batches:
                figures = run.step(x, target)
                speed = (run.at.images - already) / (time.perf_counter() - begun)
                self._report({**figures, "images_per_second": speed})
                due = time.monotonic() - self._saved_at >= self.save_every
                if self._agreed(stop, due):
                    self.save()
        return speed

    def _finish_epoch(self, stop: StopRequest, images_per_second: float) -> None:
        """Validate, report, and save with the position at the start of the next epoch."""
        run, loader = self.run, self.run.train_batches
        data_wait = loader.waited / loader.elapsed if loader.elapsed else 0.0
        figures = run.finish_epoch(run.evaluate(self._validation(stop)))
        self.last = {**figures, "images_per_second": images_per_second, "data_wait": data_wait}
        broken = what_looks_broken(figures, len(run.task.classes), self.config)
        if broken is not None:
            self.last["notice"] = broken
        self._report(self.last)
        self.save()

    def _validation(self, stop: StopRequest) -> Iterator[tuple[Array, Array]]:
        loader = self.run.validation_batches
        with closing(loader.epoch(0)) as batches:
            for i, batch in enumerate(batches, 1):
                self._agreed(stop)
                yield batch
                self._tell({"kind": "validation", "epoch": self.run.at.epoch + 1, "batch": i, "batches": len(loader)})

    def _end(self) -> None:
        """The finished network, in a file that says what it is and how it was made."""
        weights = finished(self.run.tensors())
        if self.folder is not None and self.log is not None:
            state = self.run.state()
            about = {key: state[key] for key in ("network", "config", "data", "environment")}
            about["result"] = {name: value for name, value in self.last.items() if name not in SPEEDS}
            path = self.folder / "weights.safetensors"
            try:
                checkpoint.write(path, weights, about)
            except OSError as error:
                raise CheckpointError(
                    f"{path}: cannot be saved: {one_line(error)}; mend that, then --resume"
                ) from error
        if self._features is not None:
            shutil.rmtree(self._features, ignore_errors=True)
        self._report({**self.last, "kind": "end"})

    def _agreed(self, stop: StopRequest, due: bool = False) -> bool:
        """Stop where any process is asked to; else whether rank 0 says that it is time to save."""
        everybody = self.run.group.collect((stop.asked, due))
        if any(asked for asked, _ in everybody):
            stop.obeyed()
            self._stop()
        return bool(everybody[0][1])

    def _stop(self) -> None:
        at = self.run.at
        where = f"stopped in epoch {at.epoch + 1} after batch {at.batch} of {len(self.run.train_batches)}"
        if self.folder is None:
            raise Stopped(f"{where}; nothing is saved, because no folder was given")
        self.save()
        self.run.group.collect(None)  # nobody leaves before it is written: launchers end all when one has left
        raise Stopped(f"{where}, saved; to go on: alexnet train --resume --out {self.folder}")

    def save(self) -> None:
        """Write a checkpoint, where there is a folder for it. Raises CheckpointError; AlexNetError, written or not,
        where the processes no longer have the same weights."""
        tensors = self.run.tensors()
        if self.run.group.size > 1:
            check_alike(self.run.group, f"weights after step {self.run.at.step}", digest(tensors))
        if self.checkpoints is not None and self.log is not None:
            rest = {"last": self.last, "metrics_bytes": self.log.size()}
            self.checkpoints.save(self.run.at.step, tensors, self.run.state() | rest)
        self._saved_at = time.monotonic()

    def _report(self, event: Event) -> None:
        """To the metrics file and to the listeners."""
        if self.log is not None:
            self.log.write(event)
        self._tell(event)

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A notice where a run goes on in another environment than it was begun in."""
    changed = [f"{name} {then.get(name)}, now {now[name]}" for name in now if now[name] != then.get(name)]
    return [f"begun with {', '.join(changed)}: the last bits may come out differently"] if changed else []
