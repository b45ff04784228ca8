"""From the start of a process to an inference plan's first logits (torchvision's net, batch 1): cold and warm.

    python -m alexnet_np.benchmarks.cold_start [--runs N] [--colds N] [--json FILE]

Cold: nothing compiled yet. Every folder that kernels are looked for in (code_cache.py) is an empty one of this
measurement's own: the user's caches, this package's, Numba's, the system's temporary files. Warm: what the last cold
run left there. Every run is a process of its own, timed part by part; the table has the medians. The last line leaves
out reading the weights, which every network has to do, but not packing them, which is ours. A cold run that might find
a kernel, or a warm one that compiles any, ends it all with an error.
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
# Where processes find kernels, and whatever else earlier ones have left (files.py, code_cache.py).
OWN = ("NUMBA_CACHE_DIR", "ALEXNET_NP_HOME", "XDG_CACHE_HOME", "TMPDIR")
TIMED = """
import time
marks = [("interpreter", time.time())]
def mark(part):
    marks.append((part, time.time()))
import numpy
mark("import numpy")
import alexnet_np as anp
from alexnet_np.identity import build
from alexnet_np.presets import describe
anp.weights.read
mark("import alexnet_np")
state = anp.weights.read({weights!r})
mark("read the weights")
model = build(describe("torchvision")).eval()  # as anp.alexnet(weights=FILE) does with what it has read
model.load_state_dict(state, assign=True)
mark("model")
anp.compile
mark("import of plans and Numba")
plan = anp.compile(model, max_batch=1)
mark("plan")
plan(numpy.zeros((1, 3, 224, 224), numpy.float32))
mark("first logits")
import json
from alexnet_np.kernels.cpu import code_cache
print(json.dumps([marks, [str(place) for place in code_cache.places()]]))
"""
COLDS = 3


def run(weights: Path, state: Path) -> dict[str, float]:
    """Seconds of each part of one process, whose caches are all below `state`."""
    # Python's own compiled files are as usual: kept. They are not what is measured.
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", *OWN)}
    environment = {**kept, **{name: str(state / name) for name in OWN}}
    for name in OWN:
        (state / name).mkdir(parents=True, exist_ok=True)
    before = kernels(state)
    code = TIMED.format(weights=str(weights))
    start = time.time()
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    measured, places = json.loads(process.stdout)
    shared = [place for place in places if not Path(place).is_relative_to(state)]
    assert not shared, f"kernels may have come from {shared[0]}, where other processes keep theirs"
    assert not before or kernels(state) == before, "a warm process has compiled kernels"
    marks = [("", start), *measured]
    seconds = {part: then - begun for (_, begun), (part, then) in zip(marks, marks[1:], strict=False)}
    seconds[BEYOND] = sum(seconds.values()) - seconds["read the weights"]
    return seconds


def kernels(state: Path) -> set[str]:
    """The kernels that are kept."""
    return {file.name for file in state.rglob("*") if file.suffix in (".kernel", ".o")}


def measure(runs: int, colds: int = COLDS) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "weights.safetensors"
        anp.weights.write(weights, anp.alexnet("torchvision", seed=0).state_dict())
        cold = [run(weights, folder / f"state{i}") for i in range(colds)]
        warm = [run(weights, folder / f"state{colds - 1}") for _ in range(runs)]
    return {
        "cold, median": medians(cold),
        "cold, best": min(cold, key=lambda seconds: seconds[BEYOND]),
        "warm, median": medians(warm),
        "warm, best": min(warm, key=lambda seconds: seconds[BEYOND]),
    }


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {part: statistics.median(seconds[part] for seconds in runs) for part in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, help=f"warm processes to start ({RUNS})")
    parser.add_argument("--colds", type=int, default=COLDS, help=f"cold ones ({COLDS})")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    columns = measure(arguments.runs, arguments.colds)
    print(f"{'seconds':<28}" + "".join(f"{name:>14}" for name in columns))
    for part in columns["cold, median"]:
        print(f"{part:<28}" + "".join(f"{column[part]:>14.3f}" for column in columns.values()))
    if arguments.json:
        arguments.json.write_text(json.dumps(columns, indent=2) + "\n")


if __name__ == "__main__":
    main()
