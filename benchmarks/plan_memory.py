"""Peak memory of inference, torchvision's net: our plan and our eager backends beside PyTorch.

    python -m alexnet_np.benchmarks.plan_memory [--batch 128] [--json FILE]

The peak resident size of a process of its own for each contender, everything counted: interpreter, libraries, the
network (of random numbers; reading a file is measured by load_memory), the batch, and several runs over it, since
PyTorch's allocator has its final size only after some.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .bench_arrays import REPORT_PEAK, run

RUNS = 6
OURS = """
import numpy as np, alexnet_np as anp
model = anp.alexnet("torchvision", seed=0{backend}).eval()
forward = {forward}
x = np.random.default_rng(0).random(({batch}, 3, 224, 224), dtype=np.float32)
with anp.no_grad():
    for _ in range({runs}):
        forward(x)
"""
TORCH = """
import torch
from alexnet_np.study.torch_net import import_torchvision
order = torch.{order}
model = import_torchvision().models.alexnet().eval().to(memory_format=order)
x = torch.rand({batch}, 3, 224, 224).contiguous(memory_format=order)
with torch.inference_mode():
    for _ in range({runs}):
        model(x)
"""
CONTENDERS = {
    "plan": OURS.replace("{backend}", "").replace("{forward}", "anp.compile(model, max_batch={batch})"),
    "eager numba": OURS.replace("{backend}", ", backend='numba'").replace("{forward}", "model"),
    "eager numpy": OURS.replace("{backend}", "").replace("{forward}", "model"),
    "torch contiguous": TORCH.replace("{order}", "contiguous_format"),
    "torch channels_last": TORCH.replace("{order}", "channels_last"),
}


def measure(batch: int) -> dict[str, float]:
    """contender -> megabytes; kernels are compiled before, in processes that do not count."""
    peaks = {}
    for name, code in CONTENDERS.items():
        run(code.format(batch=min(batch, 2), runs=1) + REPORT_PEAK)
        peaks[name] = run(code.format(batch=batch, runs=RUNS) + REPORT_PEAK) / 1e6
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    peaks = measure(arguments.batch)
    for name, megabytes in peaks.items():
        print(f"{name:<22}{megabytes:>8.0f} MB")
    if arguments.json:
        arguments.json.write_text(json.dumps(peaks, indent=2) + "\n")


if __name__ == "__main__":
    main()
