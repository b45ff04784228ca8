"""How exact the whole network's float32 gradients are: each CPU backend's and torch's, against float64.

    python -m alexnet_np.benchmarks.gradient_accuracy [--batch 8] [--preset torchvision] [--json FILE]

Errors are relative, in the L2 norm, of all parameters' gradients and the input's. All runs decide at every ReLU and max
pool as the backend's own forward did (study/verify.py): where a value is within rounding of a kink, two correct
runs decide differently, and what is measured then is that choice and no longer the arithmetic. The last column is the
error without that.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import alexnet_np as anp
from alexnet_np.models import AlexNet
from alexnet_np.study.torch_net import TorchNet
from alexnet_np.study.verify import relative_error, verify

BACKENDS = ("numpy", "numba")


def measure(preset: str, batch: int) -> dict[str, dict[str, tuple[float, float, float]]]:
    """backend -> gradient of -> (our error, torch's, ours with every kink decided afresh)."""
    found = {}
    for backend in BACKENDS:
        model = anp.alexnet(preset, seed=0, backend=backend)
        x = np.random.default_rng(0).standard_normal((batch, model.in_channels, 224, 224), dtype=np.float32)
        report = verify(model, x)
        free = errors_with_free_kinks(model.eval(), x)
        found[backend] = {c.quantity: (c.ours, c.torch or 0.0, free[c.quantity]) for c in report.net[1:]}
    return found


def errors_with_free_kinks(model: AlexNet, x: np.ndarray) -> dict[str, float]:
    logits = model(x)
    dlogits = np.random.default_rng(0).standard_normal(logits.shape, dtype=np.float32)
    ours: dict[str, Any] = {"dx": model.backward(dlogits), **{name: p.grad for name, p in model.named_parameters()}}
    truth = TorchNet(model, "float64").run(x, dlogits)[2]
    return {quantity: relative_error(array, truth[quantity]) for quantity, array in ours.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--preset", default="torchvision")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    found = measure(arguments.preset, arguments.batch)
    for backend, rows in found.items():
        print(f"{backend:<24}{'ours':>10}{'torch':>10}{'kinks free':>12}")
        largest = tuple(max(column) for column in zip(*rows.values(), strict=True))
        for quantity, (ours, torch, free) in {**rows, "largest": largest}.items():
            print(f"  {quantity:<22}{ours:>10.1e}{torch:>10.1e}{free:>12.1e}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
