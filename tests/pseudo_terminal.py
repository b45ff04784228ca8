"""A terminal of a chosen width for the command line inside this process: what stands on the screen at the end."""

import contextlib
import io
import os
import pty
import re
import threading

from alexnet_np.cli.app import app

CODE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


def screen(monkeypatch, width, *arguments):
    """(lines on the screen, exit code) of `alexnet ARGUMENTS` on a pseudo-terminal of `width` columns."""
    text, code = typed(monkeypatch, width, *arguments)
    return drawn(text, width), code


def typed(monkeypatch, width, *arguments):
    """(all that is sent to that terminal, exit code)."""
    master, slave = pty.openpty()
    got: list[bytes] = []
    reader = threading.Thread(target=read, args=(master, got))
    reader.start()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = io.TextIOWrapper(os.fdopen(slave, "wb", buffering=0), "utf-8", write_through=True)
    code = 0
    with stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        try:
            app([str(argument) for argument in arguments], prog_name="alexnet")
        except SystemExit as end:
            code = end.code or 0
        stream.flush()
    reader.join()
    os.close(master)
    return b"".join(got).decode(), code


def read(master, got):
    with contextlib.suppress(OSError):  # the other end is closed
        while chunk := os.read(master, 65536):
            got.append(chunk)


def drawn(text, width):
    """The lines as a terminal shows them: carriage returns, lines erased, the cursor moved up, long lines broken."""
    lines, row, column = [""], 0, 0
    for part in re.split(r"(\x1b\[[?0-9;]*[A-Za-z]|\r|\n)", text):
        if part == "\n":
            row, column = row + 1, 0
        elif part == "\r":
            column = 0
        elif CODE.fullmatch(part):
            count = int(part[2:-1]) if part[2:-1].isdigit() else 1
            if part.endswith("A"):
                row = max(0, row - count)
            elif part == "\x1b[2K":
                lines[row] = ""
        else:
            for character in part:
                if column == width:
                    row, column = row + 1, 0
                    lines += [""] * (row + 1 - len(lines))
                lines[row] = lines[row].ljust(column)[:column] + character + lines[row][column + 1 :]
                column += 1
        lines += [""] * (row + 1 - len(lines))
    return [line.rstrip() for line in lines]
