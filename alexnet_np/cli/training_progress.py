"""How a training run looks on a terminal: a bar while it goes, and a line for every epoch."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from alexnet_np.cli import show
from alexnet_np.training.metrics import Event


class ProgressBar:
    """A listener. The bar is over all epochs and stands on standard error, where that is a terminal."""

    def __init__(self, epochs: int, quiet: bool = False) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
        self.epochs, self.quiet = epochs, quiet
        self.bar = Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            disable=quiet or not sys.stderr.isatty(),
            redirect_stdout=sys.stdout.isatty(),
        )
        self.task = self.bar.add_task("", total=None)

    def __enter__(self) -> ProgressBar:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()

    def __call__(self, event: Event) -> None:
        if event["kind"] == "start":
            self.bar.reset(self.task, total=self.epochs * event["batches"], completed=event["step"])
        elif event["kind"] == "batch":
            self.bar.update(self.task, description=describe(event, self.epochs), completed=event["step"])
        elif event["kind"] == "validation":
            self.bar.update(self.task, description=f"epoch {event['epoch']}/{self.epochs}  validating")
        elif event["kind"] == "epoch" and not self.quiet:
            show.console().print(summarise(event), soft_wrap=True)


def describe(event: Event, epochs: int) -> str:
    """One batch, with the means over its epoch so far."""
    return (
        f"epoch {event['epoch']}/{epochs}  loss {event['train_loss']:.4f}  accuracy {event['train_accuracy']:.2%}  "
        f"{event['images_per_second']:.0f} images/s"
    )


def summarise(event: Event) -> str:
    """One epoch."""
    return (
        f"epoch {event['epoch']}/{event['epochs']}  training: loss {event['train_loss']:.4f}, accuracy "
        f"{event['train_accuracy']:.2%}  validation: loss {event['loss']:.4f}, accuracy {event['accuracy']:.2%}  "
        f"{event['images_per_second']:.0f} images/s, {event['data_wait']:.1%} of the time waiting for data"
    )
