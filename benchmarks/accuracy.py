"""How exact every op is at AlexNet's own shapes: each backend's error beside torch's, forward and every gradient.

    python -m alexnet_np.benchmarks.accuracy [--batch 8] [--op conv2d] [--json]

The truth is torch in float64 on the same float32 numbers. float32 errors are ||result - truth|| / ||truth|| (L2), and
`ratio` is ours over torch's; `float64` is the largest difference from torch's float64, relative to its largest value.
The numba backend's convolutions are mostly Winograd's, which rounds more; "im2col" is its exact one.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from alexnet_np import ops
from alexnet_np.backend import BACKENDS, available_backends, use_backend
from alexnet_np.device import to_cpu
from alexnet_np.measure.cases import CASES, Case
from alexnet_np.measure.machine import machine

FLOOR = 2.0**-24  # half an ULP of 1, the cost of one rounding: where neither error is above it, no ratio is formed

MORE = [  # what torchvision's network does not have, or what is harder than its layers
    Case("conv2d", "paper's conv2, groups", (96, 27, 27), ((256, 48, 5, 5), (256,)), {"padding": 2, "groups": 2}),
    Case("conv2d", "dilated, strided", (32, 41, 37), ((48, 32, 3, 5), (48,)), {"stride": 2, "dilation": (2, 3)}),
    Case("max_pool2d", "ceil", (64, 55, 55), (), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    Case("avg_pool2d", "ceil", (64, 55, 55), (), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    Case("adaptive_avg_pool2d", "13 to 6", (256, 13, 13), (), {"output_size": 6}),
    Case("local_response_norm", "alpha 1", (96, 27, 27), (), {"size": 5, "alpha": 1.0}),
    Case("local_response_norm", "alpha 1, even size", (96, 27, 27), (), {"size": 4, "alpha": 1.0}),
    Case("local_response_norm", "alpha 1, beta 1.2", (96, 27, 27), (), {"size": 5, "alpha": 1.0, "beta": 1.2}),
    Case("softmax", "1000 classes", (1000,), (), {"dim": -1}),
    Case("log_softmax", "1000 classes", (1000,), (), {"dim": -1}),
    Case("cross_entropy", "smoothed", (1000,), (), {"label_smoothing": 0.1, "reduction": "none"}),
]


@dataclass
class Row:
    op: str
    case: str
    quantity: str
    backend: str
    float64: float
    error: float
    torch_error: float

    @property
    def ratio(self) -> float | None:
        """Ours over torch's; None where both are next to nothing."""
        return self.error / self.torch_error if max(self.error, self.torch_error) > FLOOR else None


def rows(batch: int, only: str | None = None) -> list[Row]:
    found = []
    for case in [*CASES, *MORE]:
        if only in (None, case.op):
            found += _measure(case, batch)
    return found


def _measure(case: Case, batch: int) -> list[Row]:
    draw = np.random.default_rng(0).standard_normal
    inputs: list[Any] = [draw((batch, *case.x), dtype=np.float32)]
    inputs += [draw(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:]))) for shape in case.arrays]
    if case.op == "cross_entropy":
        inputs.append(np.arange(batch) % case.x[0])
    dy = draw(getattr(ops, case.op).forward(*inputs, **case.keywords)[0].shape, dtype=np.float32)
    truth, single = _torch(case, inputs, dy, np.float64), _torch(case, inputs, dy, np.float32)
    found = []
    backends = [backend for backend, usable in available_backends().items() if usable is True]
    for backend in [*backends, "im2col"] if case.op == "conv2d" and "numba" in backends else backends:
        ours, double = _ours(case, inputs, dy, backend, np.float32), _ours(case, inputs, dy, backend, np.float64)
        for quantity in truth:
            true = truth[quantity]
            difference = np.abs(double[quantity] - true).max() / np.abs(true).max()
            errors = [float(np.linalg.norm(a[quantity] - true) / np.linalg.norm(true)) for a in (ours, single)]
            found.append(Row(case.op, case.layer, quantity, backend, float(difference), *errors))
    return found


NAMES = ("y", "dx", "dweight", "dbias")
CONV2D = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}


def _ours(case: Case, inputs: list[Any], dy: Any, backend: str, dtype: Any) -> dict[str, np.ndarray]:
    arrays: list[Any] = [_cast(a, dtype) for a in (*inputs, dy)]
    if backend == "im2col":
        from alexnet_np.kernels import conv2d_im2col_numba

        x, weight, bias, dy = arrays
        geometry = ops.conv2d.find_geometry(x, weight, bias, **{**CONV2D, **case.keywords})
        y = conv2d_im2col_numba.compute(x, weight, bias, geometry)
        gradients = conv2d_im2col_numba.gradients(dy, x, weight, geometry, (True, True, True))
        return dict(zip(NAMES, (y, *gradients), strict=True))
    if BACKENDS[backend] == "gpu":
        import cupy

        arrays = [cupy.asarray(a) for a in arrays]
    with use_backend(backend):
        y, cache = getattr(ops, case.op).forward(*arrays[:-1], **case.keywords)
        gradients = getattr(ops, case.op).backward(arrays[-1], cache)
    results = [y, *(gradients if isinstance(gradients, tuple) else (gradients,))]
    return dict(zip(NAMES, [to_cpu(r) for r in results], strict=False))


def _torch(case: Case, inputs: list[Any], dy: Any, dtype: Any) -> dict[str, np.ndarray]:
    tensors = [torch.from_numpy(_cast(a, dtype)).requires_grad_(a.dtype.kind == "f") for a in inputs]
    if case.op == "dropout":  # torch draws a mask of its own: its formula with ours
        mask = ops.dropout.forward(inputs[0], **case.keywords)[1].mask
        y = tensors[0] * torch.from_numpy(mask) / (1 - case.keywords["p"])
    else:
        y = getattr(torch.nn.functional, case.op)(*tensors, **case.keywords)
    y.backward(torch.from_numpy(np.asarray(dy, dtype)))
    gradients = [t.grad.numpy() for t in tensors if t.grad is not None]
    return dict(zip(NAMES, [y.detach().numpy(), *gradients], strict=False))


def _cast(array: np.ndarray, dtype: Any) -> np.ndarray:
    return array.astype(dtype) if array.dtype.kind == "f" else array


def _table(found: list[Row]) -> Table:
    table = Table("op", "case", "", "backend", title="Errors against float64", header_style="bold")
    for column in ("float64", "float32", "torch's", "ratio"):
        table.add_column(column, justify="right")
    for row in found:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        numbers = (f"{number:.1e}" for number in (row.float64, row.error, row.torch_error))
        table.add_row(row.op, row.case, row.quantity, row.backend, *numbers, ratio)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Every op's error beside torch's.")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--op", choices=sorted({case.op for case in [*CASES, *MORE]}))
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    found = rows(arguments.batch, arguments.op)
    if arguments.json:
        listed = [asdict(row) | {"ratio": row.ratio} for row in found]
        print(json.dumps({"machine": machine(), "batch": arguments.batch, "rows": listed}, indent=2))
    else:
        Console(width=110).print(_table(found))


if __name__ == "__main__":
    main()
