"""How long the network waits for its images, which are decoded in the background: from a folder of JPEGs.

    python -m alexnet_np.benchmarks.data_wait [--images 1024] [--batch 32] [--workers 2] [--preset torchvision]

JPEGs of ImageNet's usual size (500x375) are read, decoded, resized, cropped and normalised by `workers` threads. For
training (a random crop, then a whole step) and for inference (the central crop, then a compiled plan) it measures
decoding alone, the network alone on a batch that is there already, and both together, with the share of the time that
the loop stood waiting for its next batch, the first one included. Exit code 1 where that is more than 5% although the
threads by themselves decode faster than the network computes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import alexnet_np as anp
from alexnet_np.backend import use_backend
from alexnet_np.data.loading import find_images, load_batches
from alexnet_np.measure.load import JPEGS, write_photographs
from alexnet_np.presets import PRESETS
from alexnet_np.training.config import Config
from alexnet_np.training.run import Run

ALLOWED = 0.05
WARM_UP = 3  # steps: compilation, and buffers for every batch size


class Figures(NamedTuple):
    """One pass over the images."""

    images: int
    seconds: float
    waited: float  # seconds of these for the next batch

    @property
    def rate(self) -> float:
        return self.images / self.seconds

    @property
    def share(self) -> float:
        return self.waited / self.seconds


def measure(batches: Iterable[Any], compute: Callable[..., Any], size: Callable[..., int]) -> Figures:
    """Run `compute(*batch)` over `batches`; the time in between is the wait."""
    images, waited, begun = 0, 0.0, time.perf_counter()
    asked = begun
    for batch in batches:
        waited += time.perf_counter() - asked
        compute(*batch)
        images += size(*batch)
        asked = time.perf_counter()
    return Figures(images, time.perf_counter() - begun, waited)


def compare(name: str, batches: Callable[[], Iterator[Any]], compute: Callable[..., Any]) -> bool:
    """Measure decoding, the network, and both; print them; true if the wait is as short as it can be asked to be."""

    def size(x: Any, *rest: Any) -> int:
        return len(x)

    first_pass = batches()
    first = next(first_pass)
    steps = 1 + sum(1 for _ in first_pass)  # to its end, so that every file is in the page cache
    for _ in range(WARM_UP):
        compute(*first)
    decoding = measure(batches(), lambda *batch: None, size)
    network = measure([first] * steps, compute, size)
    both = measure(batches(), compute, size)
    print(
        f"{name:9}  images/s: decoding alone {decoding.rate:.0f}, network alone {network.rate:.0f}, "
        f"together {both.rate:.0f}; waiting {both.share:.2%} of the time",
        flush=True,
    )
    return both.share <= ALLOWED or decoding.rate < network.rate


def training(folder: Path, preset: str, batch: int, workers: int) -> bool:
    config = Config(
        dataset="folder", data=str(folder), preset=preset, augmentation="crop", batch_size=batch, momentum=0.9, lr=1e-4
    )
    run = Run(config, workers)
    with use_backend(config.backend):
        return compare("training", lambda: run.train_batches.epoch(0), run.step)


def inference(folder: Path, preset: str, batch: int, workers: int) -> bool:
    plan = anp.compile(anp.alexnet(preset, seed=0).eval(), max_batch=batch)
    files, recipe = find_images([folder]), PRESETS[preset].preprocessing

    def batches() -> Iterator[tuple[np.ndarray]]:
        return ((loaded.x,) for loaded in load_batches(files, batch, recipe, workers=workers))

    return compare("inference", batches, plan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024, help=f"rounded up to a multiple of {JPEGS}")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--preset", default="torchvision")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label in range(max(2, -(-arguments.images // JPEGS))):
            write_photographs(folder / f"class{label:03}", JPEGS)
        settings = folder, arguments.preset, arguments.batch, arguments.workers
        good = [part(*settings) for part in (training, inference)]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
