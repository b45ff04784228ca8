"""One whole epoch of d2l's full-width network on Fashion-MNIST's 60,000 images, and PyTorch's speed on the same run.

    python -m alexnet_np.benchmarks.full_epoch [--every 20] [--limit N] [--batch 128] [--width 1] [--backend numba]
                                               [--json FILE]

Our network is trained on every batch, with d2l's recipe (SGD, lr 0.01, dropout 0.5). On every so manieth batch PyTorch
makes a step too, on the same images, with a network of the same layers (channels_last, fused SGD: the fastest it has);
who goes first alternates. Steps are timed without what prepares the images; the images a second of the whole epoch are
with it. At the end, loss and accuracy on the 10,000 test images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alexnet_np.backend import use_backend
from alexnet_np.measure.peers import torch_net
from alexnet_np.study.torch_net import import_torch
from alexnet_np.training.config import Config
from alexnet_np.training.evaluation import evaluate
from alexnet_np.training.run import Run, environment

PAUSE = 0.05  # seconds between two turns: thread pools spin on for a while after their work, on the next one's cores


class Peer:
    """The same network in PyTorch, as fast as it can be trained there on a CPU."""

    def __init__(self, run: Run) -> None:
        self.torch = import_torch()
        self.net = torch_net(run.model).train().to(memory_format=self.torch.channels_last)
        self.optimizer = self.torch.optim.SGD(self.net.parameters(), run.config.lr, fused=True)

    def step(self, x: Any, target: Any) -> None:
        images = self.torch.from_numpy(x).to(memory_format=self.torch.channels_last)
        self.optimizer.zero_grad()
        self.torch.nn.functional.cross_entropy(self.net(images), self.torch.from_numpy(target)).backward()
        self.optimizer.step()


@dataclass
class Epoch:
    """What is to be told about it."""

    config: dict[str, Any]
    environment: dict[str, Any]
    images: int = 0
    seconds: float = 0.0  # without PyTorch's steps and the pauses
    ours: list[float] = field(default_factory=list)  # seconds of the steps that both made
    theirs: list[float] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def rates(self, batch: int) -> tuple[float, float]:
        """Images a second, ours and PyTorch's: medians over the steps that both made but the first, which warms up."""
        ours, theirs = (statistics.median(times[1:] or times) for times in (self.ours, self.theirs))
        return batch / ours, batch / theirs


def train(run: Run, peer: Peer, every: int, report: Callable[[Epoch, dict[str, Any]], None]) -> Epoch:
    """One epoch; `report` is called with what is known and the figures of our step, after every step of both."""
    epoch = Epoch(run.config.to_json(), environment(run.engine) | {"torch": peer.torch.__version__})
    begun, apart, ours_first = time.perf_counter(), 0.0, True
    with closing(run.train_batches.epoch(0)) as batches:
        for i, (x, target) in enumerate(batches):
            epoch.images += len(target)
            if i % every or len(target) < run.config.batch_size:
                run.step(x, target)
                continue
            turns = {"ours": lambda: run.step(x, target), "theirs": lambda: peer.step(x, target)}  # noqa: B023
            figures: dict[str, Any] = {}
            for who in turns if ours_first else reversed(turns):
                time.sleep(PAUSE)
                start = time.perf_counter()
                figures[who] = turns[who]()
                getattr(epoch, who).append(time.perf_counter() - start)
            ours_first = not ours_first
            apart += epoch.theirs[-1] + 2 * PAUSE
            epoch.seconds = time.perf_counter() - begun - apart
            report(epoch, figures["ours"])
    epoch.seconds = time.perf_counter() - begun - apart
    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=20, help="batches from one step of PyTorch's to the next")
    parser.add_argument("--limit", type=int, help="train on so many images only")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--backend", default="numba")
    parser.add_argument("--workers", type=int, default=1, help="threads that prepare images")
    parser.add_argument("--json", type=Path, help="a file for all that was measured")
    arguments = parser.parse_args()
    run = Run(
        Config(
            width=arguments.width,
            batch_size=arguments.batch,
            limit=arguments.limit,
            backend=arguments.backend,
            epochs=1,
        ),
        arguments.workers,
    )

    def report(epoch: Epoch, step: dict[str, Any]) -> None:
        ours, theirs = epoch.rates(arguments.batch)
        print(
            f"batch {step['batch']:4} of {step['batches']}  loss {step['train_loss']:.4f}, accuracy "
            f"{step['train_accuracy']:.2%} so far  images/s: {ours:.1f}, PyTorch {theirs:.1f} on the same batches; "
            f"{epoch.images / epoch.seconds:.1f} with everything",
            flush=True,
        )

    with use_backend(arguments.backend):
        epoch = train(run, Peer(run), arguments.every, report)
        waited = run.train_batches.waited
        with closing(run.validation_batches.epoch(0)) as batches:
            epoch.figures = run.finish_epoch(evaluate(run.model, batches, len(run.task.classes)))
    ours, theirs = epoch.rates(arguments.batch)
    print(
        f"{epoch.images} images in {epoch.seconds:.0f} s: {epoch.images / epoch.seconds:.1f} images/s, of which "
        f"{waited / epoch.seconds:.1%} of the time waiting for data\n"
        f"steps that both made: {ours:.1f} images/s, PyTorch {theirs:.1f}: {ours / theirs:.2f} times\n"
        f"training loss {epoch.figures['train_loss']:.4f}, accuracy {epoch.figures['train_accuracy']:.2%}; "
        f"test loss {epoch.figures['loss']:.4f}, accuracy {epoch.figures['accuracy']:.2%}"
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(asdict(epoch), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
