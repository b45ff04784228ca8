"""The memory that reading a full-size .pth (244 MB) takes, beside torch.load.

    python -m alexnet_np.benchmarks.load_memory

The growth of a fresh process's peak resident size over reading the file and summing every array, as a multiple of the
file's size; pages of a mapped file count.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from alexnet_np.measure.load import files, readers

# name of the contender -> (import, expression of the file's path p)
READERS = {
    "alexnet_np": (
        "import alexnet_np.weights.reading, alexnet_np.weights.formats.torch_zip",
        "alexnet_np.weights.read(p)",
    ),
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


def memory(path: Path, kind: str) -> dict[str, float]:
    growth = {}
    for name in readers(path, kind):
        imports, read = READERS[name]
        code = MEMORY.format(imports=imports, path=str(path), read=read)
        growth[name] = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    return growth


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for kind, path in files(Path(folder)).items():
            figures = "".join(f"  {who} {value:.2f}" for who, value in memory(path, kind).items())
            print(f"{kind}, peak memory as a multiple of the file: {figures}")


if __name__ == "__main__":
    main()
