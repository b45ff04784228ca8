"""The memory that reading a full-size weight file (244 MB) takes, in every format, beside torch.load.

    python -m alexnet_np.benchmarks.load_memory

The growth of a fresh process's peak resident size over reading the file and summing every array, as a multiple of the
file's size; pages of a mapped file count. Each reader reads a small file of its format first: its modules do not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from alexnet_np.measure.load import File, files, readers

TARGET = 1.1
MEMORY = """
import sys
from pathlib import Path
from alexnet_np.measure.load import File, readers

who, kind, *paths = sys.argv[1:]
path, whole, little, little_whole = map(Path, paths)

def peak():
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

def total(file):
    return sum(float(array.sum()) for array in readers(file)[who]().values())

total(File(kind, little, little_whole))
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = peak()
total(File(kind, path, whole))
print((peak() - before) / path.stat().st_size)
"""


def memory(file: File, small: File) -> dict[str, float]:
    growth = {}
    for who in readers(file):
        given = [who, file.kind, *map(str, (file.path, file.zip, small.path, small.zip))]
        run = subprocess.run([sys.executable, "-c", MEMORY, *given], check=True, capture_output=True, text=True)
        growth[who] = float(run.stdout)
    return growth


def main() -> None:
    worst = 0.0
    with tempfile.TemporaryDirectory() as large, tempfile.TemporaryDirectory() as little:
        for file, small in zip(files(Path(large)), files(Path(little), 1 / 16), strict=True):
            growth = memory(file, small)
            print(f"{file.kind:14}" + "".join(f"  {who} {value:.2f}" for who, value in growth.items()), flush=True)
            worst = max(worst, growth["alexnet_np"])
    print(f"ours at most {worst:.2f} times the file, {TARGET} allowed")
    sys.exit(worst > TARGET)


if __name__ == "__main__":
    main()
