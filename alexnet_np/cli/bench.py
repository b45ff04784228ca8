"""`alexnet bench`: implementations and peers side by side, in one interleaved run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console

from alexnet_np.cli import show
from alexnet_np.cli.options import Json
from alexnet_np.errors import AlexNetError, ArgumentError
from alexnet_np.figures import new_figure
from alexnet_np.files import picture_format

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
Roofline = Annotated[
    Path | None, typer.Option("--roofline", help="Also draw a roofline plot (.png, .svg, .pdf or .jpg).")
]
Busy = Annotated[bool, typer.Option("--busy", help="With one spinning process a core beside, as on a laptop in use.")]
Op = Annotated[str | None, typer.Option("--op", help="Only this op, e.g. conv2d.")]

PEERS = ("torch", "onnxruntime", "openvino")  # a contender is a peer when its name begins so


class Wanted(NamedTuple):
    """How to measure, and what to do with what came of it."""

    device: Where = Where.CPU
    rounds: int = 5
    cold: bool = False
    out: Path | None = None
    roofline: Path | None = None
    as_json: bool = False
    busy: bool = False


@app.command()
def kernels(
    op: Op = None,
    version: Annotated[
        list[str] | None,
        typer.Option("--version", help="Only the version of this name (`bench versions`); may be given again."),
    ] = None,
    batch: Annotated[list[int] | None, batches("8")] = None,
    device: Device = Where.CPU,
    rounds: Rounds = 11,
    cold: Cold = False,
    out: Out = None,
    roofline: Roofline = None,
    as_json: Json = False,
) -> None:
    """Every op at AlexNet's own shapes, forward and backward, each version of ours beside torch.

    With --device gpu, the kernels' own time, with the floor (bytes and FLOPs at the measured peaks) beside it.

    Examples:
      alexnet bench kernels --op conv2d --batch 32 --roofline roof.png
      alexnet bench kernels --op max_pool2d --version naive --version numba
      alexnet bench kernels --device gpu --batch 128
    """
    sizes, names = batch or [8], version or []

    def on_cpu() -> Iterator[Any]:
        from alexnet_np.measure import kernels, units

        chosen = kernels.chosen("cpu", op, names)
        for size in sizes:
            yield from kernels.works(size, op, names)
            yield from units.fused_works(size, op, names)
        if "sgd" in chosen:
            yield units.sgd_work(chosen["sgd"])

    def on_gpu(gpu: Any) -> Iterator[Any]:
        from alexnet_np.measure import gpu_kernels

        chosen = gpu_kernels.chosen("gpu", op, names)
        for size in sizes:
            yield from gpu_kernels.works(gpu, size, op, names)
        if "sgd" in chosen:
            yield gpu_kernels.sgd(gpu, names)

    wanted = Wanted(device, rounds, cold, out, roofline, as_json)
    _run(lambda gpu: on_gpu(gpu) if gpu else on_cpu(), wanted)


@app.command()
def versions(op: Op = None, as_json: Json = False) -> None:
    """Every version of every op: what `bench kernels --op OP --version VERSION` runs.

    Examples:
      alexnet bench versions
      alexnet bench versions --op conv2d
    """
    from alexnet_np.kernels.variants import versions

    found = versions(op)
    if as_json:
        keys = ("op", "name", "backend", "device", "dtypes", "module", "idea")
        show.print_json([{key: getattr(variant, key) for key in keys} for variant in found])
        return
    table = show.table("op", "version", "device", "idea", folds=["idea"])
    previous = ""
    for variant in found:
        name, previous = ("" if variant.op == previous else variant.op), variant.op
        table.add_row(name, variant.name, variant.device, variant.idea)
    show.console().print(table)


@app.command()
def model(
    preset: Preset = "torchvision",
    batch: Annotated[list[int] | None, batches("1, 32 and 128")] = None,
    device: Device = Where.CPU,
    rounds: Rounds = 11,
    cold: Cold = False,
    busy: Busy = False,
    out: Out = None,
    roofline: Roofline = None,
    as_json: Json = False,
) -> None:
    """The whole network's inference: eager backends and compiled plans beside PyTorch, ONNX Runtime and OpenVINO.

    With --device gpu, beside PyTorch eager, channels_last, with cudnn.benchmark, compiled and as a CUDA graph, strict
    float32 and TF32 apart.

    Examples:
      alexnet bench model --batch 32 --out today.json
      alexnet bench model --batch 1 --busy
      alexnet bench model --device gpu --batch 1 --batch 128
    """

    def works(gpu: Any) -> Iterator[Any]:
        from alexnet_np.measure import gpu_model, model

        return _each(gpu_model if gpu else model, gpu, batch or [1, 32, 128], preset)

    _run(works, Wanted(device, rounds, cold, out, roofline, as_json, busy))


@app.command()
def train(
    preset: Preset = "torchvision",
    batch: Annotated[list[int] | None, batches("32")] = None,
    device: Device = Where.CPU,
    rounds: Rounds = 5,
    busy: Busy = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """One training step: forward with dropout, backward, SGD with momentum and weight decay.

    Examples:
      alexnet bench train --batch 128
      alexnet bench train --device gpu --batch 128 --out gpu.json
    """

    def works(gpu: Any) -> Iterator[Any]:
        from alexnet_np.measure import gpu_training, training

        return _each(gpu_training if gpu else training, gpu, batch or [32], preset)

    _run(works, Wanted(device, rounds, out=out, as_json=as_json, busy=busy))


def _each(module: Any, gpu: Any, sizes: list[int], preset: str) -> Iterator[Any]:
    """A network's works, one batch size after the other."""
    for size in sizes:
        yield from module.works(*([gpu] if gpu else []), size, preset)


