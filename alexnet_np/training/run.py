"""Everything that a run is at one moment, and one step of it. Files, signals and reports are in loop.py."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np.data import mean_image
from alexnet_np.data.dataset import Dataset
from alexnet_np.data.loader import Loader
from alexnet_np.data.mean_image import MeanImage
from alexnet_np.device import Array, to_cpu
from alexnet_np.errors import AlexNetError, CheckpointError
from alexnet_np.layers import Dropout
from alexnet_np.models import AlexNet
from alexnet_np.threads import get_num_threads
from alexnet_np.training import features
from alexnet_np.training.building import build_model, build_optimizer, build_schedule
from alexnet_np.training.config import Config
from alexnet_np.training.evaluation import Evaluation, evaluate
from alexnet_np.training.metrics import Event
from alexnet_np.training.parallel.counted import Counted, Meter
from alexnet_np.training.parallel.group import Alone, Group
from alexnet_np.training.parallel.nccl import on_gpus
from alexnet_np.training.parallel.sharded import Sharded, Shared, share_of
from alexnet_np.training.parallel.two_towers import TwoTowers
from alexnet_np.training.parallel.weird import Weird
from alexnet_np.training.schedules import ReduceLROnPlateau
from alexnet_np.training.stepping import PLAN, Stepper
from alexnet_np.training.task import Task, loaders, open_task, subtracting, with_mean_image

EXPLODED = 1000  # times the loss of guessing: no input makes a network that learns so sure of what is wrong
SCHEMES: Mapping[str, Callable[..., Shared]] = {"data": Sharded, "weird": Weird, "towers": TwoTowers}
MOMENTUM = "momentum."  # before the names of the optimizer's buffers

Saved = tuple[Mapping[str, Array], Mapping[str, Any]]


@dataclass
class Position:
    """Where a run is, and the sums over the epoch so far."""

    epoch: int = 0  # epochs done
    batch: int = 0  # batches done in this one
    step: int = 0  # batches done in all
    images: int = 0
    loss: float = 0.0
    correct: int = 0


class Run:
    """The data, network, optimizer and schedule of `config`, and the position in the run.

    `workers`: threads that prepare data; `cache`: where a folder's decoded images are kept. Neither changes a result.
    `group`: the processes that share every batch, of which this is one; alone where it is None.
    `saved`: what `tensors()` and `state()` gave, to go on from there instead of from the beginning.
    Raises ArgumentError, DataError, ImageError, WeightsError, BackendError; CheckpointError where `saved` does not fit.
    """

    def __init__(
        self,
        config: Config,
        workers: int = 2,
        cache: Path | None = None,
        saved: Saved | None = None,
        group: Group | None = None,
    ) -> None:
        self.config, self.group = config, on_gpus(group or Alone(), config.backend)
        self.task = self._with_mean_image(open_task(config, workers, cache), workers, saved)
        rows = share_of(config, self.group).rows
        self.train_batches, self.validation_batches = loaders(config, self.task, workers, rows)
        start = config if saved is None else dataclasses.replace(config, weights=None)  # that file may be gone
        self.model = build_model(start, self.task.classes)
        self.model.said = dataclasses.replace(self.model.described(), preprocessing=self.task.recipe)
        self.optimizer = build_optimizer(config, self.model)
        self.schedule = build_schedule(config, self.optimizer, len(self.train_batches))
        self.at, recipe = Position(), self.task.recipe
        self.model.check_size((1, recipe.channels, recipe.crop, recipe.crop))  # now, not when the run has begun
        most = min(config.batch_size, len(self.task.train.targets))
        self.network: AlexNet = self.model  # what batches go through
        self.parallel: Shared | None = None
        self.meter: Meter | None = None
        if self.group.size > 1:
            self.group = counted = Counted(self.group)
            self.meter = Meter(counted, self.model, self.train_batches.augment.shape, config.parallel, self._waited)
        if self.group.size > 1 or config.shards > 1:
            self.parallel = SCHEMES[config.parallel](self.model, self.optimizer, self.group, config)
        self._alone = Stepper(self.model, self.optimizer, config.backend, most, config.label_smoothing)
        self.notices = list(self.task.notices)
        if self.group.size == 1 and config.parallel != "data":
            self.notices.append(
                f"parallel {config.parallel!r} has one process, which trains the whole network; mpirun -n 2 starts two"
            )
        if saved is not None:
            self._restore(*saved)

    def _with_mean_image(self, task: Task, workers: int, saved: Saved | None) -> Task:
        """The mean image is that of the beginning, even where the data set has changed since."""
        if saved is not None and mean_image.NAME in saved[0]:
            return subtracting(task, MeanImage(to_cpu(saved[0][mean_image.NAME]), self.config.mean))
        return with_mean_image(self.config, task, workers, self.group)

    def step(self, x: np.ndarray, target: np.ndarray) -> Event:
        """One batch forward, backward and into the parameters; returns its figures and the epoch's means so far.

        Raises AlexNetError where the loss is no longer a number, or a thousand times that of guessing.
        """
        lr = self.optimizer.param_groups[0]["lr"]
        with nullcontext() if self.meter is None else self.meter.step(len(target)):
            loss, correct = (self.parallel or self._alone)(x, target, self._check)
        if not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step()
        at = self.at
        at.batch, at.step, at.images = at.batch + 1, at.step + 1, at.images + len(target)
        at.loss, at.correct = at.loss + loss * len(target), at.correct + correct
        return {
            "kind": "batch",
            "epoch": at.epoch + 1,
            "batch": at.batch,
            "batches": len(self.train_batches),
            "step": at.step,
            "loss": loss,
            "accuracy": correct / len(target),
            "lr": lr,
            **self._means(),
        }

    @property
    def engine(self) -> str:
        """Who computes its steps, "plan" or "eager"."""
        return (self.parallel or self._alone).engine

    def _waited(self) -> float:
        """Seconds, so far, for sums of gradients."""
        exchange = None if self.parallel is None else self.parallel.exchange
        return 0.0 if exchange is None else exchange.waited

    def gather_features(self, folder: Path | None, tell: features.Tell) -> bool:
        """Compute the features of every image now, once, where each epoch would compute the same and there is room.

        They lie in `folder`, or in memory where that is None. From then on batches are rows of features, in the order
        in which the images would come, and the network is its classifier. Returns whether it was done.
        """
        if self.parallel is not None or not features.are_constant(self.model, self.config.augmentation):
            return False
        images = len(self.task.train.targets) + len(self.task.validation.targets)
        count = features.count_features(self.model, self.train_batches.augment.shape)
        if not features.has_room(images, count, self.model.dtype.itemsize, folder):
            return False
        like, parts = self.validation_batches, (self.task.train, self.task.validation)  # both without augmentation
        rows = features.gather_all(self.model, parts, like, self.engine == PLAN, folder, tell)
        self._train_on(rows[0], rows[1], count)
        return True

    def _train_on(self, train: np.ndarray, validation: np.ndarray, count: int) -> None:
        """Batches of these rows from now on."""

        def loader(rows: np.ndarray, part: Dataset, **more: Any) -> Loader:
            dataset, augment = features.Rows(rows, part.targets, list(part.classes)), features.AsItIs((count, 1, 1))
            more |= {"workers": 1, "dtype": self.config.dtype}
            return Loader(dataset, self.config.batch_size, augment=augment, **more)

        self.train_batches = loader(train, self.task.train, shuffle=True, seed=self.config.seed)
        self.validation_batches = loader(validation, self.task.validation)
        self.network = features.Head(self.model, count)
        self._alone = self._alone.of(self.network)

    def _check(self, loss: float) -> None:
        guessing, initialisation = math.log(len(self.task.classes)), self.config.initialisation
        remedy = f"start anew with a lower lr than {self.config.lr}, or another initialisation than {initialisation!r}"
        if not math.isfinite(loss):
            raise AlexNetError(f"the loss is {loss} at step {self.at.step + 1}: the run has diverged; {remedy}")
        if loss > EXPLODED * max(guessing, 1):
            raise AlexNetError(
                f"the loss is {loss:.3g} at step {self.at.step + 1}, where guessing gives {guessing:.2f}: the run has "
                f"diverged; {remedy}"
            )

    def evaluate(self, batches: Iterable[tuple[Array, Array]]) -> Evaluation:
        """The network on these: all of them, though other processes may have computed some."""
        classes = len(self.task.classes)
        if self.parallel is None:
            planned = self.config.batch_size if self.engine == PLAN else 0
            return evaluate(self.network, batches, classes, planned=planned)
        return evaluate(self.model, batches, classes, self.parallel.logits)

    def finish_epoch(self, result: Evaluation) -> Event:
        """Go on to the next epoch, after validation gave `result`; returns the figures of the one that ended.

        Several processes call it together: "exchange" is what all of them sent in its steps (counted.Traffic).
        """
        figures = {
            "kind": "epoch",
            "epoch": self.at.epoch + 1,
            "epochs": self.config.epochs,
            "step": self.at.step,
            **self._means(),
            "loss": result.loss,
            "accuracy": result.top1,
            "top5": result.top5,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        if self.meter is not None:
            figures["exchange"] = self.meter.read()
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(1 - result.top1)
        self.at = Position(epoch=self.at.epoch + 1, step=self.at.step)
        return figures

    def _means(self) -> dict[str, float]:
        return {"train_loss": self.at.loss / self.at.images, "train_accuracy": self.at.correct / self.at.images}

    def tensors(self) -> dict[str, Array]:
        """Every array that the rest of the run depends on: whole, where processes have parts of them."""
        found = self.model.state_dict() | {MOMENTUM + name: array for name, array in self.optimizer.velocities.items()}
        found |= self.model.described().arrays()
        return found if self.parallel is None else self.parallel.gathered(found)

    def state(self) -> dict[str, Any]:
        """Everything else that the rest of the run depends on, as JSON takes it."""
        return {
            "network": self.model.described().to_json(),
            "config": self.config.to_json(),
            "data": self.task.fingerprint(),
            "environment": environment(self.engine),
            "position": dataclasses.asdict(self.at),
            "optimizer": self.optimizer.state_dict()["param_groups"],
            "schedule": self.schedule.state_dict(),
            "dropout": {name: [layer.seed, layer.calls] for name, layer in self._dropouts()},
        }

    def _restore(self, tensors: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        now, then = self.task.fingerprint(), state["data"]
        moved = now != then and self.config.dataset == "folder" and now["classes"] == then["classes"]
        if now != then and not moved:
            raise CheckpointError(
                f"the data set has changed: now {len(now['classes'])} classes and {now['images']} images, then "
                f"{len(then['classes'])} and {then['images']}, or other labels; bring the old one back, or start anew"
            )
        tensors = tensors if self.parallel is None else self.parallel.cut(tensors)
        self.model.load_state_dict({name: a for name, a in finished(tensors).items() if name != mean_image.NAME})
        velocities = {name: array for name, array in tensors.items() if name.startswith(MOMENTUM)}
        buffers = {name.removeprefix(MOMENTUM): {"momentum_buffer": array} for name, array in velocities.items()}
        self.optimizer.load_state_dict({"state": buffers, "param_groups": state["optimizer"]})
        self.schedule.load_state_dict(state["schedule"])
        for name, layer in self._dropouts():
            layer.seed, layer.calls = state["dropout"][name]
        self.at = Position(**state["position"])
        if moved:
            self.at = Position(epoch=self.at.epoch, step=self.at.step)
            self.notices.append(
                f"the data set has changed: {now['images']} images to train on, {then['images']} when this was saved; "
                f"going on with these, from the start of epoch {self.at.epoch + 1}; what is held out may be others"
            )

    def _dropouts(self) -> Iterator[tuple[str, Dropout]]:
        return ((name, layer) for name, layer in self.model.leaves() if isinstance(layer, Dropout))


def environment(engine: str) -> dict[str, Any]:
    """What, beside the configuration and the data, may change the last bits of a run; `engine` computes its steps."""
    return {
        "engine": engine,
        "alexnet-np": version("alexnet-np"),
        "numpy": version("numpy"),
        "numba": version("numba"),
        "python": ".".join(map(str, sys.version_info[:2])),
        "machine": platform.machine(),
        "threads": get_num_threads(),
    }


def digest(tensors: Mapping[str, Array]) -> str:
    """Of the bits of `Run.tensors()`: the same in every process, or they have parted."""
    found = hashlib.sha256()
    for array in tensors.values():
        found.update(np.ascontiguousarray(to_cpu(array)).data)
    return found.hexdigest()


def finished(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """What of `Run.tensors()` is still needed when training is over: the network, and its mean image."""
    return {name: array for name, array in tensors.items() if not name.startswith(MOMENTUM)}
