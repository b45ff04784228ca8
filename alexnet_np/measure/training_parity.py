"""Training beside PyTorch, from the same weights, on the same batches, without dropout: the losses of both."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from alexnet_np.backend import use_backend
from alexnet_np.measure.peers import torch_net
from alexnet_np.study.torch_net import import_torch
from alexnet_np.training.config import Config
from alexnet_np.training.run import Run

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
