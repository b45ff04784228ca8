"""`alexnet bench`: implementations and peers side by side, in one interleaved run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console

from alexnet_np.cli import show
from alexnet_np.cli.options import Json
from alexnet_np.errors import AlexNetError, ArgumentError

HELP = """Implementations and peers side by side: verified first, warmed up, taking turns.

Examples:
  alexnet bench kernels --op conv2d
  alexnet bench model --batch 32 --out today.json
  alexnet bench compare yesterday.json today.json
  alexnet bench draw today.json --out today.svg
"""

app = typer.Typer(help=HELP, no_args_is_help=True)


class Where(StrEnum):
    CPU = "cpu"
    GPU = "gpu"


class Drawn(StrEnum):
    PEERS = "peers"
    ACCURACY = "accuracy"
    ROOFLINE = "roofline"
    KERNELS = "kernels"


def batches(default: str) -> Any:
    """--batch, a list; Typer wants no list as a default."""
    return typer.Option("--batch", "-b", help="Images at a time; may be given again.", min=1, show_default=default)


Device = Annotated[Where, typer.Option("--device", help="Whose contenders; gpu is the first NVIDIA one.")]
Preset = Annotated[str, typer.Option("--preset", "-p", help="Whose shapes.")]
Rounds = Annotated[int, typer.Option("--rounds", help="Timed turns of each contender.", min=3)]
Cold = Annotated[bool, typer.Option("--cold", help="Clear the caches before every turn.")]
Out = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        help="Also save it: .json for `bench compare` and `bench draw`, .md, or drawn as .svg, .png, .pdf or .jpg; "
        "may be given again.",
    ),
]
Roofline = Annotated[
    Path | None, typer.Option("--roofline", help="Also draw a roofline plot (.png, .svg, .pdf or .jpg).")
]
Accuracy = Annotated[
    Path | None, typer.Option("--accuracy", help="Also draw everybody's error over the time taken (.png, .svg ...).")
]
Busy = Annotated[bool, typer.Option("--busy", help="With one spinning process a core beside, as on a laptop in use.")]
Op = Annotated[str | None, typer.Option("--op", help="Only this op, e.g. conv2d.")]


class Wanted(NamedTuple):
    """How to measure, and what to do with what came of it."""

    device: Where = Where.CPU
    rounds: int = 5
    cold: bool = False
    out: Sequence[Path] = ()
    drawn: Mapping[str, Path | None] = MappingProxyType({})  # kind of picture -> its file
    as_json: bool = False
    busy: bool = False

    def check(self) -> None:
        """What would fail after minutes of measuring fails now."""
        from alexnet_np.measure import outputs

        for path in (*self.out, *filter(None, self.drawn.values())):
            outputs.check(path, report=path in self.out)

    def save(self, found: Any, whole: bool) -> None:
        """`whole`: with the pictures; a run that may be ended yet keeps its rows alone."""
        from alexnet_np.measure import outputs

        for path in self.out:
            if whole or not outputs.is_picture(path):
                outputs.write(found, path)
        for kind, file in self.drawn.items():
            if whole and file is not None:
                outputs.draw([found], kind, file)


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

    wanted = Wanted(device, rounds, cold, out or (), {"roofline": roofline}, as_json)
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
    reduced: Annotated[
        bool, typer.Option("--reduced", help="With the peers' own modes of fewer bits: bf16, f16, int8; not on a GPU.")
    ] = False,
    out: Out = None,
    roofline: Roofline = None,
    accuracy: Accuracy = None,
    as_json: Json = False,
) -> None:
    """The whole network's inference: eager backends and compiled plans beside PyTorch, ONNX Runtime and OpenVINO.

    With --device gpu, beside PyTorch eager, channels_last, with cudnn.benchmark, compiled and as a CUDA graph, strict
    float32 and TF32 apart.

    Examples:
      alexnet bench model --batch 32 --out today.json --out today.svg
      alexnet bench model --batch 1 --reduced --accuracy accuracy.svg
      alexnet bench model --batch 1 --busy
      alexnet bench model --device gpu --batch 1 --batch 128
    """

    def works(gpu: Any) -> Iterator[Any]:
        from alexnet_np.measure import gpu_model, model

        sizes = batch or [1, 32, 128]
        if gpu is None:
            return _each(partial(model.works, preset=preset, reduced=reduced), sizes)
        return _each(partial(gpu_model.works, gpu, preset=preset), sizes)

    if reduced and device is Where.GPU:
        raise ArgumentError("--reduced is for the CPU's peers; leave it out, for TF32 is measured on a GPU anyway")
    drawn = {"roofline": roofline, "accuracy": accuracy}
    _run(works, Wanted(device, rounds, cold, out or (), drawn, as_json, busy))


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

        make = training.works if gpu is None else partial(gpu_training.works, gpu)
        return _each(partial(make, preset=preset), batch or [32])

    _run(works, Wanted(device, rounds, out=out or (), as_json=as_json, busy=busy))


def _each(works: Callable[[int], Iterable[Any]], sizes: list[int]) -> Iterator[Any]:
    """A network's works, one batch size after the other."""
    for size in sizes:
        yield from works(size)


