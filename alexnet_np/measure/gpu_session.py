"""Verify and measure everything on a GPU, in one run: `python -m alexnet_np.measure.gpu_session gpu.json`.

Needs NumPy and CuPy; PyTorch, where it is installed, is measured beside. Stages:

    verify   every case of cuda_cases.py in float32 and float64, each implementation: against the array
             operations on the CPU in float64, and twice, which must give the same bits
    plans    inference and training plans of each network, in each arithmetic: against the same network in float64 on
             the CPU, and twice, which must give the same bits
    kernels  `alexnet bench kernels --device gpu`     model, train  likewise

Every contender is verified once more before it is timed. What fails is printed, stands in the report under "faults"
and makes the exit code 1; the rest goes on. The report is saved after every work, as JSON and as Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import alexnet_np as anp
from alexnet_np.errors import AlexNetError, one_line
from alexnet_np.kernels.gemm_cuda import PRECISIONS
from alexnet_np.kernels.variants import using
from alexnet_np.measure import gpu_kernels, gpu_model, gpu_training, harness, markdown
from alexnet_np.measure.cuda_cases import CASES, cuda_versions, rounding, run_case
from alexnet_np.measure.gpu import Gpu, Machine, measure_peaks, to_numpy
from alexnet_np.measure.report import Report
from alexnet_np.models import AlexNet

TOLERANCE = {"float32": 3e-6, "float64": 1e-13}  # of the largest value, as in tests/test_cuda_kernels.py
LOGITS = {"strict": 1e-5, "tf32x3": 1e-5, "tf32": 1e-2}  # relative, L2
GRADIENTS = {"strict": 2e-2, "tf32x3": 2e-2, "tf32": 0.2}  # kinks: a unit that flips; a wrong gradient is about 1
PRESETS = ("torchvision", "paper", "d2l")
KERNEL_BATCHES, MODEL_BATCHES, TRAIN_BATCHES = (8, 128), (1, 32, 128), (128,)
ROUNDS = 31
STAGES = ("verify", "plans", "kernels", "model", "train")


def verify(machine: Machine) -> Iterator[str]:
    """One line for each fault of a kernel."""
    for case in CASES:
        with np.errstate(all="ignore"):
            expected = run_case(case, "float64")
        for variant in cuda_versions(case.op):
            for dtype, tolerance in TOLERANCE.items():
                what = f"{case.op} {variant.name} {case.name!r} {dtype}"
                try:
                    with using(variant):
                        first, second = (run_case(case, dtype, machine.place, to_numpy) for _ in range(2))
                except Exception as error:
                    yield f"{what}: {type(error).__name__}: {one_line(error)}"
                    continue
                for key, value in expected.items():
                    finite = np.abs(value[np.isfinite(value)]) if value.dtype.kind == "f" else np.ones(1)
                    limit = tolerance * rounding(variant) * finite.max(initial=0.0)
                    if not np.allclose(first[key], value, rtol=0, atol=limit, equal_nan=True):
                        yield f"{what} {key}: differs from the array operations by more than {limit:.1e}"
                    if first[key].tobytes() != second[key].tobytes():
                        yield f"{what} {key}: two runs gave different bits"


@dataclass(frozen=True)
class Checked:
    """One quantity of one plan, beside the same network on the CPU; errors are relative (L2), from float64."""

    plan: str
    quantity: str
    error: float | None  # None where there is no truth, only bits
    cpu: float | None  # of the array operations in float32
    limit: float
    same_bits: bool

    @property
    def faults(self) -> list[str]:
        what = f"{self.plan}: {self.quantity}"
        found = [] if self.same_bits else [f"{what}: two runs gave different bits"]
        if self.error is not None and not self.error < self.limit:
            found.append(f"{what} is off by {self.error:.1e}, more than {self.limit:.0e}")
        return found


Quantities = dict[str, np.ndarray]


def check_plans(machine: Machine, batch: int = 4, width: float = 1.0) -> Iterator[Checked | str]:
    """Every plan's quantities; one line for a plan that does not run."""
    for preset in PRESETS:
        model = anp.alexnet(preset, seed=0, width=width)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((batch, model.in_channels, 224, 224), dtype=np.float32)
        target = rng.integers(0, model.num_classes, batch)
        truth, cpu = (on_cpu(model, x, target, dtype) for dtype in ("float64", "float32"))
        for precision in PRECISIONS:
            for what, run in (("inference", infer), ("training", train)):
                name = f"{preset}, {what} plan, {precision}"
                try:
                    first, second = (run(machine, model, x, target, precision) for _ in range(2))
                except Exception as error:
                    yield f"{name}: {type(error).__name__}: {one_line(error)}"
                    continue
                for key, value in first.items():
                    off, cpu_off = (relative(of[key], truth[key]) if key in truth else None for of in (first, cpu))
                    limit = (LOGITS if key == "logits" else GRADIENTS)[precision]
                    yield Checked(name, key, off, cpu_off, limit, value.tobytes() == second[key].tobytes())


def relative(a: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(a - truth) / np.linalg.norm(truth))


