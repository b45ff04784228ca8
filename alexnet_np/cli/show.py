"""What the commands print with: consoles, tables, bars, a progress bar, JSON."""

from __future__ import annotations

import codecs
import json
import math
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import rich.table
import typer
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

WIDTH = 120  # of what does not go to a terminal
NARROWEST = 60  # a terminal narrower than this breaks the lines itself, and loses nothing
BLOCKS = " ▏▎▍▌▋▊▉█"
PLAIN = dict(zip(BLOCKS, "   #####", strict=False)) | {"█": "#", "✓": "+", "✗": "X", "×": "x", "·": "-", "–": "-"}
PLAIN |= {"−": "-", "≤": "<", "→": ">", "…": "~", "²": "2", "─": "-"}  # one for one, so that columns stay columns


def plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for a character that a stream cannot show (an error handler for encoding): its like, or its code."""
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] in PLAIN:
        return PLAIN[error.object[error.start]], error.start + 1
    return codecs.backslashreplace_errors(error)


codecs.register_error("alexnet.plainly", plainly)


def console() -> Console:
    """Standard output. Names of files are printed as they are, whatever brackets they hold."""
    made = Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    made.width = max(made.width, NARROWEST)
    return made


def say(*lines: Text) -> None:
    """Lines on standard output, above a progress bar too: the bar makes way for `print`, but for no other console."""
    made = console()
    with made.capture() as captured:
        made.print(*lines, sep="\n", soft_wrap=True)
    print(captured.get(), end="")


def tell(message: str) -> None:
    """One line on standard output."""
    print(in_words(message, sys.stdout))


def note(message: str) -> None:
    """One line on standard error."""
    print(in_words(message, sys.stderr), file=sys.stderr)


def in_words(message: str, stream: Any) -> str:
    """`message` as it is; for a terminal broken between words, where it would break a number or a name in two."""
    if not stream.isatty():
        return message
    width = max(shutil.get_terminal_size().columns, NARROWEST)
    return textwrap.fill(message, width, break_long_words=False, break_on_hyphens=False)


def print_json(value: Any) -> None:
    """`value` as JSON on standard output; NaN and infinity, which JSON lacks, as null."""
    print(json.dumps(_without_nan(value), indent=2))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Table:
    """Rows under a head, for a screen of any width: columns that do not fit are left out, and no cell is ever cut.

    A column whose name starts with ">" is right-aligned. `spare`: names of columns that may go, the first first; all
    of one name go together. `folds`: columns of words that may break onto further lines, once nothing more may go.
    """

    def __init__(self, *columns: str, spare: Sequence[str] = (), folds: Sequence[str] = ()) -> None:
        self.heads = [column.removeprefix(">") for column in columns]
        self.right = [column.startswith(">") for column in columns]
        self.spare, self.folds = spare, folds
        self.rows: list[tuple[tuple[str | Text, ...], str]] = []
        self.sections: set[int] = set()

    def add_row(self, *cells: str | Text, style: str = "") -> None:
        self.rows.append((cells, style))

    def add_section(self) -> None:
        """A line under the last row."""
        self.sections.add(len(self.rows))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = list(range(len(self.heads)))
        made = self._build(kept)
        for name in self.spare:
            if _width(console, options, made) <= options.max_width:
                break
            kept = [i for i in kept if self.heads[i] != name]
            made = self._build(kept)
        if _width(console, options, made) > options.max_width:
            made = self._build(kept, self.folds)
        yield made

    def _build(self, kept: Sequence[int], folds: Sequence[str] = ()) -> rich.table.Table:
        made = rich.table.Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        for i in kept:
            justify: Any = "right" if self.right[i] else "left"
            made.add_column(self.heads[i], justify=justify, no_wrap=self.heads[i] not in folds, overflow="fold")
        for number, (cells, style) in enumerate(self.rows):
            if number in self.sections:
                made.add_section()
            made.add_row(*(cells[i] if i < len(cells) else "" for i in kept), style=style)
        return made


def _width(console: Console, options: ConsoleOptions, made: rich.table.Table) -> int:
    """Columns of the screen that `made` takes where it has all the room it wants."""
    return console.measure(made, options=options.update(max_width=10_000)).maximum


def table(*columns: str, spare: Sequence[str] = (), folds: Sequence[str] = ()) -> Table:
    return Table(*columns, spare=spare, folds=folds)


def verdict(ok: bool) -> Text:
    return Text("✓", "green") if ok else Text("✗", "bold red")


def bar(share: float, width: int) -> Text:
    """A bar of `share` (0..1) of `width` characters, in eighths of a character."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8) if math.isfinite(share) else 0
    full, rest = divmod(eighths, 8)
    return Text(("█" * full + (BLOCKS[rest] if rest else "")).ljust(width), "cyan")


def short(error: float) -> str:
    """1.2e-07 as 1.2e-7."""
    mantissa, _, exponent = f"{error:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def shape(sizes: tuple[int, ...]) -> str:
    return "×".join(map(str, sizes))


def facts(rows: dict[str, str]) -> rich.table.Table:
    """Name and value, a pair a line."""
    made = rich.table.Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows.items():
        made.add_row(name, value)
    return made


class Rate(ProgressColumn):
    """How many are done a second, of late."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", "dim")


def screen() -> Console:
    """Standard error, for what passes: bars and notices."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False)


def bar_width(width: int) -> int:
    """Of a progress bar on a screen that wide, which words and numbers share."""
    return max(8, min(40, width - 60))


@contextmanager
def progress(description: str, total: int, rate: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on standard error while the block runs, where that is a terminal and there is more than one thing to do.

    Gives the function to call with how many more are done. `rate`: tell how many a second.
    """
    if not sys.stderr.isatty() or total < 2:
        yield lambda done: None
        return
    made = screen()
    bar = BarColumn(bar_width=bar_width(made.width))
    columns = TextColumn("{task.description}", markup=False), bar, MofNCompleteColumn(), TimeRemainingColumn()
    speed = [Rate()] if rate else []
    # What is printed meanwhile goes above the bar, but only if it goes to the terminal at all.
    with Progress(*columns, *speed, console=made, transient=True, redirect_stdout=sys.stdout.isatty()) as shown:
        task = shown.add_task(description, total=total)
        yield lambda done: shown.advance(task, done)


@contextmanager
def stoppable(kept: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C within the block ends with exit code 130 and one line: what was done, and what of it is kept."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"alexnet: stopped: {kept()}")
        raise typer.Exit(130) from None


def fitting(pieces: Iterable[str], room: int) -> str:
    """As many of the pieces as `room` holds, two blanks between them; the first in any case."""
    first, *rest = pieces
    for piece in rest:
        if len(first) + 2 + len(piece) > room:
            break
        first = f"{first}  {piece}"
    return first


def in_lines(pieces: Iterable[str], width: int) -> str:
    """All pieces, two blanks between them, on lines of at most `width`; those after the first indented by two."""
    first, *rest = pieces
    lines = [first]
    for piece in rest:
        if len(lines[-1]) + 2 + len(piece) <= width:
            lines[-1] = f"{lines[-1]}  {piece}"
        else:
            lines.append(f"  {piece}")
    return "\n".join(lines)
