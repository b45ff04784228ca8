"""Peak memory of whole processes: inference in memory, and a job from files to vectors, ours beside the peers'.

The peak resident size of a process of its own for each contender, everything counted: interpreter, libraries, the
network, which is read from a file as users have it, the images, and several batches, since allocators have their final
size only after some.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from alexnet_np import weights
from alexnet_np.identity import alexnet
from alexnet_np.measure.peers import torch_net
from alexnet_np.measure.runtimes import trunk_file
from alexnet_np.study.torch_net import import_torch
from alexnet_np.threads import get_num_threads

RUNS = 6
PLAN, JOB = "plan", "job"
PEERS = ("torch", "onnxruntime")

# Not getrusage's ru_maxrss, which a child inherits from the process that started it.
REPORT_PEAK = """
print(next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


class Files(NamedTuple):
    """What the processes read and write: the network in three formats, the pictures, the vectors."""

    ours: Path
    torch: Path
    onnx: Path  # up to the embedding
    pictures: Path
    vectors: Path


INFERENCE = {
    PLAN: "alexnet_np.compile(model, max_batch={batch})",
    "eager numba": "model.to('numba')",
    "eager numpy": "model",
}
OURS = """
import numpy, alexnet_np
model = alexnet_np.alexnet(None, weights={files.ours!r}).eval()
forward = {forward}
x = numpy.random.default_rng(0).random(({batch}, 3, 224, 224), dtype=numpy.float32)
with alexnet_np.no_grad():
    for _ in range({runs}):
        forward(x)
"""
TORCHS_NET = """
import torch
from alexnet_np.study.torch_net import import_torchvision
torchvision, order = import_torchvision(), torch.{order}
model = torchvision.models.alexnet().eval()
model.load_state_dict(torch.load({files.torch!r}))
model = model.to(memory_format=order)
"""
TORCH = (
    TORCHS_NET
    + """
x = torch.rand({batch}, 3, 224, 224).contiguous(memory_format=order)
with torch.inference_mode():
    for _ in range({runs}):
        model(x)
"""
)
OUR_JOB = """
import alexnet_np
from pathlib import Path
from alexnet_np import jobs
model = alexnet_np.alexnet(None, weights={files.ours!r}).eval()
jobs.embed(model, jobs.find([{files.pictures!r}])[0], Path({files.vectors!r}), forget=True)
"""
TORCHS_JOB = (
    TORCHS_NET
    + """
model.classifier = model.classifier[:6]
transforms = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.transforms()
batches = torch.utils.data.DataLoader(torchvision.datasets.ImageFolder({files.pictures!r}, transforms), 32)
with torch.inference_mode():
    found = [model(x.contiguous(memory_format=order)).numpy() for x, _ in batches]
"""
)
ONNX_RUNTIMES_JOB = """
import onnxruntime
from alexnet_np import jobs
from alexnet_np.data.loading import load_batches
from alexnet_np.presets import PRESETS
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {threads}
session = onnxruntime.InferenceSession({files.onnx!r}, options, providers=["CPUExecutionProvider"])
files, _ = jobs.find([{files.pictures!r}])
batches = load_batches(files, 32, PRESETS["torchvision"].preprocessing, workers={threads})
found = [session.run(None, {{"x": batch.x}})[0] for batch in batches]
"""


def write_files(folder: Path, pictures: Path) -> Files:
    """torchvision's network, of random numbers, as everybody reads it."""
    torch, model = import_torch(), alexnet("torchvision", seed=0).eval()
    made = Files(
        folder / "weights.safetensors",
        folder / "weights.pth",
        trunk_file(model, str(folder)),
        pictures,
        folder / "v.npy",
    )
    weights.write(made.ours, model)
    torch.save(torch_net(model).state_dict(), made.torch)
    return made


def inference(files: Files, batch: int) -> dict[str, float]:
    """contender -> megabytes, of batches that are there. The model stays: a plan's weights are there twice."""
    codes = {name: OURS.replace("{forward}", forward) for name, forward in INFERENCE.items()}
    for order in ("contiguous_format", "channels_last"):
        codes[f"torch {order.removesuffix('_format')}"] = TORCH.replace("{order}", order)
    return peaks(codes, files, batch)


def job(files: Files) -> dict[str, float]:
    """contender -> megabytes, from the pictures to their vectors. Ours drops the model's weights once it has them."""
    codes = {
        JOB: OUR_JOB,
        "torch, DataLoader, 0 workers": TORCHS_JOB.replace("{order}", "channels_last"),
        "onnxruntime, fed by threads": ONNX_RUNTIMES_JOB,
    }
    return peaks(codes, files, 32)


def peaks(codes: Mapping[str, str], files: Files, batch: int) -> dict[str, float]:
    """Each in a process of its own; a first one, which may compile kernels, does not count."""
    paths = Files(*map(str, files))  # type: ignore[arg-type]
    found = {}
    for name, code in codes.items():
        given = {"files": paths, "threads": get_num_threads()}
        if not name.startswith(PEERS):
            run(code.format(batch=min(batch, 2), runs=1, **given) + REPORT_PEAK)
        found[name] = run(code.format(batch=batch, runs=RUNS, **given) + REPORT_PEAK) / 1e6
    return found


def run(code: str) -> float:
    """The number that a fresh process prints last."""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return float(printed.split()[-1])


def told(what: str, found: Mapping[str, float], ours: str, peers: Sequence[str]) -> list[str]:
    """One line a contender, and one that compares ours with the least of `peers`."""
    lines = [f"peak memory, {what}, {name}: {megabytes:.0f} MB" for name, megabytes in found.items()]
    least = min((name for name in found if name.startswith(tuple(peers))), key=lambda name: found[name])
    return [*lines, f"peak memory, {what}: {ours} takes {found[ours] / found[least]:.2f} of {least}'s"]
