"""Reading a full-size .pth (244 MB) beside torch.load: time, and the memory that it takes.

    python -m benchmarks.bench_load [--json FILE]

Time is interleaved in one process, the file in the page cache, and compared by medians: reading alone, and reading and
then summing every array, because a memory map reads what it shows only when it is used. torch.load checks no checksum
and we check all that there are. Memory is the growth of a fresh process's peak resident size over the whole of reading
and summing, as a multiple of the file's size; pages of a mapped file count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import machine, timed

ROUNDS = 15
SHAPES = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
    "classifier.1": (4096, 9216),
    "classifier.4": (4096, 4096),
    "classifier.6": (1000, 4096),
}
# name of the contender -> (import, expression of the file's path p)
READERS = {
    "alexnet_np": ("import alexnet_np.weights, alexnet_np.weights.torch_zip", "alexnet_np.weights.read(p)"),
    "torch.load": ("import torch", "torch.load(p)"),
    "torch.load mmap": ("import torch", "torch.load(p, mmap=True)"),
}
MEMORY = """
from pathlib import Path
{imports}
def peak():
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
p = {path!r}
Path("/proc/self/clear_refs").write_text("5")  # forget the peak of importing
before = peak()
arrays = {read}
total = sum(float(array.sum()) for array in arrays.values())
print((peak() - before) / Path(p).stat().st_size)
"""


def files(folder: Path) -> dict[str, Path]:
    """A full-size state dict in the two formats of torch.save."""
    import torch

    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in SHAPES.items():
        state[f"{name}.weight"] = torch.randn(shape, generator=generator)
        state[f"{name}.bias"] = torch.randn(shape[0], generator=generator)
    paths = {"zip": folder / "zip.pth", "legacy": folder / "legacy.pth"}
    torch.save(state, paths["zip"])
    torch.save(state, paths["legacy"], _use_new_zipfile_serialization=False)
    return paths


def readers(path: Path, kind: str) -> dict[str, Callable[[], Any]]:
    import torch

    from alexnet_np import weights

    contenders = {"alexnet_np": lambda: weights.read(path), "torch.load": lambda: torch.load(path)}
    if kind == "zip":  # the only one that torch can map
        contenders["torch.load mmap"] = lambda: torch.load(path, mmap=True)
    return contenders


def summed(read: Callable[[], Any]) -> float:
    return sum(float(array.sum()) for array in read().values())


def times(path: Path, kind: str) -> dict[str, dict[str, float]]:
    """Median milliseconds of each contender; what they read is equal first."""
    contenders = readers(path, kind)
    reference = {name: tensor.numpy() for name, tensor in contenders["torch.load"]().items()}
    for name, array in contenders["alexnet_np"]().items():
        np.testing.assert_array_equal(array, reference.pop(name))
    assert not reference
    reading: dict[str, list[float]] = {name: [] for name in contenders}
    summing: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, read in contenders.items():
            reading[name].append(timed(read))
            summing[name].append(timed(lambda read=read: summed(read)))
    rows = {f"{kind}, read (ms)": reading, f"{kind}, and sum (ms)": summing}
    return {
        row: {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
        for row, seconds in rows.items()
    }


def memory(path: Path, kind: str) -> dict[str, float]:
    growth = {}
    for name in readers(path, kind):
        imports, read = READERS[name]
        code = MEMORY.format(imports=imports, path=str(path), read=read)
        growth[name] = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    return growth


def measure() -> dict[str, dict[str, float]]:
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, path in files(Path(folder)).items():
            rows |= times(path, kind)
            if Path("/proc/self/clear_refs").exists():
                rows[f"{kind}, peak memory (× file)"] = memory(path, kind)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    rows = measure()
    for name, values in rows.items():
        ratio = values["alexnet_np"] / values["torch.load"]
        print(f"{name:32}" + "".join(f"  {who} {value:8.2f}" for who, value in values.items()) + f"  ratio {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
