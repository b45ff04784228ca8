"""`alexnet tune`: the fastest ways and sizes on this machine, measured, kept, shown, exported, imported and dropped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from alexnet_np.cli import show
from alexnet_np.cli.options import Json
from alexnet_np.errors import ArgumentError
from alexnet_np.kernels import choices, tuning
from alexnet_np.kernels.rows import Row, facts_of
from alexnet_np.measure.tuning import SECONDS, Stopped, Tuned
from alexnet_np.measure.tuning import measure as measure_choices


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Files and speed")(tune)


def tune(
    shown: Annotated[bool, typer.Option("--show", help="What is kept for this machine; measure nothing.")] = False,
    out: Annotated[Path | None, typer.Option("--export", metavar="FILE", help="Write all that is kept.")] = None,
    given: Annotated[Path | None, typer.Option("--import", metavar="FILE", help="Keep what FILE holds, too.")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Forget all that was measured.")] = False,
    seconds: Annotated[float, typer.Option("--seconds", help="Measure for at most about so long.")] = SECONDS,
    as_json: Json = False,
) -> None:
    """Measure the fastest ways and sizes on this machine, in under two minutes, and keep them.

    Of convolutions and dense layers, forward and backward, in plans and in training, on the CPU and on the GPU if there
    is one. From then on backends and plans ask them first. Run it while nothing else runs. What the time is not enough
    for stays as it was; Ctrl-C ends it early, and keeps what was found.

    Examples:
      alexnet tune
      alexnet tune --show
      alexnet tune --export here.json
    """
    if sum((shown, out is not None, given is not None, drop)) > 1:
        raise ArgumentError("tune: --show, --export, --import and --drop are asked for one at a time")
    done = "kept"
    if drop:
        done = "dropped" if choices.drop() else "nothing was kept"
    elif given is not None:
        done = f"imported for {'; '.join(choices.take(given)) or 'no machine'}"
    elif out is not None:
        tuning.write(tuning.kept(), out)
        done = f"exported to {out}"
    elif not shown:
        begin = time.monotonic()
        try:
            tuned = with_progress(seconds)
        except Stopped as stopped:
            show.note(f"alexnet: stopped; {stopped}")
            raise typer.Exit(130) from None
        done = f"kept; measured {tuned.measured} of {tuned.of} pieces of work in {time.monotonic() - begin:.0f} s"
        if tuned.measured < tuned.of:
            done += f", for which {seconds:g} seconds were enough: --seconds gives it more"
    report(choices.rows_here(), done, as_json)


def with_progress(seconds: float) -> Tuned:
    with show.progress("measuring", 100) as advance:
        at = 0

        def told(share: float) -> None:
            nonlocal at
            advance(int(100 * share) - at)
            at = int(100 * share)

        return measure_choices(seconds, told=told)


def report(rows: list[Row], done: str, as_json: bool) -> None:
    machine = tuning.machine() or "no Numba"
    if as_json:
        held = {"machine": machine, "gpu": tuning.machine("gpu") or None, "file": str(tuning.file()), "done": done}
        show.print_json(held | {"rows": [row.as_dict() for row in rows]})
        return
    table = show.table("op", "device", "where", "choice", "why", folds=("where", "why"))
    for row in rows:
        where, says = facts_of(row.where), facts_of(row.says)
        table.add_row(row.op, row.device, where, ", ".join(filter(None, [row.algorithm, says])), row.why)
    if rows:
        show.console().print(table)
    else:
        show.tell("the shipped table is asked: nothing else is kept for this machine")
    show.tell(f"{'; '.join(filter(None, [machine, tuning.machine('gpu')]))}: {done}")
