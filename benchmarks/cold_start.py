"""From the start of a process to an inference plan's first logits (torchvision's net, batch 1): cold and warm.

    python -m alexnet_np.benchmarks.cold_start [--runs N] [--json FILE]

Cold: nothing compiled yet (NUMBA_CACHE_DIR is an empty folder). Warm: what the cold run left on the disk. Every run is
a process of its own, timed part by part; the table has the medians. The last line leaves out reading the weights, which
every network has to do, but not copying them into the model and packing them, which are ours.
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
from pathlib import Path

import alexnet_np as anp

RUNS = 11
BEYOND = "beyond reading the weights"
TIMED = """
import time
marks = [("interpreter", time.time())]
def mark(part):
    marks.append((part, time.time()))
import numpy
mark("import numpy")
import alexnet_np as anp
anp.weights.read, anp.alexnet
mark("import alexnet_np")
state = anp.weights.read({weights!r})
mark("read the weights")
model = anp.alexnet("torchvision", weights=state).eval()
mark("model")
anp.compile
mark("import of plans and Numba")
plan = anp.compile(model, max_batch=1)
mark("plan")
plan(numpy.zeros((1, 3, 224, 224), numpy.float32))
mark("first logits")
import json
print(json.dumps(marks))
"""


def run(weights: Path, cache: Path) -> dict[str, float]:
    """Seconds of each part of one process."""
    # Python's own compiled files are as usual: kept. They are not what is measured.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "NUMBA_CACHE_DIR": str(cache)}
    code = TIMED.format(weights=str(weights))
    start = time.time()
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    marks = [("", start), *json.loads(process.stdout)]
    seconds = {part: then - before for (_, before), (part, then) in zip(marks, marks[1:], strict=False)}
    seconds[BEYOND] = sum(seconds.values()) - seconds["read the weights"]
    return seconds


def measure(runs: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "weights.safetensors"
        anp.weights.write(weights, anp.alexnet("torchvision", seed=0).state_dict())
        cold = run(weights, folder / "cache")
        warm = [run(weights, folder / "cache") for _ in range(runs)]
    best = min(warm, key=lambda seconds: seconds[BEYOND])
    return {
        "cold": cold,
        "warm, median": {part: statistics.median(seconds[part] for seconds in warm) for part in cold},
        "warm, best": best,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, help=f"warm processes to start ({RUNS})")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    columns = measure(arguments.runs)
    print(f"{'seconds':<28}" + "".join(f"{name:>14}" for name in columns))
    for part in columns["cold"]:
        print(f"{part:<28}" + "".join(f"{column[part]:>14.3f}" for column in columns.values()))
    if arguments.json:
        arguments.json.write_text(json.dumps(columns, indent=2) + "\n")


if __name__ == "__main__":
    main()
