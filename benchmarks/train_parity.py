"""Training beside PyTorch, from the same weights, on the same batches, without dropout: how far do the losses part?

    python -m alexnet_np.benchmarks.train_parity [--steps 50] [--batch 128] [--width 1] [--backend numba]
                                                 [--dtype float32] [--threads N]

d2l's network on Fashion-MNIST with d2l's recipe (SGD, lr 0.01). The two take turns, batch by batch, and each one's
images a second are shown. Exit code 1 where losses differ by more than 1e-3 (float32) or 1e-8 (float64), relatively.
With --steps 469 it is a whole epoch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from alexnet_np.backend import use_backend
from alexnet_np.training.config import Config
from alexnet_np.training.run import Run

from .peers import import_torch, torch_net

TOLERANCES = {"float32": 1e-3, "float64": 1e-8}


@dataclass
class Beside:
    """Two trainings, step by step."""

    run: Run
    peer: Any  # torch's module
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    our_seconds: list[float] = field(default_factory=list)
    their_seconds: list[float] = field(default_factory=list)

    def differences(self) -> list[float]:
        """Of the losses, relative to torch's."""
        return [abs(a / b - 1) for a, b in zip(self.ours, self.theirs, strict=True)]


def train_beside_torch(config: Config, steps: int) -> Iterator[Beside]:
    """Train `config` here and in torch, batch by batch; yields after every step. Schedules: constant, one-cycle."""
    torch = import_torch()
    beside = Beside(run := Run(config), torch_net(run.model).train().to(getattr(torch, config.dtype)))
    optimizer = torch.optim.SGD(
        torch_groups(config, beside.peer), config.lr, config.momentum, weight_decay=config.weight_decay
    )
    schedule = None
    if config.schedule == "one-cycle":
        peaks, total = [group["lr"] for group in optimizer.param_groups], config.epochs * len(run.train_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total, cycle_momentum=False)

    def torch_step(x: Any, target: Any) -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(beside.peer(torch.from_numpy(x)), torch.from_numpy(target))
        loss.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        return float(loss.detach())

    with use_backend(config.backend):
        for epoch in range(config.epochs):
            for x, target in run.train_batches.epoch(epoch):
                begun = time.perf_counter()
                beside.ours.append(run.step(x, target)["loss"])
                between = time.perf_counter()
                beside.theirs.append(torch_step(x, target))
                beside.our_seconds.append(between - begun)
                beside.their_seconds.append(time.perf_counter() - between)
                yield beside
                if len(beside.ours) == steps:
                    return


def torch_groups(config: Config, peer: Any) -> list[dict[str, Any]]:
    """torch's parameter groups for `config.biases`."""
    if config.biases == "same":
        return [{"params": list(peer.parameters())}]
    weights, biases = ([p for p in peer.parameters() if (p.ndim == 1) == bias] for bias in (False, True))
    return [{"params": weights}, {"params": biases, "lr": 2 * config.lr, "weight_decay": 0.0}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--backend", default="numba")
    parser.add_argument("--dtype", choices=TOLERANCES, default="float32")
    parser.add_argument("--threads", type=int, help="of torch; its own default otherwise")
    arguments = parser.parse_args()
    torch = import_torch()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    config = Config(
        width=arguments.width,
        batch_size=arguments.batch,
        dropout=0.0,
        backend=arguments.backend,
        dtype=arguments.dtype,
        epochs=-(-arguments.steps * arguments.batch // 60_000),
    )
    for beside in train_beside_torch(config, arguments.steps):
        step = len(beside.ours)
        if step in (1, arguments.steps) or step % 10 == 0:
            speeds = [arguments.batch / statistics.median(s) for s in (beside.our_seconds, beside.their_seconds)]
            print(
                f"step {step:4}  loss {beside.ours[-1]:.6f}, torch {beside.theirs[-1]:.6f}  "
                f"worst so far {max(beside.differences()):.1e}  images/s {speeds[0]:.0f}, torch {speeds[1]:.0f}",
                flush=True,
            )
    worst = max(beside.differences())
    print(f"{arguments.backend} {arguments.dtype}, {step} batches of {arguments.batch}: losses differ by {worst:.1e}")
    sys.exit(worst > TOLERANCES[arguments.dtype])


if __name__ == "__main__":
    main()
