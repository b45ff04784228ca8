"""Kill a random process of a run that several share, resume on another number of them, and compare the ends.

    python -m alexnet_np.benchmarks.kill_ranks [--kills 20] [--mpirun mpirun] [--seed 0]

Every round starts `mpirun -n R alexnet train --shards 4` afresh, R of 2 or 4, kills one of its R processes by SIGKILL
some time after a random step, waits for the launcher to end the others, and runs `alexnet train --resume` to the end on
another R of 1, 2, 4. A kill that comes too late is tried again. Checkpoints are written after every step, so that some
kills fall into the writing of one. Exit code 1 if any end differs, bit for bit, from a run of one process left alone.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from alexnet_np.benchmarks.kill_and_resume import COMMAND, FILES, fingerprint
from alexnet_np.errors import DataError
from alexnet_np.measure import mpi
from alexnet_np.training.checkpoint import Checkpoints
from alexnet_np.training.metrics import read_events

RECIPE = shlex.split(
    "--dataset synthetic --limit 192 --image-size 67 --width 0.0625 --batch-size 32 --epochs 2 --shards 4 "
    "--momentum 0.9 --weight-decay 5e-4 --schedule one-cycle --augmentation mirror --biases double "
    "--initialisation xavier --dropout 0.5 --workers 1"
)
RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")  # in each process's environment: Open MPI, MPICH
MARK = "ALEXNET_NP_KILL_RANKS"
SECONDS = 300  # in which everything ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--mpirun", default=mpi.find_mpirun() or "mpirun", help="of the MPI that mpi4py finds here")
    parser.add_argument("--seed", type=int, default=0, help="of the processes and the moments")
    arguments = parser.parse_args()
    choose, same, tried = random.Random(arguments.seed), 0, 0
    with tempfile.TemporaryDirectory() as root:
        alone = Path(root) / "alone"
        ended(start(1, alone, RECIPE, arguments.mpirun))
        expected, steps = fingerprint(alone), last_step(alone)
        print(f"one process left alone: {steps} steps, ends with {expected[:16]}", flush=True)
        number = 0
        while number < arguments.kills:
            tried += 1
            out, processes = Path(root) / f"run{tried}", choose.choice([2, 4])
            where = kill(out, processes, choose, steps, arguments.mpirun)
            if where is None:
                continue
            number += 1
            then = choose.choice([size for size in (1, 2, 4) if size != processes])
            ended(start(then, out, ["--resume"], arguments.mpirun))
            identical = fingerprint(out) == expected
            same += identical
            print(
                f"kill {number:2}, {where}, resumed on {then}: {'identical' if identical else 'DIFFERENT'}", flush=True
            )
            shutil.rmtree(out)
        print(f"{arguments.kills} kills, {same} identical ends")
        sys.exit(same < arguments.kills)


def start(processes: int, out: Path, options: list[str], mpirun: str, mark: str = "") -> subprocess.Popen:
    """A run of so many processes, one thread each. `mark`: stands in their environment."""
    launcher = [] if processes == 1 else mpi.launcher(mpirun, processes)
    environment = os.environ | mpi.ENVIRONMENT | {"ALEXNET_NP_NUM_THREADS": "1", MARK: mark}
    command = [*launcher, *COMMAND, "--out", str(out), *options, *FILES]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen) -> None:
    """Waits until a run has succeeded."""
    _, said = process.communicate(timeout=SECONDS)
    if process.returncode:
        sys.exit(f"a run left alone ended with {process.returncode}: {said}")


def kill(out: Path, processes: int, choose: random.Random, steps: int, mpirun: str) -> str | None:
    """Kill one process of a new run at a random moment; says which and where, or None where the run was over."""
    mark, victim = uuid.uuid4().hex, choose.randrange(processes)
    step, pause = choose.randrange(steps - 2), choose.uniform(0, 0.1)
    run = start(processes, out, RECIPE, mpirun, mark)
    while run.poll() is None and (not Checkpoints(out / "checkpoints").paths() or last_step(out) < step):
        time.sleep(0.002)
    time.sleep(pause)
    pid = ranks(mark).get(victim)
    if pid is None:
        run.communicate(timeout=SECONDS)
        return None
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    run.communicate(timeout=SECONDS)
    writing = ", writing" if list(out.rglob(".*.part")) else ""
    if is_over(out):
        return None
    at = last_step(out)
    return (
        f"rank {victim} of {processes} in step {at + 1:2}{writing}, all ended after {time.monotonic() - killed:.1f} s"
    )


def ranks(mark: str) -> dict[int, int]:
    """The processes of the run with this mark, by rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            pairs = (entry.partition("=") for entry in path.read_bytes().decode(errors="replace").split("\0"))
        except OSError:  # it has ended, or is somebody else's
            continue
        environment = {name: value for name, _, value in pairs}
        rank = next((environment[name] for name in RANKS if name in environment), None)
        if environment.get(MARK) == mark and rank is not None:
            found[int(rank)] = int(path.parent.name)
    return found


def last_step(out: Path) -> int:
    """The last that the metrics tell of."""
    try:
        return max((event.get("step", 0) for event in read_events(out / "metrics.jsonl")), default=0)
    except DataError:
        return 0


def is_over(out: Path) -> bool:
    """Whether the run has succeeded, as its metrics have it."""
    return read_events(out / "metrics.jsonl")[-1]["kind"] == "end"


if __name__ == "__main__":
    main()
