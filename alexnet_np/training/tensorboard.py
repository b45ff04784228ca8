"""TensorBoard files, through whichever writer is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alexnet_np.errors import MissingPackageError
from alexnet_np.training.metrics import Event

NOT_FIGURES = ("kind", "epoch", "epochs", "batch", "batches", "step")


class TensorBoard:
    """A listener that writes every batch's and every epoch's figures below `folder`. Raises MissingPackageError."""

    def __init__(self, folder: Path) -> None:
        self.writer = new_writer(folder)

    def __call__(self, event: Event) -> None:
        if event["kind"] in ("batch", "epoch"):
            for name, value in event.items():
                if name not in NOT_FIGURES:
                    self.writer.add_scalar(f"{event['kind']}/{name}", value, event["step"])
        if event["kind"] in ("epoch", "end"):
            self.writer.flush()


def new_writer(folder: Path) -> Any:
    """tensorboardX's, or the one that comes with torch. Nothing else of torch is used."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingPackageError("TensorBoard files need tensorboardX: pip install tensorboardX") from None
    return SummaryWriter(str(folder))
