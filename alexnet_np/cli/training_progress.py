"""How a training run looks on a terminal: a bar while it goes, and a line for every epoch."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from alexnet_np.cli import show
from alexnet_np.training.metrics import Event

SPEED = 600  # seconds over which the time left is judged: a pause to validate does not forget it


class ProgressBar:
    """A listener. The bar is over all epochs and stands on standard error, where that is a terminal."""

    def __init__(self, epochs: int, quiet: bool = False) -> None:
        self.epochs, self.quiet = epochs, quiet
        screen = show.screen()
        bar = BarColumn(bar_width=show.bar_width(screen.width))
        self.room = screen.width - show.bar_width(screen.width) - len(" 0:00:00 ")  # of the words before it
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            bar,
            TimeRemainingColumn(),
            console=screen,
            transient=True,
            disable=quiet or not sys.stderr.isatty(),
            redirect_stdout=sys.stdout.isatty(),
            speed_estimate_period=SPEED,
        )
        self.task = self.bar.add_task("", total=None)
        self.gathering = self.bar.add_task("computing features, once", total=None, visible=False)
        self.validation = self.bar.add_task("validating", total=None, visible=False)

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
            words = show.fitting(describe(event, self.epochs), self.room)
            self.bar.update(self.task, description=words, completed=event["step"])
        elif event["kind"] == "gathering":
            at = {"completed": event["image"], "total": event["images"]}
            self.bar.update(self.gathering, **at, visible=event["image"] < event["images"])
        elif event["kind"] == "validation":
            if event["batch"] == 1:
                self.bar.reset(self.validation, total=event["batches"], visible=True)
            self.bar.update(self.validation, completed=event["batch"], total=event["batches"])
        elif event["kind"] == "epoch":
            self.bar.update(self.validation, visible=False)
            if not self.quiet:
                width = show.console().width if sys.stdout.isatty() else sys.maxsize
                show.say(Text(show.in_lines(summarise(event), width)))
            if "notice" in event:
                show.note(f"alexnet: {event['notice']}")


def describe(event: Event, epochs: int) -> list[str]:
    """One batch, with the means over its epoch so far; what may be left out last."""
    return [
        f"epoch {event['epoch']}/{epochs}",
        f"loss {event['train_loss']:.4f}",
        f"accuracy {event['train_accuracy']:.2%}",
        f"{event['images_per_second']:.0f} images/s",
    ]


def summarise(event: Event) -> list[str]:
    """One epoch."""
    return [
        f"epoch {event['epoch']}/{event['epochs']}",
        f"training: loss {event['train_loss']:.4f}, accuracy {event['train_accuracy']:.2%}",
        f"validation: loss {event['loss']:.4f}, accuracy {event['accuracy']:.2%}",
        f"{event['images_per_second']:.0f} images/s, {event['data_wait']:.1%} of the time waiting for data",
        *exchanged(event.get("exchange")),
    ]


def exchanged(traffic: dict[str, Any] | None) -> list[str]:
    """What several processes told each other, if it was several."""
    if traffic is None or not traffic["steps"]:
        return []
    sent = f"{traffic['processes']} processes send {traffic['bytes'] / traffic['steps'] / 1e6:.1f} MB a step"
    return [f"{sent}, {traffic['waited']:.1%} of it waiting"]
