"""The `alexnet` command. A file for each group of commands; app.py puts them together."""

from __future__ import annotations

import sys
import warnings


def main() -> None:
    """What the installed `alexnet` runs."""
    try:
        from alexnet_np.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("typer", "click", "rich"):
            raise
        sys.exit("alexnet: the command line needs the packages typer and rich: pip install typer rich")
    # Pillow warns of an enormous image, which we then refuse in one line (alexnet_np/data/preprocess.py).
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    for stream in sys.stdout, sys.stderr:  # a bar, or a file's name, may hold what the terminal cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="alexnet.plainly")  # cli/show.py
    app(prog_name="alexnet")
