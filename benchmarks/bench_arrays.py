"""The array operations (backend `numpy`) beside PyTorch: time at batch 8, peak memory at batch 128, cost of importing.

    python -m alexnet_np.benchmarks.bench_arrays [--json FILE]

Time is interleaved in one process and compared by medians; memory is the peak resident size of a process of its own for
each contender; the import is `import alexnet_np` after `import numpy, PIL.Image`, in a fresh process each time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from alexnet_np.measure.memory import REPORT_PEAK, run

BATCH, MEMORY_BATCH, ROUNDS, IMPORTS = 8, 128, 9, 7

MEMORY = {
    "alexnet_np": """
import numpy as np, alexnet_np as anp
model = anp.alexnet("torchvision", seed=0).eval()
x = np.random.default_rng(0).random(({batch}, 3, 224, 224), dtype=np.float32)
with anp.no_grad():
    model(x)
""",
    "torch": """
import torch
from alexnet_np.study.torch_net import import_torchvision
model = import_torchvision().models.alexnet().eval()
x = torch.rand({batch}, 3, 224, 224)
with torch.no_grad():
    model(x)
""",
}
IMPORT = "import time, numpy, PIL.Image; t = time.perf_counter(); import alexnet_np; print(time.perf_counter() - t)"


def times() -> dict[str, float]:
    """Median seconds of a batch, contenders taking turns; the logits agree first."""
    import torch

    import alexnet_np as anp
    from alexnet_np.study.torch_net import import_torchvision

    model = anp.alexnet("torchvision", seed=0).eval()
    peer = import_torchvision().models.alexnet().eval()
    peer.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    x = np.random.default_rng(0).random((BATCH, 3, 224, 224), dtype=np.float32)
    theirs = torch.from_numpy(x)
    contenders = {"alexnet_np": lambda: model(x), "torch": lambda: peer(theirs).numpy()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with anp.no_grad(), torch.no_grad():
        ours, reference = contenders["alexnet_np"](), contenders["torch"]()
        np.testing.assert_allclose(ours, reference, atol=1e-5 * float(np.abs(reference).max()), rtol=0)
        for _ in range(ROUNDS):
            for name, forward in contenders.items():
                start = time.perf_counter()
                forward()
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure() -> dict[str, dict[str, float]]:
    rows = {f"inference, batch {BATCH} (ms)": {name: 1e3 * t for name, t in times().items()}}
    rows[f"peak memory, batch {MEMORY_BATCH} (MB)"] = {
        name: run(code.format(batch=MEMORY_BATCH) + REPORT_PEAK) / 1e6 for name, code in MEMORY.items()
    }
    rows["import alexnet_np (ms)"] = {"alexnet_np": 1e3 * statistics.median(run(IMPORT) for _ in range(IMPORTS))}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    rows = measure()
    for name, values in rows.items():
        ratio = f"  ratio {values['alexnet_np'] / values['torch']:.2f}" if "torch" in values else ""
        print(f"{name:32}" + "".join(f"  {who} {value:9.1f}" for who, value in values.items()) + ratio)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
