"""What `alexnet train --recipe help` prints: the recipes side by side."""

from __future__ import annotations

import sys
import textwrap

import typer
from rich.text import Text

from alexnet_np.cli import show
from alexnet_np.training.recipes import RECIPES, table

SIDE_BY_SIDE = 80  # columns that the table needs for its words


def show_recipes(name: str | None) -> str | None:
    """`--recipe help`: what each of them says, and where that is from."""
    if name == "help":
        console = show.console()
        if console.width < SIDE_BY_SIDE:
            for i, said in enumerate(RECIPES, 1):
                console.print(Text(said, "bold"), show.facts({row[0]: row[i] for row in table() if row[i]}), "")
        else:
            shown = show.table("", *RECIPES, folds=list(RECIPES))
            for row in table():
                shown.add_row(*row)
            console.print(shown)
        for said, recipe in RECIPES.items():
            lines = [Text(wrapped(f"  {line}", console.width), "dim") for line in recipe.lines()]
            show.say(Text(), Text(f"{said}: {recipe.title}", "bold"), *lines)
        raise typer.Exit
    return name


def wrapped(line: str, width: int) -> str:
    """`line` as it is; for a terminal broken between words, further lines indented."""
    if not sys.stdout.isatty():
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
