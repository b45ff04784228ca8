"""The memory of a driver of a job on Dask over very many tiny pictures: at most 500 MB.

    python -m alexnet_np.benchmarks.dask_memory [--images 100000] [--preset lenet5] [--part-size 64]

The pictures are hard links to a hundred small files, the network one of seeded random weights. What is measured is the
peak of the driver's resident memory (VmHWM, as Linux keeps it); pictures and vectors do not pass through it. With
--preset torchvision --images 256 it is that of the driver who reads and hands over 244 MB of weights. Exit code 1 where
it is more than 500 MB, or a picture is missing from what was written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

MOST = 500e6  # bytes
DIFFERENT = 100


def make(folder: Path, count: int) -> None:
    """`count` pictures of 28x28, in folders of a thousand."""
    draw = np.random.default_rng(0).integers
    for i in range(min(count, DIFFERENT)):
        Image.fromarray(draw(0, 256, (28, 28, 3), np.uint8)).save(folder / f"{i}.png")
    for i in range(DIFFERENT, count):
        below = folder / f"{i // 1000:04d}"
        below.mkdir(exist_ok=True)
        (below / f"{i:07d}.png").hardlink_to(folder / f"{i % DIFFERENT}.png")


def peak(process: subprocess.Popen) -> int:
    """Of a process's resident memory, in bytes, once it has ended."""
    found = 0
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                found = 1024 * int(line.split()[1])
        time.sleep(0.05)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--preset", default="lenet5")
    parser.add_argument("--part-size", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        pictures, said = Path(name) / "pictures", Path(name) / "said.json"
        pictures.mkdir()
        make(pictures, arguments.images)
        network = ["--preset", arguments.preset, "--weights", "random", "--backend", "numba"]
        there = ["--engine", "dask", "--out", str(Path(name) / "parts"), "--part-size", str(arguments.part_size)]
        command = [sys.executable, "-m", "alexnet_np", "embed", str(pictures), *network, *there, "--json"]
        begun = time.perf_counter()
        with said.open("w") as file:
            bytes_at_most = peak(subprocess.Popen(command, stdout=file))
        seconds, done = time.perf_counter() - begun, json.loads(said.read_text())
    rate = f"{done['images'] / seconds:,.0f} pictures a second with everything"
    print(
        f"{done['images']:,} pictures in {done['parts']:,} parts, {arguments.preset}: the driver took at most "
        f"{bytes_at_most / 1e6:.0f} MB; {rate}"
    )
    sys.exit(bytes_at_most > MOST or done["images"] != arguments.images)


if __name__ == "__main__":
    main()
