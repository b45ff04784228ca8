"""Kill a training run at random moments, let it resume, and compare its end, bit for bit, with one left alone.

    python -m alexnet_np.benchmarks.kill_and_resume [--kills 30] [--backend numba] [--seed 0]

Every round starts the command `alexnet train` afresh, kills it by SIGKILL at a moment chosen at random between its
first checkpoint and nearly its end, then runs `alexnet train --resume` to the end. Checkpoints are written after every
step, so that many of the kills fall into the writing of one. Exit code 1 if any end differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alexnet_np.training import checkpoint
from alexnet_np.training.checkpoint import Checkpoints
from alexnet_np.weights import seal

COMMAND = [sys.executable, "-c", "from alexnet_np.cli import main; main()", "train"]
RECIPE = shlex.split(
    "--dataset synthetic --limit 240 --image-size 95 --width 0.0625 --batch-size 16 --epochs 3 --momentum 0.9 "
    "--weight-decay 5e-4 --schedule one-cycle --augmentation mirror --biases double --initialisation xavier"
)
FILES = ["--save-every", "0", "--json"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--backend", default="numba")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    recipe, choose = [*RECIPE, "--backend", arguments.backend], random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as root:
        straight = Path(root) / "straight"
        train(straight, recipe)  # the first run compiles, so the second one is timed
        timed = start(Path(root) / "timed", recipe)
        begun = time.perf_counter()
        timed.wait()
        usual = time.perf_counter() - begun
        expected, same = fingerprint(straight), 0
        if fingerprint(Path(root) / "timed") != expected:
            sys.exit("two runs left alone ended differently")
        print(f"left alone: {usual:.1f} s from the first checkpoint on, ends with {expected[:16]}")
        for number in range(1, arguments.kills + 1):
            out = Path(root) / f"run{number}"
            after = choose.uniform(0, 0.8 * usual)  # after that it is drawing the curves
            where = kill(out, recipe, after)
            train(out, ["--resume"])
            identical = fingerprint(out) == expected
            same += identical
            print(f"kill {number:2} after {after:5.2f} s, {where:24} {'identical' if identical else 'DIFFERENT'}")
        print(f"{arguments.kills} kills, {same} identical ends")
        sys.exit(same < arguments.kills)


def train(out: Path, options: list[str]) -> None:
    subprocess.run([*COMMAND, "--out", str(out), *options, *FILES], check=True, stdout=subprocess.DEVNULL)


def start(out: Path, recipe: list[str]) -> subprocess.Popen:
    """A run whose first checkpoint is just written."""
    child = subprocess.Popen([*COMMAND, "--out", str(out), *recipe, *FILES], stdout=subprocess.DEVNULL)
    while child.poll() is None and not Checkpoints(out / "checkpoints").paths():
        time.sleep(0.001)
    return child


def kill(out: Path, recipe: list[str], after: float) -> str:
    """Start a run and kill it `after` seconds later; says where that was, as its newest checkpoint has it."""
    child = start(out, recipe)
    time.sleep(after)
    child.kill()
    if child.wait() != -signal.SIGKILL:
        return "had ended"
    writing = ", writing" if list(out.rglob(".*.part")) else ""
    return f"step {Checkpoints(out / 'checkpoints').load()[1]['position']['step']}{writing}"


def fingerprint(out: Path) -> str:
    """Of the final weights, and of every loss and accuracy on the way."""
    weights, _ = checkpoint.read(out / "weights.safetensors")
    found = hashlib.sha256(seal.digest(weights, {}).encode())
    for line in (out / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["kind"] in ("batch", "epoch"):
            found.update(repr([event["step"], event["loss"], event["accuracy"]]).encode())
    return found.hexdigest()


if __name__ == "__main__":
    main()
