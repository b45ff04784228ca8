"""What the commands print with: consoles, tables, bars, a progress bar, JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

WIDTH = 100  # of what does not go to a terminal
BLOCKS = " ▏▎▍▌▋▊▉█"


def console() -> Console:
    """Standard output. Names of files are printed as they are, whatever brackets they hold."""
    width = None if sys.stdout.isatty() else WIDTH
    return Console(markup=False, emoji=False, highlight=False, width=width)


def say(*lines: Text) -> None:
    """Lines on standard output, above a progress bar too: the bar makes way for `print`, but for no other console."""
    made = console()
    with made.capture() as captured:
        made.print(*lines, sep="\n", soft_wrap=True)
    print(captured.get(), end="")


def note(message: str) -> None:
    """One line on standard error."""
    print(message, file=sys.stderr)


def print_json(value: Any) -> None:
    """`value` as JSON on standard output; NaN and infinity, which JSON lacks, as null."""
    print(json.dumps(_without_nan(value), indent=2))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(*columns: str) -> Table:
    """An empty table with a line under its head and no other. A column whose name starts with ">" is right-aligned."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=True)
    return made


def bar(share: float, width: int) -> Text:
    """A bar of `share` (0..1) of `width` characters, in eighths of a character."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8) if math.isfinite(share) else 0
    full, rest = divmod(eighths, 8)
    return Text(("█" * full + (BLOCKS[rest] if rest else "")).ljust(width), "cyan")


def shape(sizes: tuple[int, ...]) -> str:
    return "×".join(map(str, sizes))


def facts(rows: dict[str, str]) -> Table:
    """Name and value, a pair a line."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows.items():
        made.add_row(name, value)
    return made


class Rate(ProgressColumn):
    """How many are done a second, of late."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", "dim")


@contextmanager
def progress(description: str, total: int, rate: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on standard error while the block runs, where that is a terminal and there is more than one thing to do.

    Gives the function to call with how many more are done. `rate`: tell how many a second.
    """
    if not sys.stderr.isatty() or total < 2:
        yield lambda done: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    speed = [Rate()] if rate else []
    # What is printed meanwhile goes above the bar, but only if it goes to the terminal at all.
    above = sys.stdout.isatty()
    with Progress(*columns, *speed, console=Console(stderr=True), transient=True, redirect_stdout=above) as shown:
        task = shown.add_task(description, total=total)
        yield lambda done: shown.advance(task, done)