@app.command()
def load(rounds: Rounds = 5, out: Out = None, as_json: Json = False) -> None:
    """Reading a full-size weight file beside torch.load, and decoding JPEGs beside torch's DataLoader.

    Examples:
      alexnet bench load
      alexnet bench load --rounds 11 --out load.json
    """
    from alexnet_np.measure import load

    _run(lambda gpu: load.works(), Wanted(rounds=rounds, out=out or (), as_json=as_json))


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

    _run(lambda gpu: jobs.works(images), Wanted(rounds=rounds, out=out or (), as_json=as_json))


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


@app.command()
def draw(
    reports: Annotated[list[Path], typer.Argument(help="What --out has saved as .json.", metavar="REPORT.json...")],
    out: Annotated[list[Path], typer.Option("--out", help="The picture: .svg, .png, .pdf or .jpg; or .md.")],
    picture: Annotated[
        Drawn | None,
        typer.Option("--picture", help="Which; by default kernels for kernels, else peers.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Saved reports as pictures, nothing measured anew: peers, accuracy over time, roofline, kernels on CPU and GPU.

    Examples:
      alexnet bench draw model.json --out model.svg --out model.md
      alexnet bench draw model.json --picture accuracy --out accuracy.svg
      alexnet bench draw kernels_cpu.json kernels_gpu.json --out kernels.png
    """
    from alexnet_np.measure import outputs
    from alexnet_np.measure.pictures import fitting

    for path in out:
        outputs.check(path, report=path.suffix.lower() == ".md")
    found = [_load(path) for path in reports]
    kind = picture.value if picture else fitting(found[0])
    for path in out:
        outputs.draw(found, kind, path)
    if as_json:
        show.print_json({"picture": kind, "out": [str(path) for path in out]})


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
    from alexnet_np.measure.report import PEERS, Report
    from alexnet_np.measure.spinning import spinning

    wanted.check()
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
            peers = [c.name for c in work.contenders if c.name.startswith(PEERS) and not c.reduced]
            rows = harness.measure(work, found.peaks, peers, wanted.rounds, wanted.cold, status.update)
            found.rows += rows
            found.notes += work.summary(rows)
            del work  # so that its arrays can go before the next is made
            wanted.save(found, whole=False)  # what was measured is kept, whatever ends the run
    found.raise_peaks(measure_peaks())
    busy = busy or machine.others()
    found.machine["busy"] = f"{beside} spinning processes beside" if beside else str(busy) if busy else ""
    _tell(found, wanted)


def _tell(found: Any, wanted: Wanted) -> None:
    from alexnet_np.measure.table import ReportTable

    wanted.save(found, whole=True)
    if wanted.as_json:
        show.print_json(asdict(found))
    else:
        show.console().print(ReportTable(found))
        for note in found.notes:
            print(note)
