"""Verify and measure every CUDA kernel on a GPU, in one run: `python benchmarks/gpu_session.py results.json`.

Needs NumPy and CuPy; PyTorch, where it is installed, is measured beside. What it does, in this order:

1. Every case of tests/cuda_shim/cases.py, float32 and float64, each implementation: against the array operations on
   the CPU in float64, and twice, which must give the same bits. A fault is reported, and the exit code is 1.
2. The machine's own ceilings: memory bandwidth by a large copy, and products in each arithmetic.
3. Every op at AlexNet's own shapes, batch 1 and 128, forward and backward, with the floor beside each time: the
   larger of bytes / bandwidth and operations / rate.
4. The whole network, inference and forward + backward, in each arithmetic, beside PyTorch eager, strict and TF32.

Times are medians of events around single calls from Python, launches included, after warming up; the inputs take turns,
so that together they are larger than the L2 cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]
from cuda_shim.cases import CASES, IMPLEMENTATIONS, computed_by, run_case  # noqa: E402

import alexnet_np as anp  # noqa: E402
from alexnet_np.kernels import sgd_cuda  # noqa: E402
from alexnet_np.kernels.gemm_cuda import PRECISIONS, matmul_precision  # noqa: E402
from alexnet_np.ops.conv2d import find_geometry  # noqa: E402

TOLERANCE = {"float32": 3e-6, "float64": 1e-13}  # of the largest value, as in tests/test_cuda_kernels.py
ROTATE_BYTES = 200 << 20  # more than any L2 cache
REPEATS = 20

# (C, H, F, kernel, stride, padding) of torchvision's five convolutions; (in, out) of the dense layers
CONVOLUTIONS = {
    "conv1": (3, 224, 64, 11, 4, 2),
    "conv2": (64, 27, 192, 5, 1, 2),
    "conv3": (192, 13, 384, 3, 1, 1),
    "conv4": (384, 13, 256, 3, 1, 1),
    "conv5": (256, 13, 256, 3, 1, 1),
}
DENSE = {"fc6": (9216, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)}
OTHERS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "pool1": ("max_pool2d", (64, 55, 55), {"kernel_size": 3, "stride": 2}),
    "pool2": ("max_pool2d", (192, 27, 27), {"kernel_size": 3, "stride": 2}),
    "norm1 (paper)": ("local_response_norm", (96, 55, 55), {"size": 5}),
    "norm2 (paper)": ("local_response_norm", (256, 27, 27), {"size": 5}),
    "relu1": ("relu", (64, 55, 55), {}),
    "dropout6": ("dropout", (9216,), {"p": 0.5, "seed": 1}),
    "avgpool 12 to 6": ("adaptive_avg_pool2d", (256, 12, 12), {"output_size": 6}),
    "softmax": ("softmax", (1000,), {}),
}

Row = dict[str, Any]


class Gpu:
    """Where arrays go and how calls are timed."""

    backend = "cuda"

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy

    def place(self, array: np.ndarray) -> Any:
        return self.cupy.asarray(array)

    def fetch(self, array: Any) -> np.ndarray:
        return array.get()

    def milliseconds(self, call: Callable[[], Any]) -> float:
        start, stop = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        start.record()
        call()
        stop.record()
        stop.synchronize()
        return self.cupy.cuda.get_elapsed_time(start, stop)

    def about(self) -> Row:
        properties, runtime = self.cupy.cuda.runtime.getDeviceProperties(0), self.cupy.cuda.runtime
        return {
            "gpu": properties["name"].decode(),
            "multiprocessors": properties["multiProcessorCount"],
            "l2_bytes": properties["l2CacheSize"],
            "driver": runtime.driverGetVersion(),
            "cuda": runtime.runtimeGetVersion(),
            "cupy": self.cupy.__version__,
            "numpy": np.__version__,
        }


def median(machine: Any, calls: list[Callable[[], Any]]) -> float:
    """Milliseconds of one call; `calls` do the same on different inputs and take turns."""
    for call in calls[:3]:
        call()
    return statistics.median(machine.milliseconds(calls[i % len(calls)]) for i in range(REPEATS))


def copies(machine: Any, array: np.ndarray) -> list[Any]:
    """So many copies of an input that they do not fit in L2 together, at most 8."""
    return [machine.place(array) for _ in range(min(8, ROTATE_BYTES // max(array.nbytes, 1) + 1))]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def verify(machine: Any) -> Iterator[str]:
    """One line for each fault."""
    for case in CASES:
        with np.errstate(all="ignore"):
            expected = run_case(case, "float64")
        for name, implementation in IMPLEMENTATIONS[case.op].items():
            for dtype, tolerance in TOLERANCE.items():
                what = f"{case.op} {name} {case.name!r} {dtype}"
                try:
                    with computed_by(case.op, implementation):
                        first, second = (run_case(case, dtype, machine.place, machine.fetch) for _ in range(2))
                except Exception as error:
                    yield f"{what}: {type(error).__name__}: {error}"
                    continue
                for key, value in expected.items():
                    finite = np.abs(value[np.isfinite(value)]) if value.dtype.kind == "f" else np.ones(1)
                    limit = tolerance * finite.max(initial=0.0)
                    if not np.allclose(first[key], value, rtol=0, atol=limit, equal_nan=True):
                        yield f"{what} {key}: differs from the array operations by more than {limit:.1e}"
                    if first[key].tobytes() != second[key].tobytes():
                        yield f"{what} {key}: two runs gave different bits"


def ceilings(machine: Any, side: int = 8192, copy_bytes: int = 1 << 30) -> Row:
    """Bytes a second of a copy (read plus written), and operations a second of a product in each arithmetic."""
    source = machine.place(np.ones(copy_bytes // 4, np.float32))
    rates = {"copy": 2 * copy_bytes / (median(machine, [source.copy]) * 1e-3)}
    a, b = machine.place(normal(side, side)), machine.place(normal(side, side))
    for precision in PRECISIONS:
        with matmul_precision(precision):
            elapsed = median(machine, [partial(IMPLEMENTATIONS["linear"]["cuda"].compute, a, b, None)])
        rates[precision] = 2 * side**3 / (elapsed * 1e-3)
    return rates


def floor(rates: Row, moved: int, operations: int, precision: str = "strict") -> float:
    """Milliseconds below which nothing can go."""
    return 1e3 * max(moved / rates["copy"], operations / rates[precision])


def convolutions(machine: Any, rates: Row, batch: int, layers: Row = CONVOLUTIONS) -> Iterator[Row]:
    contenders = [(f"im2col {p}", IMPLEMENTATIONS["conv2d"]["im2col"], p) for p in PRECISIONS]
    contenders += [
        (n, m, "strict") for n, m in IMPLEMENTATIONS["conv2d"].items() if n.startswith(("implicit-", "direct"))
    ]
    for layer, (C, H, F, kernel, stride, padding) in layers.items():
        images, filters, offsets = normal(batch, C, H, H), normal(F, C, kernel, kernel), normal(F)
        geometry = find_geometry(images, filters, offsets, stride, padding, 1, 1)
        xs, weight, bias = copies(machine, images), machine.place(filters), machine.place(offsets)
        dy = machine.place(normal(batch, F, *geometry.output))
        operations = 2 * dy.size * C * kernel**2
        moved = images.nbytes + filters.nbytes + dy.nbytes
        for name, module, precision in contenders:
            with matmul_precision(precision):
                forward = [partial(module.compute, x, weight, bias, geometry) for x in xs]
                yield row(
                    layer, batch, "forward", name, median(machine, forward), floor(rates, moved, operations, precision)
                )
                if name.startswith("im2col"):
                    needs = (True, True, True)
                    backward = [partial(module.gradients, dy, x, weight, geometry, needs) for x in xs]
                    least = floor(rates, 2 * moved, 2 * operations, precision)
                    yield row(layer, batch, "backward", name, median(machine, backward), least)


def dense(machine: Any, rates: Row, batch: int, layers: Row = DENSE) -> Iterator[Row]:
    module = IMPLEMENTATIONS["linear"]["cuda"]
    for layer, (inputs, outputs) in layers.items():
        x, bias = machine.place(normal(batch, inputs)), machine.place(normal(outputs))
        weights, dy = copies(machine, normal(outputs, inputs)), machine.place(normal(batch, outputs))
        operations, moved = 2 * batch * inputs * outputs, x.nbytes + weights[0].nbytes + dy.nbytes
        for precision in PRECISIONS:
            with matmul_precision(precision):
                forward = [partial(module.compute, x, w, bias) for w in weights]
                least = floor(rates, moved, operations, precision)
                yield row(layer, batch, "forward", precision, median(machine, forward), least)
                backward = [partial(module.gradients, dy, x, w, (True, True, True)) for w in weights]
                least = floor(rates, 2 * moved, 2 * operations, precision)
                yield row(layer, batch, "backward", precision, median(machine, backward), least)


def memory_bound(machine: Any, rates: Row, batch: int, layers: Row = OTHERS) -> Iterator[Row]:
    """Ops whose floor is reading their inputs and writing their outputs once."""
    for layer, (name, shape, options) in layers.items():
        op = getattr(anp.ops, name)
        xs = copies(machine, normal(batch, *shape))
        with computed_by(name, IMPLEMENTATIONS[name]["cuda"]):
            results = [op.forward(x, **options) for x in xs]
            dys = [y.copy() for y, _ in results]
            forward = [partial(op.forward, x, **options) for x in xs]
            moved = xs[0].nbytes + dys[0].nbytes
            yield row(layer, batch, "forward", name, median(machine, forward), floor(rates, moved, 0))
            backward = [partial(op.backward, dy, cache) for dy, (_, cache) in zip(dys, results, strict=True)]
            yield row(layer, batch, "backward", name, median(machine, backward), floor(rates, moved + dys[0].nbytes, 0))


def optimizer(machine: Any, rates: Row, size: int = 61_100_840) -> Iterator[Row]:
    w, g, v = (machine.place(normal(size)) for _ in range(3))
    options = {"lr": 1e-6, "momentum": 0.9, "weight_decay": 1e-4}
    elapsed = median(machine, [partial(sgd_cuda.step, w, g, v, **options)])
    yield row("SGD, all parameters", 1, "step", "sgd", elapsed, floor(rates, 5 * w.nbytes, 0))


def network(machine: Any, batch: int, width: float = 1.0, side: int = 224) -> Iterator[Row]:
    images = normal(batch, 3, side, side)
    target = machine.place(np.arange(batch) % 1000)
    for precision in PRECISIONS:
        model = anp.alexnet("torchvision", seed=0, width=width).to(machine.backend).eval()
        xs = copies(machine, images)

        def infer(x: Any, model: Any = model) -> None:
            with anp.no_grad():
                model(x)

        def train(x: Any, model: Any = model) -> None:
            model.zero_grad()
            with anp.use_backend(machine.backend):
                loss, cache = anp.ops.cross_entropy.forward(model(x), target)
                model.backward(anp.ops.cross_entropy.backward(1.0, cache), input_grad=False)

        with matmul_precision(precision):
            yield row("AlexNet", batch, "inference", precision, median(machine, [partial(infer, x) for x in xs]), None)
            model.train()
            yield row("AlexNet", batch, "fwd + bwd", precision, median(machine, [partial(train, x) for x in xs]), None)


def torch_network(batch: int) -> Iterator[Row]:
    """PyTorch eager on the same shapes, strict float32 and TF32; nothing where it is not installed."""
    try:
        import torch
        from torch import nn
    except ImportError:
        return
    layers: list[nn.Module] = []
    for name, (C, _, F, kernel, stride, padding) in CONVOLUTIONS.items():
        layers += [nn.Conv2d(C, F, kernel, stride, padding), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] if name in ("conv1", "conv2", "conv5") else []
    head = [nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), *head, nn.Linear(4096, 1000)).cuda()
    xs = [torch.randn(batch, 3, 224, 224, device="cuda") for _ in range(4)]
    target = torch.arange(batch, device="cuda") % 1000

    def timed(call: Callable[[Any], Any]) -> float:
        times = []
        for i in range(REPEATS + 5):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call(xs[i % len(xs)])
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop))
        return statistics.median(times[5:])

    def train(x: Any) -> None:
        model.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()

    for tf32 in (False, True):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        for benchmark in (False, True):
            torch.backends.cudnn.benchmark = benchmark
            name = f"PyTorch {'tf32' if tf32 else 'strict'}{', cudnn.benchmark' if benchmark else ''}"
            model.eval()
            with torch.no_grad():
                yield row("AlexNet", batch, "inference", name, timed(model), None)
            model.train()
            yield row("AlexNet", batch, "fwd + bwd", name, timed(train), None)


def row(layer: str, batch: int, what: str, contender: str, milliseconds: float, least: float | None) -> Row:
    names = ("layer", "batch", "what", "contender", "ms", "floor_ms")
    return dict(zip(names, (layer, batch, what, contender, milliseconds, least), strict=True))


def show(entry: Row) -> None:
    least = "" if entry["floor_ms"] is None else f"floor {entry['floor_ms']:9.4f}"
    print(
        f"{entry['layer']:<20} batch {entry['batch']:<4} {entry['what']:<10} {entry['contender']:<32}"
        f" {entry['ms']:9.4f} ms  {least}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the JSON file to write")
    out = parser.parse_args().out
    machine, began = Gpu(), time.monotonic()
    report: Row = {"machine": machine.about(), "faults": [], "rows": []}
    for fault in verify(machine):
        print("FAULT", fault, flush=True)
        report["faults"].append(fault)
    print(f"verified in {time.monotonic() - began:.0f} s, {len(report['faults'])} faults", flush=True)
    report["ceilings"] = rates = ceilings(machine)
    stages = [(stage, batch) for batch in (1, 128) for stage in (convolutions, dense, memory_bound)]
    sources = [stage(machine, rates, batch) for stage, batch in stages]
    sources += [optimizer(machine, rates)]
    sources += [entries for batch in (1, 128) for entries in (network(machine, batch), torch_network(batch))]
    try:
        for source in sources:
            for entry in source:
                show(entry)
                report["rows"].append(entry)
    finally:
        out.write_text(json.dumps(report, indent=1))  # what was measured is kept, whatever ended the run
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
