"""The README's shell lines are commands that exist, with options that exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from alexnet_np.cli.app import app

README = Path(__file__).parent.parent / "README.md"
SHELL = "".join(re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL))
LINES = [line for line in SHELL.replace("\\\n", " ").splitlines() if line.startswith("alexnet ")]


@pytest.mark.parametrize("line", LINES)
def test_a_line_can_be_typed(line):
    """`a|b` at its end is a command a and one b, here without their arguments."""
    *before, last = shlex.split(line, comments=True)[1:]
    for name in last.split("|"):
        command, words = typer.main.get_command(app), [*before, name]
        while words and hasattr(command, "commands"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        if "|" not in last:
            command.make_context("alexnet", words)


def test_there_are_lines_and_a_wrong_one_would_be_noticed():
    assert len(LINES) > 10
    with pytest.raises(Exception, match="No such option"):
        test_a_line_can_be_typed("alexnet train --out x --nonsense 3")
