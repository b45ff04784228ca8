"""What `alexnet train --recipe help` prints: the recipes side by side."""

from __future__ import annotations

import typer
from rich.text import Text

from alexnet_np.cli import show
from alexnet_np.training.recipes import RECIPES, table


def show_recipes(name: str | None) -> str | None:
    """`--recipe help`: what each of them says, and where that is from."""
    if name == "help":
        shown = show.table("", *RECIPES, folds=list(RECIPES))
        for row in table():
            shown.add_row(*row)
        show.console().print(shown)
        for said, recipe in RECIPES.items():
            lines = [Text(f"  {line}", "dim") for line in recipe.lines()]
            show.say(Text(), Text(f"{said}: {recipe.title}", "bold"), *lines)
        raise typer.Exit
    return name
