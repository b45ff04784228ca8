"""What sharing a training step costs: shards on one process, and two processes beside one with two threads.

    python -m alexnet_np.benchmarks.parallel [--batch 128] [--rounds 7] [--json report.json]
    python -m alexnet_np.benchmarks.parallel --part shards --rounds 9

Everything takes turns, step by step, in an order that changes from round to round: shards in this process on one
thread; then, in two processes that mpirun starts, one process with both cores (the other sleeps), and two with a core
each: data parallel with and without overlap, "weird", and the paper's network with its towers apart. A turn's wall is
the slower process's, its processor seconds are those of both (a process that waits in MPI spins, which counts), and
`waited` is the share of the step that the mean process waited for the exchange. Medians; ratios are of the medians.
Before anything is timed, the bits are compared: one process with two shards, and two processes either way.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import alexnet_np as anp
from alexnet_np.backend import use_backend
from alexnet_np.measure import mpi
from alexnet_np.threads import set_num_threads
from alexnet_np.training.config import Config
from alexnet_np.training.parallel.counted import Counted
from alexnet_np.training.parallel.group import Alone, Group, world
from alexnet_np.training.parallel.sharded import Sharded, share_of
from alexnet_np.training.parallel.two_towers import TwoTowers
from alexnet_np.training.parallel.weird import Weird
from alexnet_np.training.run import digest
from alexnet_np.training.sgd import SGD
from alexnet_np.training.stepping import Stepper

WARM_UP = 2  # steps: kernels are compiled, buffers made
NAP = 0.002  # seconds between two looks of a process that is not to take a core
TARGETS = {
    "2 shards": 1.09,
    "4 shards": 1.15,
    "8 shards": 1.30,
    "waiting, plain": 0.12,
    "waiting, overlapped": 0.03,
    "two processes": 1.3,
    "weird": 1.1,
}


@dataclass
class Contender:
    name: str
    step: Callable[[], Any]
    threads: int = 1
    alone: bool = False  # the other process sleeps
    waited: Callable[[], float] = lambda: 0.0
    walls: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "threads": self.threads,
            "wall_ms": 1e3 * statistics.median(self.walls),
            "best_ms": 1e3 * min(self.walls),
            "processor_s": statistics.median(self.processor),
            "waited": statistics.median(self.shares),
            "turns": len(self.walls),
        }


class Bench:
    """Networks with a batch each, and steps over it."""

    def __init__(self, options: argparse.Namespace, group: Group) -> None:
        self.options, self.group = options, group
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((options.batch, 3, 224, 224), dtype=np.float32)
        self.target = rng.integers(0, 1000, options.batch)
        self.nets: dict[str, tuple[anp.AlexNet, SGD]] = {}

    def one(self, name: str, preset: str, threads: int) -> Contender:
        """A process by itself, as `alexnet train` runs."""
        model, optimizer = self._net(name, preset)
        stepper = Stepper(model, optimizer, "numba", self.options.batch)
        return Contender(name, lambda: stepper(self.x, self.target, ignore), threads, alone=True)

    def shared(self, name: str, preset: str, kind: Any, group: Group, config: Config, **more: Any) -> Contender:
        model, optimizer = self._net(name, preset)
        counted = Counted(group)
        stepper = kind(model, optimizer, counted, config, **more)
        x = self.x[share_of(config, counted).rows(len(self.x))]

        def waited() -> float:
            return counted.waited + (0.0 if stepper.exchange is None else stepper.exchange.waited)

        return Contender(name, lambda: stepper(x, self.target, ignore), 1, group.size == 1, waited)

    def digest(self, name: str) -> str:
        model, optimizer = self.nets[name]
        return digest(model.state_dict() | optimizer.velocities)

    def _net(self, name: str, preset: str) -> tuple[anp.AlexNet, SGD]:
        model = anp.alexnet(preset, width=self.options.width, num_classes=1000, seed=0, backend="numba").train()
        optimizer = SGD(model.named_parameters(), 1e-3, momentum=0.9, weight_decay=5e-4, backend="numba")
        self.nets[name] = model, optimizer
        return model, optimizer


def ignore(loss: float) -> None: ...


def meet(group: Group) -> None:
    """Until everybody is here; nobody spins meanwhile."""
    if group.size > 1:
        from mpi4py import MPI

        request = MPI.COMM_WORLD.Ibarrier()
        while not request.Test():
            time.sleep(NAP)


def take_turn(contender: Contender, group: Group) -> None:
    """One step; its figures are of all processes."""
    meet(group)
    waited, wall, processor = contender.waited(), time.perf_counter(), time.process_time()
    if not contender.alone or group.rank == 0:
        set_num_threads(contender.threads)
        contender.step()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    waited = (contender.waited() - waited) / wall
    meet(group)
    walls, seconds, shares = zip(*group.collect((wall, processor, waited)), strict=True)
    contender.walls.append(max(walls))
    contender.processor.append(sum(seconds))
    contender.shares.append(sum(shares) / len(shares))


def in_turns(contenders: list[Contender], group: Group, rounds: int, check: Callable[[], None]) -> dict[str, Any]:
    """Every contender's medians, by name."""
    with use_backend("numba"):
        for _ in range(WARM_UP):
            for contender in contenders:
                take_turn(contender, group)
        check()
        for contender in contenders:
            contender.walls, contender.processor, contender.shares = [], [], []
        for turn in range(rounds):
            at = turn % len(contenders)
            for contender in contenders[at:] + contenders[:at]:
                take_turn(contender, group)
    return {contender.name: contender.to_json() for contender in contenders}


