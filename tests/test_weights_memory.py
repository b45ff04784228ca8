"""How much memory reading and converting a file takes beside its numbers: each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("h5py")

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("peaks of memory are read from Linux' /proc", allow_module_level=True)

MOST, SLACK = 1.1, 6 << 20  # times the file; bytes of buffers, whatever its size
MEASURED = """
import json, os, sys
from pathlib import Path
import cuda_convnet_files, weight_files, weight_formats
import alexnet_np as anp
from alexnet_np import export

def tensors(state):
    import torch
    return {name: torch.from_numpy(array) for name, array in state.items()}

FORMATS = {
    "pth": lambda path, state: weight_files.save_zip(path, tensors(state)),
    "legacy.pth": lambda path, state: weight_files.save_legacy(path, tensors(state)),
    "safetensors": anp.weights.write,
    "npz": anp.weights.write,
    "npy": weight_formats.guerzhoy,
    "v0.caffemodel": lambda path, state: weight_formats.caffemodel(path, state, 0),
    "v1.caffemodel": lambda path, state: weight_formats.caffemodel(path, state, 1),
    "v2.caffemodel": lambda path, state: weight_formats.caffemodel(path, state, 2),
    "onnx": weight_formats.onnx_file,
    "mat": weight_formats.matconvnet,
    "hdf5": weight_formats.hdf5,
    "1.1": lambda path, state: path.write_bytes(cuda_convnet_files.cuda_convnet(state)),
}
def preset(path):
    return {".onnx": "onnx", ".1": "krizhevsky145"}.get(path.suffix, "bvlc")

WORK = {
    "read": lambda path, _: anp.weights.read(path),
    "load": lambda path, width: anp.alexnet(preset(path), path, width=width),
}
for ending in ("safetensors", "npz", "pth", "onnx", "caffemodel"):
    WORK[f"convert to {ending}"] = lambda path, _, e=ending: export.convert(
        path, FOLDER / f"out.{e}", preset=preset(path)
    )

def peak():
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

def in_a_child(work, small, large):
    reading, writing = os.pipe()
    if not os.fork():
        try:
            work(*small)  # a child of a fork has no page of any library: whatever is used, is there then
            Path("/proc/self/clear_refs").write_text("5")
            before = peak()
            work(*large)
        finally:
            os.write(writing, str(peak() - before).encode())
            os._exit(0)
    os.close(writing)
    os.wait()
    return int(os.read(reading, 100))

FOLDER, found = Path(sys.argv[1]), {}
WIDTHS = (1 / 32, 1 / 4)
states = [anp.alexnet("bvlc", width=width, num_classes=1000, seed=0).state_dict() for width in WIDTHS]
for kind, write in FORMATS.items():
    paths = [FOLDER / part / ("1.1" if kind == "1.1" else f"w.{kind}") for part in ("small", "large")]
    for path, state in zip(paths, states):
        path.parent.mkdir(exist_ok=True)
        write(path, state)
    small, large = zip(paths, WIDTHS)
    for name, work in WORK.items():
        if name in ("read", "load") or kind in ("v1.caffemodel", "onnx"):
            work(*small)  # so that whatever is imported, is
            found[f"{name} {kind}"] = (in_a_child(work, small, large), paths[1].stat().st_size)
print(json.dumps(found))
"""


def test_no_more_than_a_tenth_beside_the_numbers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURED, str(tmp_path)]
    large = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 17)}  # arrays as those of the full size: not of the heap
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, env=large)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found) == 12 * 2 + 2 * 5
    turned = {"load npy": 2.2}  # dense weights that are (in, out) there and lie in memory as (out, in) here
    over = {
        what: round(grown / size, 2)
        for what, (grown, size) in found.items()
        if grown > turned.get(what, MOST) * size + SLACK
    }
    assert not over
    assert all(grown > 0.4 * size for grown, size in found.values()), found  # they were read
