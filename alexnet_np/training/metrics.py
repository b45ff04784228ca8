"""What a run reports, one JSON object a line, in a file that a resumed run continues where its checkpoint left off."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_np.errors import CheckpointError, DataError, one_line
from alexnet_np.training.config import Config

Event = dict[str, Any]


class MetricsLog:
    """Appends events to a JSON-lines file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: Mapping[str, Any]) -> None:
        """Raises CheckpointError where the disk is full."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error.strerror or one_line(error)}") from error

    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Forget what was written after `size` bytes."""
        if self.size() > size:
            os.truncate(self.path, size)


def what_looks_broken(figures: Mapping[str, Any], classes: int, config: Config) -> str | None:
    """A word of warning after an epoch that taught nothing: the loss is still what guessing gives, ln(classes)."""
    guessing = math.log(classes)
    if classes < 2 or figures["train_loss"] < 0.98 * guessing or figures["accuracy"] > 1.5 / classes:
        return None
    remedies = [f"another lr than {config.lr:g}"]
    if config.momentum == 0:
        remedies.append("--momentum 0.9")
    if config.weights is None and config.initialisation != "kaiming":
        remedies.append("--initialisation kaiming")
    return (
        f"the network has learned nothing yet: its loss of {figures['train_loss']:.3f} is no better than guessing's, "
        f"ln({classes}) = {guessing:.3f}; if that stays so, try {' or '.join(remedies)}"
    )


def read_events(path: Path) -> list[Event]:
    """The events in a metrics file; a last line that is still being written is passed over. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: no such file; `alexnet train` writes it into its --out folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
    events = []
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            events.append({**event, "kind": event["kind"]})
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise DataError(f"{path}: line {number} is not a metric") from None
    return events
