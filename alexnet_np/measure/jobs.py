"""A folder of JPEGs as vectors: our job beside torchvision with its DataLoader, and runtimes fed by decoding threads.

    alexnet bench jobs [--images 600] [--out FILE]

The pictures are photographs (scikit-image's, where it is installed, and the cat that the package carries) at
ImageNet's usual 500x375, each shifted to be another. Everybody has the same weights, starts with the network made,
decodes with Pillow and gives the same vectors. Only `embed, to a file` packs its weights and writes its file within the
time.

Below stands the peak memory of processes of their own (memory.py): of the job, which drops the model once its weights
are packed, and of a plan beside its model.

The bound: with the cores busy throughout, a picture takes as long as decoding it and computing it take, each alone on
all cores. What share of that a job reaches says what its scheduling costs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import alexnet_np as anp
from alexnet_np import jobs
from alexnet_np.data.loading import find_images, load_batches
from alexnet_np.data.preprocess import read_pixels
from alexnet_np.identity import recipe_of
from alexnet_np.jobs.rows import cut
from alexnet_np.jobs.workers import in_order
from alexnet_np.measure import memory
from alexnet_np.measure.harness import Contender, Run, Work, attempt
from alexnet_np.measure.load import JPEG_SIZE, write_photographs
from alexnet_np.measure.report import Row
from alexnet_np.measure.runtimes import onnx_session, torch_trunk, trunk_file
from alexnet_np.study.summary import summary
from alexnet_np.study.torch_net import import_torch, import_torchvision
from alexnet_np.threads import get_num_threads

BATCH = 32
VECTORS = 1e-4  # largest error relative to the largest number
OURS, DECODING, COMPUTING = "alexnet_np", "decoding alone", "network alone"
CHECKED = 8  # pictures that are computed by the array operations too


def works(images: int) -> Iterator[Work]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photographs(folder / "photographs" / "one_class", images)
        yield embedding_work(folder)


def memory_lines(folder: Path) -> list[str]:
    files = memory.write_files(folder, folder / "photographs")
    lines = memory.told("the job", memory.job(files), memory.JOB, ["onnxruntime"])
    return lines + memory.told("batches of 32 in memory", memory.inference(files, 32), memory.PLAN, ["torch"])


def embedding_work(folder: Path) -> Work:
    model = anp.alexnet("torchvision", seed=0).eval()
    photographs = folder / "photographs"
    files = find_images(photographs)
    layer = jobs.embedding_name(model)
    reference = jobs.open_engine(model, layer, images=CHECKED, backend="numpy")
    truth = jobs.read_rows(files[:CHECKED], reference.workers[0], reference.recipe).values

    def check(vectors: Any) -> None:
        if isinstance(vectors, np.ndarray):  # decoding alone gives none
            assert vectors.shape == (len(files), truth.shape[1])
            error = np.abs(vectors[:CHECKED] - truth).max() / np.abs(truth).max()
            assert error < VECTORS, f"a contender's vectors are wrong: relative error {error:.1e}"

    engine = jobs.open_engine(model, layer, images=len(files))
    makers: dict[str, Callable[[], Run]] = {
        OURS: lambda: (lambda: streamed(files, engine), ""),
        f"{OURS} embed, to a file": lambda: (lambda: to_a_file(model, files, folder / "vectors.npy"), ""),
        **{
            f"torch, DataLoader, {n} workers": partial(torch_runner, model, folder / "photographs", n) for n in range(3)
        },
        "onnxruntime, fed by threads": lambda: fed(onnx_trunk(model), model, files),
        "openvino, fed by threads": lambda: fed(openvino_session(model), model, files),
        DECODING: lambda: (lambda: decoded(files, engine), ""),
        COMPUTING: lambda: computing(files, engine),
    }
    contenders = [Contender(name, *attempt(make)) for name, make in makers.items()]
    counted = summary(model, (1, 3, 224, 224))
    moved = float(sum(Path(file).stat().st_size for file in files))
    title = f"{len(files)} JPEGs of {JPEG_SIZE[0]}x{JPEG_SIZE[1]} as vectors"

    def summed(rows: Sequence[Row]) -> list[str]:
        return speeds(len(files), rows) + memory_lines(folder)

    flops = 2.0 * counted.macs * len(files)
    return Work(title, flops, moved, contenders, check, summary=summed, images=len(files))


def speeds(images: int, rows: Sequence[Row]) -> list[str]:
    """Images a second of everybody, the bound, and which share of it is ours."""
    seconds = {row.contender: row.median for row in rows if not row.missing}
    lines = [f"{name}: {images / median:.0f} images/s" for name, median in seconds.items()]
    if {OURS, DECODING, COMPUTING} <= seconds.keys():
        bound = seconds[DECODING] + seconds[COMPUTING]
        share = bound / seconds[OURS]
        lines.append(
            f"bound, 1/(1/decode + 1/network): {images / bound:.0f} images/s; {OURS} reaches {share:.0%} of it"
        )
    return lines


def streamed(files: Sequence[str], engine: jobs.Engine) -> np.ndarray:
    with closing(jobs.stream(files, engine)) as made:
        return np.concatenate([rows.values for rows in made])


def to_a_file(model: Any, files: Sequence[str], out: Path) -> np.ndarray:
    jobs.embed(model, files, out)
    return np.load(out)


def decoded(files: Sequence[str], engine: jobs.Engine) -> None:
    """By as many threads as there are cores."""

    def decode(chunk: Sequence[str]) -> int:
        return len([read_pixels(file, engine.recipe) for file in chunk])

    assert sum(in_order(cut(files, engine.chunk), [decode] * get_num_threads())) == len(files)


def computing(files: Sequence[str], engine: jobs.Engine) -> Run:
    """From pixels that are there."""
    chunks = [np.stack([read_pixels(file, engine.recipe) for file in chunk]) for chunk in cut(files, engine.chunk)]
    return lambda: np.concatenate(list(in_order(chunks, engine.workers))), ""


def torch_runner(model: Any, folder: Path, workers: int) -> Run:
    torch, torchvision = import_torch(), import_torchvision()
    torch.set_num_threads(get_num_threads())
    trunk = torch_trunk(model).to(memory_format=torch.channels_last)
    transforms = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.transforms()
    dataset = torchvision.datasets.ImageFolder(folder, transforms)
    loader = torch.utils.data.DataLoader(dataset, BATCH, num_workers=workers, persistent_workers=workers > 0)

    def run() -> np.ndarray:
        with torch.inference_mode():
            batches = (x.contiguous(memory_format=torch.channels_last) for x, _ in loader)
            return np.concatenate([trunk(x).numpy() for x in batches])

    return run, ""


def fed(session: Callable[[np.ndarray], np.ndarray], model: Any, files: Sequence[str]) -> Run:
    """A runtime on all cores, with as many threads that decode ahead."""

    def run() -> np.ndarray:
        batches = load_batches(files, BATCH, recipe_of(model), workers=get_num_threads())
        with closing(batches):
            return np.concatenate([session(batch.x) for batch in batches])

    return run, ""


def onnx_trunk(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        return onnx_session(trunk_file(model, folder))


def openvino_session(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    core = openvino.Core()
    with tempfile.TemporaryDirectory() as folder:
        network = core.read_model(trunk_file(model, folder))
        options = {"INFERENCE_NUM_THREADS": get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(network, "CPU", options).create_infer_request()
    return lambda x: request.infer([x])[0].copy()