@app.command()
def load(rounds: Rounds = 5, out: Out = None, as_json: Json = False) -> None:
    """Reading a full-size weight file beside torch.load, and decoding JPEGs beside torch's DataLoader.

    Examples:
      alexnet bench load
      alexnet bench load --rounds 11 --out load.json
    """
    from alexnet_np.measure import load

    _run(lambda gpu: load.works(), Wanted(rounds=rounds, out=out, as_json=as_json))


@app.command()
def jobs(
    images: Annotated[int, typer.Option("--images", "-n", help="How many JPEGs of 500x375.", min=2)] = 600,
    rounds: Rounds = 5,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """A folder of JPEGs as vectors, as `embed` does, beside torchvision's DataLoader, ONNX Runtime and OpenVINO.

    Below the table stand everybody's images a second, and the bound that decoding and the network set together.

    Examples:
      alexnet bench jobs
      alexnet bench jobs --images 2000 --out jobs.json
    """
    from alexnet_np.measure import jobs

    _run(lambda gpu: jobs.works(images), Wanted(rounds=rounds, out=out, as_json=as_json))


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


def _run(works: Callable[[Any], Iterable[Any]], wanted: Wanted) -> None:
    """Measure one work after the other, and show, save and draw what came of it. `works` is given the GPU, or None."""
    from alexnet_np.measure import harness, machine
    from alexnet_np.measure.report import Report
    from alexnet_np.measure.spinning import spinning

    _check(wanted)
    gpu, measure_peaks = None, machine.measure_peaks
    if wanted.device is Where.GPU:
        from alexnet_np.measure import gpu as measured

        gpu = measured.Gpu()
        measure_peaks = partial(measured.measure_peaks, gpu)
    busy = machine.others()
    if busy:
        show.note(f"alexnet: {busy}: times will be too long and shares of the peaks wrong; stop them, or wait")
    found = Report(gpu.about() if gpu else machine.machine(), measure_peaks())
    with spinning(wanted.busy) as beside, Console(stderr=True).status("measuring") as status:
        for work in works(gpu):
            peers = [c.name for c in work.contenders if c.name.startswith(PEERS)]
            rows = harness.measure(work, found.peaks, peers, wanted.rounds, wanted.cold, status.update)
            found.rows += rows
            found.notes += work.summary(rows)
            del work  # so that its arrays can go before the next is made
            if wanted.out is not None:
                found.save(wanted.out)  # what was measured is kept, whatever ends the run
    found.raise_peaks(measure_peaks())
    busy = busy or machine.others()
    found.machine["busy"] = f"{beside} spinning processes beside" if beside else str(busy) if busy else ""
    _tell(found, wanted)


def _check(wanted: Wanted) -> None:
    """What would fail after minutes of measuring fails now."""
    if wanted.roofline is not None:
        picture_format(wanted.roofline)
        new_figure(1, 1)  # if Matplotlib is missing, say so now
    if wanted.out is not None and not wanted.out.parent.is_dir():
        raise ArgumentError(f"{wanted.out}: there is no folder {wanted.out.parent}; create it first")


def _tell(found: Any, wanted: Wanted) -> None:
    from alexnet_np.measure.roofline import draw_roofline
    from alexnet_np.measure.table import ReportTable

    if wanted.out is not None:
        found.save(wanted.out)
    if wanted.roofline is not None:
        draw_roofline(found, wanted.roofline)
    if wanted.as_json:
        show.print_json(asdict(found))
    else:
        show.console().print(ReportTable(found))
        for note in found.notes:
            print(note)
