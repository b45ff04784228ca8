"""Peak memory, torchvision's net: our plan and eager backends beside PyTorch, and a job beside PyTorch's and others'.

    python -m alexnet_np.benchmarks.plan_memory [--batch 128] [--images 256] [--json FILE]

What is counted says alexnet_np/measure/memory.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from alexnet_np.measure import memory
from alexnet_np.measure.load import write_photographs


def measure(batch: int, images: int) -> dict[str, dict[str, float]]:
    """Of what -> contender -> megabytes."""
    with tempfile.TemporaryDirectory() as name:
        pictures = Path(name) / "photographs"
        write_photographs(pictures / "one_class", images)
        files = memory.write_files(Path(name), pictures)
        return {f"batches of {batch}": memory.inference(files, batch), f"{images} JPEGs": memory.job(files)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    peaks = measure(arguments.batch, arguments.images)
    for what, found in peaks.items():
        print(what)
        for name, megabytes in found.items():
            print(f"  {name:<30}{megabytes:>8.0f} MB")
    if arguments.json:
        arguments.json.write_text(json.dumps(peaks, indent=2) + "\n")


if __name__ == "__main__":
    main()