def shards(options: argparse.Namespace) -> dict[str, Any]:
    """1, 2, 4 and 8 shards on one process and one thread: the processor seconds of a step.

    Shards are computed layer by layer, where a run by itself, without them, is computed by a training plan.
    """
    bench = Bench(options, Alone())
    contenders = [bench.one("plan", options.preset, threads=1)]
    for count in (1, 2, 4, 8):
        config = Config(shards=count)
        contenders.append(bench.shared(f"{count} shards", options.preset, Sharded, Alone(), config))
    found = in_turns(contenders, Alone(), options.rounds, lambda: None)
    seconds = {name: figures["processor_s"] for name, figures in found.items()}
    ratios = {f"{count} shards": seconds[f"{count} shards"] / seconds["1 shards"] for count in (2, 4, 8)}
    ratios["1 shard beside the plan"] = seconds["1 shards"] / seconds["plan"]
    return {"contenders": found, "ratios": ratios}


def processes(options: argparse.Namespace) -> dict[str, Any]:
    """What each of the two processes that mpirun started does."""
    group, bench, preset = world(), Bench(options, world()), options.preset
    two = Config(shards=2)
    contenders = [
        bench.one("one process, two threads", preset, threads=2),
        bench.shared("one process, two shards", preset, Sharded, Alone(), two),
        bench.shared("data, plain", preset, Sharded, group, two, overlap=False),
        bench.shared("data, overlapped", preset, Sharded, group, two),
        bench.shared("data, fast, overlapped", preset, Sharded, group, Config(shards=2, reduce="fast")),
        bench.shared("weird", preset, Weird, group, Config(parallel="weird")),
        bench.one("paper, one process, two threads", "paper", threads=2),
        bench.shared("paper, towers", "paper", TwoTowers, group, Config(parallel="towers", preset="paper")),
    ]

    def check() -> None:
        digests = {name: bench.digest(name) for name in ("data, plain", "data, overlapped")}
        everybody = group.collect(digests)
        found = {one for each in everybody for one in each.values()}
        found |= {group.share(bench.digest("one process, two shards"))}
        if len(found) != 1:
            raise SystemExit(f"the bits differ: {everybody}")

    found = in_turns(contenders, group, options.rounds, check)
    alone, paper = (found[f"{net}one process, two threads"]["wall_ms"] for net in ("", "paper, "))
    ratios = {
        "waiting, plain": found["data, plain"]["waited"],
        "waiting, overlapped": found["data, overlapped"]["waited"],
        "two processes": found["data, overlapped"]["wall_ms"] / alone,
        "weird": found["weird"]["wall_ms"] / alone,
        "towers": found["paper, towers"]["wall_ms"] / paper,
    }
    return {"contenders": found, "ratios": ratios, "digest": bench.digest("data, overlapped")}


def started(options: argparse.Namespace) -> dict[str, Any]:
    """The same by two processes; empty, with a word on standard error, where there is no MPI."""
    mpirun = mpi.find_mpirun()
    if mpirun is None:
        print(mpi.MISSING, file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        sizes = ["--batch", options.batch, "--rounds", options.rounds, "--preset", options.preset]
        sizes += ["--width", options.width, "--part", "worker", "--json", report]
        command = [sys.executable, "-m", "alexnet_np.benchmarks.parallel", *map(str, sizes)]
        launched = [*mpi.launcher(mpirun, 2, bound=False), *command]
        subprocess.run(launched, env=os.environ | mpi.ENVIRONMENT, check=True)
        return {**json.loads(report.read_text()), "mpi": mpi.version(mpirun)}


def show(part: str, report: dict[str, Any]) -> None:
    print(f"\n{part:34}{'wall ms':>9}{'best':>9}{'cpu s':>8}{'waited':>8}")
    for name, figures in report.get("contenders", {}).items():
        waited = f"{figures['waited']:.1%}" if figures["waited"] else ""
        wall, best = figures["wall_ms"], figures["best_ms"]
        print(f"{name:34}{wall:9.0f}{best:9.0f}{figures['processor_s']:8.2f}{waited:>8}")
    for name, ratio in report.get("ratios", {}).items():
        target = TARGETS.get(name)
        print(
            f"  {name:32}{ratio:9.3f}"
            + ("" if target is None else f"   {'met' if ratio <= target else 'NOT'} {target}")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--preset", default="torchvision")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--part", choices=("all", "shards", "processes", "worker"), default="all")
    parser.add_argument("--json", type=Path, help="write everything there")
    options = parser.parse_args()
    if options.part == "worker":
        report = processes(options)
        if world().rank == 0:
            options.json.write_text(json.dumps(report))
        return
    settings = {name: getattr(options, name) for name in ("batch", "rounds", "preset", "width")}
    report = {"settings": settings, "targets": TARGETS, "numpy": np.__version__}
    for part, measure in {"shards": shards, "processes": started}.items():
        if options.part in ("all", part):
            report[part] = measure(options)
            show(part, report[part])
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
