"""`alexnet bench`: implementations and peers side by side, in one interleaved run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from alexnet_np.cli import show
from alexnet_np.cli.options import Json
from alexnet_np.errors import AlexNetError, MissingPackageError

HELP = """Implementations and peers side by side: verified first, warmed up, taking turns.

Examples:
  alexnet bench kernels --op conv2d
  alexnet bench model --batch 32 --out today.json
  alexnet bench compare yesterday.json today.json
"""

app = typer.Typer(help=HELP, no_args_is_help=True)


class Where(StrEnum):
    CPU = "cpu"
    GPU = "gpu"


def batches(default: str) -> Any:
    """--batch, a list; Typer wants no list as a default."""
    return typer.Option("--batch", "-b", help="Images at a time; may be given again.", min=1, show_default=default)


Device = Annotated[Where, typer.Option("--device", help="Whose contenders; gpu is the first NVIDIA one.")]
Preset = Annotated[str, typer.Option("--preset", "-p", help="Whose shapes.")]
Rounds = Annotated[int, typer.Option("--rounds", help="Timed turns of each contender.", min=3)]
Cold = Annotated[bool, typer.Option("--cold", help="Clear the caches before every turn.")]
Out = Annotated[Path | None, typer.Option("--out", help="Also save the report, as JSON, for `bench compare`.")]
Roofline = Annotated[Path | None, typer.Option("--roofline", help="Also draw a roofline plot, a PNG.")]

WIDTH = 150  # of a report that does not go to a terminal
PEERS = ("torch", "onnxruntime", "openvino")  # a contender is a peer when its name begins so


@app.command()
def kernels(
    op: Annotated[str | None, typer.Option("--op", help="Only this op, e.g. conv2d.")] = None,
    batch: Annotated[list[int] | None, batches("8")] = None,
    device: Device = Where.CPU,
    rounds: Rounds = 11,
    cold: Cold = False,
    out: Out = None,
    roofline: Roofline = None,
    as_json: Json = False,
) -> None:
    """Every op at AlexNet's own shapes, forward and backward, each implementation and algorithm beside torch.

    With --device gpu, the kernels' own time, with the floor (bytes and FLOPs at the measured peaks) beside it.

    Examples:
      alexnet bench kernels --op conv2d --batch 32 --roofline roof.png
      alexnet bench kernels --device gpu --batch 128
    """
    sizes = batch or [8]

    def on_cpu() -> Iterable[Any]:
        from alexnet_np.measure import conv2d, kernels

        for size in sizes:
            yield from kernels.works(size, op)
            if op in (None, "conv2d"):  # and every algorithm by itself
                yield from conv2d.works(size)

    def on_gpu(gpu: Any) -> Iterable[Any]:
        from alexnet_np.measure import gpu_kernels

        for size in sizes:
            yield from gpu_kernels.works(gpu, size, op)
        if op in (None, "sgd"):
            yield gpu_kernels.sgd(gpu)

    _run(lambda gpu: on_gpu(gpu) if gpu else on_cpu(), device, rounds, cold, out, roofline, as_json)


@app.command()
def model(
    preset: Preset = "torchvision",
    batch: Annotated[list[int] | None, batches("1, 32 and 128")] = None,
    device: Device = Where.CPU,
    rounds: Rounds = 11,
    cold: Cold = False,
    out: Out = None,
    roofline: Roofline = None,
    as_json: Json = False,
) -> None:
    """The whole network's inference: eager backends and compiled plans beside PyTorch, ONNX Runtime and OpenVINO.

    With --device gpu, beside PyTorch eager, channels_last, with cudnn.benchmark, compiled and as a CUDA graph, strict
    float32 and TF32 apart.

    Examples:
      alexnet bench model --batch 32 --out today.json
      alexnet bench model --device gpu --batch 1 --batch 128
    """
    sizes = batch or [1, 32, 128]

    def works(gpu: Any) -> Iterable[Any]:
        if gpu:
            from alexnet_np.measure import gpu_model

            return (work for size in sizes for work in gpu_model.works(gpu, size, preset))
        from alexnet_np.measure import model

        return (work for size in sizes for work in model.works(size, preset))

    _run(works, device, rounds, cold, out, roofline, as_json)


@app.command()
def train(
    preset: Preset = "torchvision",
    batch: Annotated[list[int] | None, batches("32")] = None,
    device: Device = Where.CPU,
    rounds: Rounds = 5,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """One training step: forward with dropout, backward, SGD with momentum and weight decay.

    Examples:
      alexnet bench train --batch 128
      alexnet bench train --device gpu --batch 128 --out gpu.json
    """
    sizes = batch or [32]

    def works(gpu: Any) -> Iterable[Any]:
        if gpu:
            from alexnet_np.measure import gpu_training

            return (work for size in sizes for work in gpu_training.works(gpu, size, preset))
        from alexnet_np.measure import training

        return (work for size in sizes for work in training.works(size, preset))

    _run(works, device, rounds, False, out, None, as_json)


@app.command()
def load(rounds: Rounds = 5, out: Out = None, as_json: Json = False) -> None:
    """Reading a full-size weight file beside torch.load, and decoding JPEGs beside torch's DataLoader.

    Examples:
      alexnet bench load
      alexnet bench load --rounds 11 --out load.json
    """
    from alexnet_np.measure import load

    _run(lambda gpu: load.works(), Where.CPU, rounds, False, out, None, as_json)


@app.command()
def compare(before: Path, after: Path, as_json: Json = False) -> None:
    """Two saved reports: how much faster each contender has become.

    Examples:
      alexnet bench model --batch 32 --out before.json
      alexnet bench model --batch 32 --out after.json
      alexnet bench compare before.json after.json
    """
    from alexnet_np.measure import report

    pairs = report.compare(_load(before), _load(after))
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
    from alexnet_np.measure.report import Report

    try:
        return Report.load(path)
    except OSError:
        raise
    except Exception:
        raise AlexNetError(f"{path}: not a report that `alexnet bench ... --out` saved") from None


def _run(
    works: Callable[[Any], Iterable[Any]],
    device: Where,
    rounds: int,
    cold: bool,
    out: Path | None,
    roofline: Path | None,
    as_json: bool,
) -> None:
    """Measure one work after the other, and show, save and draw what came of it. `works` is given the GPU, or None."""
    from alexnet_np.measure import harness, report

    if roofline is not None:
        _need_matplotlib()
    machine = None
    if device is Where.GPU:
        from alexnet_np.measure import gpu

        machine = gpu.Gpu()
        found = report.Report(machine.about(), gpu.measure_peaks(machine))
    else:
        found = report.Report(harness.machine(), harness.measure_peaks())
    with Console(stderr=True).status("measuring") as status:
        for work in works(machine):
            peers = [c.name for c in work.contenders if c.name.startswith(PEERS)]
            found.rows += harness.measure(work, found.peaks, peers, rounds, cold, status.update)
            del work  # so that its arrays can go before the next is made
    if out is not None:
        found.save(out)
    if roofline is not None:
        report.roofline(found, roofline)
    if as_json:
        show.print_json(asdict(found))
    else:
        Console(width=None if sys.stdout.isatty() else WIDTH, markup=False).print(report.table(found))


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingPackageError("--roofline needs matplotlib: pip install matplotlib") from None
