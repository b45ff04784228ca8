"""The Typer application: its commands, and how it ends.

Exit codes: 0; 1 for whatever went wrong; 2 for a wrong command line; 130 after Ctrl-C. All but 0 say why, in one line
on standard error. Under mpirun a run that was stopped and has saved is 0: launchers make an alarm of any other code.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from difflib import get_close_matches
from inspect import cleandoc
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import alexnet_np
from alexnet_np.cli import (
    attribute,
    bench,
    compare,
    demo,
    explain,
    explore,
    filters,
    images,
    lpips,
    patches,
    plan_cluster,
    show,
    similar,
    study,
    summary,
    train,
    tune,
    weights,
)
from alexnet_np.errors import AlexNetError, one_line
from alexnet_np.training.parallel.group import hear_out, speaks

ClickException: Any = typer.BadParameter.__mro__[2]  # click's, or of the copy of click that Typer brings


def show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning in one line, as every other word to whoever typed the command."""
    show.note(f"alexnet: {one_line(Warning(str(message)))}")


class OneLineErrors(TyperGroup):
    """Turns every error that a user can mend into one line, without a traceback."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for command in self.commands.values():
            tidy(command)

    def main(self, *args: Any, **extra: Any) -> Any:
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        try:
            sys.exit(super().main(*args, **extra | {"standalone_mode": False}))
        except ClickException as error:
            if (said := usage(error)) and speaks():
                show.note(said)
            hear_out()
            sys.exit(error.exit_code)

    def invoke(self, ctx: Any) -> Any:
        warnings.showwarning = show_warning
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, so that a closed pipe is noticed here
            return result
        except BrokenPipeError:  # whoever read our output has seen enough
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            show.note("alexnet: stopped; nothing was written")
            raise typer.Exit(130) from None
        except AlexNetError as error:
            message = one_line(error)
        except MemoryError:
            message = "not enough memory; try a smaller --batch-size"
        except OSError as error:
            message = f"{error.filename}: {error.strerror}" if error.filename else one_line(error)
        show.note(f"alexnet: {message.removeprefix('alexnet: ')}")  # the function of that name says it too
        raise typer.Exit(1)


def tidy(command: Any) -> None:
    """Make the help of `command`, and of those below it, wrap well: flags take no type, and text is set anew."""
    command.help = reflow(command.help or "")
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    for below in getattr(command, "commands", {}).values():
        tidy(below)


def reflow(text: str) -> str:
    """A docstring for a screen of any width: a paragraph a line, and an example a line, with a prompt before it."""
    paragraphs = []
    for paragraph in cleandoc(text).split("\n\n"):
        head, *lines = paragraph.splitlines() or [""]
        if head == "Examples:":
            joined = "\n".join(lines).replace("\n    ", " ").splitlines()  # what is indented deeper goes on
            paragraphs.append("\n".join([head, *(f"$ {' '.join(line.split())}" for line in joined)]))
        else:
            paragraphs.append(" ".join(paragraph.split()))
    return "\n\n".join(paragraphs)


def usage(error: Any) -> str:
    """A wrong command line, in one line: what is wrong with it, what was perhaps meant, and where that is explained."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return ""  # the help has been printed
    context = error.ctx
    said = " ".join(error.format_message().split()).rstrip(".")
    said = said.replace("Input should be", "must be").replace("Value error, ", "")  # pydantic's words, inside Typer
    if type(error).__name__ == "NoSuchOption":
        known = {option for parameter in context.command.params for option in parameter.opts + parameter.secondary_opts}
        likely = get_close_matches(error.option_name, sorted(known), n=2, cutoff=0.7)
        said = f"no such option: {error.option_name}" + (f" (did you mean {' or '.join(likely)}?)" if likely else "")
    where = "alexnet" if context is None else context.command_path
    return f"alexnet: {said[:1].lower()}{said[1:]}; see {where} --help"


app = typer.Typer(
    name="alexnet",
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(asked: bool) -> None:
    if asked:
        print(f"alexnet-np {alexnet_np.__version__}")
        raise typer.Exit


@app.callback(epilog="Start with [bold]alexnet demo[/]; every command has its own [bold]--help[/] with examples.")
def alexnet(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """AlexNet, to study, to check against and to measure with."""


demo.register(app)
images.register(app)
summary.register(app)
study.register(app)
compare.register(app)
explain.register(app)
explore.register(app)
attribute.register(app)
patches.register(app)
similar.register(app)
lpips.register(app)
filters.register(app)
train.register(app)
plan_cluster.register(app)
tune.register(app)
app.add_typer(weights.app, name="weights", rich_help_panel="Files and speed")
app.add_typer(bench.app, name="bench", rich_help_panel="Files and speed")
