"""`alexnet plan-cluster` beside what two processes measure: step, bytes and efficiency, over links of several rates.

    python -m alexnet_np.benchmarks.cluster_plan [--batch 128] [--rounds 5] [--links 1.25 0.5 0.25] [--width 1]

Two processes that mpirun starts, a thread each, on this machine: data parallel and "weird", over the loopback as it is
and over links of so many GB/s in each direction. Those are a stand-in: whatever a process sends keeps its exchange busy
for at least bytes / rate. The model is given what a process does by itself while its neighbour does the same, and of
the loopback the bandwidth that an exchange of all gradients by itself has; steps, bytes and efficiencies are its
predictions. Medians over rounds in which everything takes turns. The table is Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

import alexnet_np as anp
from alexnet_np.backend import use_backend
from alexnet_np.measure import mpi
from alexnet_np.study.cluster_plan import Machines, estimate, network_of
from alexnet_np.threads import set_num_threads
from alexnet_np.training.config import Config
from alexnet_np.training.parallel.counted import Counted
from alexnet_np.training.parallel.group import Alone, Group, world
from alexnet_np.training.parallel.sharded import Sharded, Shared
from alexnet_np.training.parallel.weird import Weird
from alexnet_np.training.sgd import SGD

WARM_UP = 2  # steps
CLASSES, SIDE = 1000, 224
T = TypeVar("T")
Turn = tuple[Any, float | None, Callable[[], Any]]  # a name, a link, what to do


class Link(Counted):
    """A Group over a link of `rate` bytes a second in each direction; None: as fast as it is."""

    def __init__(self, group: Group) -> None:
        super().__init__(group)
        self.rate: float | None = None

    def _moving(self, sent: int, call: Callable[[], T]) -> T:
        begun = time.perf_counter()
        found = super()._moving(sent, call)
        if self.rate is not None:
            time.sleep(max(0.0, begun + sent / self.rate - time.perf_counter()))
        return found


class Bench:
    """What one of the two processes does."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.link = options, Link(world())
        rng, half = np.random.default_rng(0), options.batch // 2
        own = slice(self.link.rank * half, (self.link.rank + 1) * half)
        self.x = rng.standard_normal((options.batch, 3, SIDE, SIDE), dtype=np.float32)[own]
        self.target = rng.integers(0, CLASSES, options.batch)
        self.alone = self.stepper(Sharded, Alone(), Config())
        self.schemes = {
            "data": self.stepper(Sharded, self.link, Config(shards=2)),
            "hybrid": self.stepper(Weird, self.link, Config(parallel="weird")),
        }

    def stepper(self, kind: Any, group: Any, config: Config) -> Shared:
        model = anp.alexnet("torchvision", width=self.options.width, seed=0, backend="numba").train()
        return kind(model, SGD(model.named_parameters(), 1e-3, momentum=0.9, backend="numba"), group, config)

    def turn(self, step: Callable[[], Any]) -> float:
        """Seconds of the slower process."""
        self.link.share(None)
        begun = time.perf_counter()
        step()
        return max(self.link.collect(time.perf_counter() - begun))

    def own_half(self) -> None:
        half = len(self.x)
        self.alone(self.x, self.target[self.link.rank * half :][:half], lambda loss: None)

    def exchange(self, size: int) -> Callable[[], None]:
        """All gradients by themselves: what Exchange sends, and no arithmetic."""
        flat = np.ones(size, np.float32)
        inbox, part = np.empty_like(flat), np.ones(size // 2, np.float32)

        def send() -> None:
            self.link.scatter(flat, inbox)
            self.link.gather(part, flat)

        return send

    def measure(self, links: Sequence[float | None], size: int) -> tuple[float, float, dict[tuple, tuple[float, int]]]:
        """Seconds of a step without exchange and of an exchange alone; by scheme and link, of a step, and its bytes."""
        send = self.exchange(size)
        walls: dict[Any, list[float]] = {}
        sent: dict[tuple, int] = {}
        for round in range(WARM_UP + self.options.rounds):
            turns: list[Turn] = [("alone", None, self.own_half), ("wire", None, send)]
            for name, stepper in self.schemes.items():
                step = self.step_of(stepper)
                turns += [((name, link), link, step) for link in links if round >= WARM_UP or link is None]
            for name, link, step in turns:
                self.link.rate, before = None if link is None else 1e9 * link, self.link.sent
                wall = self.turn(step)
                if round >= WARM_UP:
                    walls.setdefault(name, []).append(wall)
                    sent[name] = self.link.sent - before
        medians = {name: statistics.median(each) for name, each in walls.items()}
        steps = {name: (medians[name], sent[name]) for name in medians if isinstance(name, tuple)}
        return medians["alone"], medians["wire"], steps

    def step_of(self, stepper: Shared) -> Callable[[], Any]:
        return lambda: stepper(self.x, self.target, lambda loss: None)


def process(options: argparse.Namespace) -> None:
    """What mpirun starts, twice."""
    set_num_threads(1)
    network = network_of(anp.alexnet("torchvision", width=options.width, seed=0), SIDE)
    weights = network.conv_bytes + network.dense_bytes
    with use_backend("numba"):
        bench = Bench(options)
        alone, wire, steps = bench.measure([None, *options.links], weights // 8 * 2)
    if bench.link.rank:
        return
    own, rate = weights / wire / 1e9, options.batch / 2 / alone
    by_itself = f"a process by itself: {1e3 * alone:,.0f} ms, {rate:,.0f} images/s"
    print(f"\nBatch {options.batch}, 2 processes x 1 thread; {by_itself}; the loopback: {own:.2f} GB/s\n")
    print("| scheme | link, GB/s | MB sent | model | step, ms | model | off by | efficiency | model |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (scheme, link), (seconds, sent) in steps.items():
        # The two are the devices of one node: that is where the hybrid splits, and to a ring it is all the same.
        machines = Machines(1, 2, rate, link or own, link or own, decoding_cores=10**6)
        model = estimate(network, machines, options.batch, scheme)
        cells = [scheme, "loopback" if link is None else f"{link:g}"]
        cells += [f"{sent / 1e6:.1f}", f"{model.sent_inside / 1e6:.1f}"]
        cells += [f"{1e3 * seconds:,.0f}", f"{1e3 * model.step:,.0f}", f"{model.step / seconds - 1:+.0%}"]
        cells += [f"{alone / seconds:.0%}", f"{model.efficiency:.0%}"]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--links", type=float, nargs="*", default=[1.25, 0.5, 0.25], help="GB/s in each direction")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        process(options)
        return
    mpirun = mpi.find_mpirun()
    if mpirun is None:
        sys.exit(mpi.MISSING)
    command = [*mpi.launcher(mpirun, 2, bound=False), sys.executable, "-m", "alexnet_np.benchmarks.cluster_plan"]
    sys.exit(subprocess.run([*command, *sys.argv[1:], "--process"], env=os.environ | mpi.ENVIRONMENT).returncode)


if __name__ == "__main__":
    main()