def on_cpu(model: AlexNet, x: np.ndarray, target: np.ndarray, dtype: str) -> Quantities:
    """Logits in evaluation mode; the loss and every gradient of a training step, dropout at work."""
    own, x = gpu_model.on(model, "numpy").astype(dtype), x.astype(dtype)
    with anp.no_grad():
        logits = own.eval()(x)
    loss, cache = anp.ops.cross_entropy.forward(own.train()(x), target)
    own.backward(anp.ops.cross_entropy.backward(1.0, cache), input_grad=False)
    return {"logits": logits, "loss": loss} | {name: p.grad for name, p in own.named_parameters()}


def infer(machine: Machine, model: AlexNet, x: np.ndarray, target: np.ndarray, precision: str) -> Quantities:
    """By the CUDA graph, which a plan is from its second call on."""
    plan = gpu_model.plan(model, len(x), machine.backends["cuda"], precision)
    plan(machine.place(x))
    return {"logits": to_numpy(plan(machine.place(x)))}


def train(machine: Machine, model: AlexNet, x: np.ndarray, target: np.ndarray, precision: str) -> Quantities:
    """The first step's, and the loss two steps on, by the CUDA graph."""
    step: Any = gpu_training.plan(model, len(x), machine.backends["cuda"], precision)
    inputs = machine.place(x), machine.place(target)
    found = {"loss": to_numpy(step(*inputs))} | {name: to_numpy(dw).copy() for name, dw in step.gradients.items()}
    return found | {"loss of step 3": [to_numpy(step(*inputs)) for _ in range(2)][-1]}


def works(machine: Machine, stages: Iterable[str]) -> Iterator[harness.Work]:
    if "kernels" in stages:
        for batch in KERNEL_BATCHES:
            yield from gpu_kernels.works(machine, batch)
        yield gpu_kernels.sgd(machine)
    if "model" in stages:
        for batch in MODEL_BATCHES:
            yield from gpu_model.works(machine, batch)
    if "train" in stages:
        for batch in TRAIN_BATCHES:
            yield from gpu_training.works(machine, batch)


def measure(work: harness.Work, report: Report) -> Iterator[str]:
    """Add the work's rows to the report; one line for each fault."""
    for contender in work.contenders:
        if contender.run is None and contender.name.startswith(("cupy", "cuda")):
            yield f"{work.name}: {contender.name}: {contender.missing}"
    peers = [c.name for c in work.contenders if c.name.startswith("torch")]
    try:
        report.rows += harness.measure(work, report.peaks, peers, ROUNDS)
    except Exception as error:
        yield f"{work.name}: {type(error).__name__}: {one_line(error)}"


class Session:
    """What one run has found; saved to `out` as JSON, and beside it as Markdown."""

    def __init__(self, machine: Machine, out: Path) -> None:
        self.machine, self.out, self.began = machine, out, time.monotonic()
        self.report = Report(machine.about(), measure_peaks(machine))
        self.checked: list[Checked] = []
        self.faults: list[str] = []

    def run(self, stages: Iterable[str]) -> None:
        if "verify" in stages:
            self.note(verify(self.machine))
        if "plans" in stages:
            for found in check_plans(self.machine):
                self.note([found] if isinstance(found, str) else found.faults)
                self.checked += [] if isinstance(found, str) else [found]
        print(f"verified in {time.monotonic() - self.began:.0f} s, {len(self.faults)} faults", flush=True)
        for work in works(self.machine, stages):
            known = len(self.report.rows)
            self.note(measure(work, self.report))
            for row in self.report.rows[known:]:
                times = f"{1e3 * row.median:9.4f} ms, floor {1e3 * row.floor:9.4f}"
                print(f"{row.work:<58} {row.contender:<32} {row.missing or times}", flush=True)
            del work  # and its arrays, before the next is made
            self.save()  # what was measured is kept, whatever ends the run
        self.save()

    def note(self, faults: Iterable[str]) -> None:
        for fault in faults:
            print("FAULT", fault, flush=True)
            self.faults.append(fault)

    def save(self) -> None:
        found = {"faults": self.faults, "plans": [asdict(each) for each in self.checked]}
        self.out.write_text(json.dumps(asdict(self.report) | found, indent=1) + "\n")
        self.out.with_suffix(".md").write_text(self.markdown())

    def markdown(self) -> str:
        heads = ("plan", "quantity", "error", "CPU's float32", "same bits twice")
        lines = []
        for each in self.checked:
            errors = ("" if error is None else f"{error:.1e}" for error in (each.error, each.cpu))
            lines.append((each.plan, each.quantity, *errors, "yes" if each.same_bits else "no"))
        faults = "".join(f"- {fault}\n" for fault in self.faults) or "None.\n"
        plans = markdown.table(heads, lines)
        return f"{markdown.page(self.report)}\n## Plans\n\n{plans}\n## Faults\n\n{faults}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the JSON file to write; the Markdown goes beside it")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="default: all")
    arguments = parser.parse_args()
    try:
        session = Session(Gpu(), arguments.out)
    except AlexNetError as error:
        print(f"gpu_session: {error}", file=sys.stderr)
        return 1
    session.run(arguments.stages)
    return 1 if session.faults else 0


if __name__ == "__main__":
    sys.exit(main())
