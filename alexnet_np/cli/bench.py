"""`alexnet bench`: implementations and peers side by side, in one interleaved run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from alexnet_np.cli import show
from alexnet_np.cli.options import Json
from alexnet_np.errors import AlexNetError, MissingPackageError

app = typer.Typer(
    help="Implementations and peers side by side: verified first, warmed up, taking turns.", no_args_is_help=True
)



def batches(default: str) -> Any:
    """--batch, a list; Typer wants no list as a default."""
    return typer.Option("--batch", "-b", help="Images at a time; may be given again.", min=1, show_default=default)


Preset = Annotated[str, typer.Option("--preset", "-p", help="Whose shapes.")]
Rounds = Annotated[int, typer.Option("--rounds", help="Timed turns of each contender.", min=3)]
Cold = Annotated[bool, typer.Option("--cold", help="Clear the caches before every turn.")]
Out = Annotated[Path | None, typer.Option("--out", help="Also save the report, as JSON, for `bench compare`.")]
Roofline = Annotated[
    Path | None, typer.Option("--roofline", help="Also draw a roofline plot, a PNG.")
]

WIDTH = 150  # of a report that does not go to a terminal
PEERS = ("torch", "onnxruntime", "openvino")  # a contender is a peer when its name begins so


@app.command()
def kernels(
    op: Annotated[str | None, typer.Option("--op", help="Only this op, e.g. conv2d.")] = None,
    batch: Annotated[list[int] | None, batches("8")] = None,
    rounds: Rounds = 11,
    cold: Cold = False,
    out: Out = None,
    roofline: Roofline = None,
    as_json: Json = False,
) -> None:
    """Every op at AlexNet's own shapes, forward and backward, each implementation and algorithm beside torch.

    Examples:
      alexnet bench kernels --op conv2d --batch 32 --roofline roof.png
    """
    from alexnet_np.benchmarks import bench_conv2d, bench_kernels

    def works() -> Iterable[Any]:
        for size in batch or [8]:
            yield from bench_kernels.works(size, op)
            if op in (None, "conv2d"):  # and every algorithm by itself
                yield from bench_conv2d.works(size)

    _run(works, rounds, cold, out, roofline, as_json)


@app.command()
def model(
    preset: Preset = "torchvision",
    batch: Annotated[list[int] | None, batches("1, 32 and 128")] = None,
    rounds: Rounds = 11,
    cold: Cold = False,
    out: Out = None,
    roofline: Roofline = None,
    as_json: Json = False,
) -> None:
    """The whole network's inference: eager backends and compiled plans beside PyTorch, ONNX Runtime and OpenVINO.

    Examples:
      alexnet bench model --batch 32 --out today.json
    """
    from alexnet_np.benchmarks import bench_model

    sizes = batch or [1, 32, 128]
    _run(lambda: (w for size in sizes for w in bench_model.works(size, preset)), rounds, cold, out, roofline, as_json)


@app.command()
def train(
    preset: Preset = "torchvision",
    batch: Annotated[list[int] | None, batches("32")] = None,
    rounds: Rounds = 5,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """One training step: forward with dropout, backward, SGD with momentum and weight decay."""
    from alexnet_np.benchmarks import bench_train

    sizes = batch or [32]
    _run(lambda: (w for size in sizes for w in bench_train.works(size, preset)), rounds, False, out, None, as_json)


@app.command()
def load(rounds: Rounds = 5, out: Out = None, as_json: Json = False) -> None:
    """Reading a full-size weight file beside torch.load, and decoding JPEGs beside torch's DataLoader."""
    from alexnet_np.benchmarks import bench_load

    _run(bench_load.works, rounds, False, out, None, as_json)


@app.command()
def compare(before: Path, after: Path, as_json: Json = False) -> None:
    """Two saved reports: how much faster each contender has become."""
    from alexnet_np.benchmarks import harness

    pairs = harness.compare(_load(before), _load(after))
    if not pairs:
        raise AlexNetError(f"{before} and {after} have no work and contender in common")
    if as_json:
        keys = ("work", "contender", "before", "after", "speedup")
        show.print_json([dict(zip(keys, pair, strict=True)) for pair in pairs])
        return
    table = show.table("work", "contender", ">before ms", ">after ms", ">times faster")
    for work, contender, old, new, speedup in pairs:
        table.add_row(work, contender, f"{1e3 * old:.3f}", f"{1e3 * new:.3f}", f"{speedup:.2f}")
    show.console().print(table)


def _load(path: Path) -> Any:
    from alexnet_np.benchmarks.harness import Report

    try:
        return Report.load(path)
    except OSError:
        raise
    except Exception:
        raise AlexNetError(f"{path}: not a report that `alexnet bench ... --out` saved") from None


def _run(
    works: Callable[[], Iterable[Any]], rounds: int, cold: bool, out: Path | None, roofline: Path | None, as_json: bool
) -> None:
    """Measure one work after the other, and show, save and draw what came of it."""
    from alexnet_np.benchmarks import harness

    if roofline is not None:
        _need_matplotlib()
    report = harness.Report(harness.machine(), harness.measure_peaks())
    described = []
    with Console(stderr=True).status("measuring") as status:
        for work in works():
            peers = [c.name for c in work.contenders if c.name.startswith(PEERS)]
            report.rows += harness.measure(work, report.peaks, peers, rounds, cold, status.update)
            described.append(harness.Work(work.name, work.flops, work.bytes, []))  # without its arrays
    if out is not None:
        report.save(out)
    if roofline is not None:
        harness.roofline(report, described, roofline)
    if as_json:
        show.print_json(asdict(report))
    else:
        Console(width=None if sys.stdout.isatty() else WIDTH, markup=False).print(harness.table(report))


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingPackageError("--roofline needs matplotlib: pip install 'alexnet-np[plots]'") from None
