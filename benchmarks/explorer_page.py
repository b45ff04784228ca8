"""The explorer's pages in headless Chromium: how large, how long until they open, how long a click takes.

    python -m alexnet_np.benchmarks.explorer_page [--json FILE]

For torchvision's, the paper's and d2l's network (random weights) and the carried one. A click is the page's own
measure, from the event to the drawn arithmetic: of every layer the first (its tensors are decoded then), then CLICKS
more at random places of all layers. `make` is the whole `alexnet explore`, a process of its own.
Needs playwright (pip install playwright) and a Chromium.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CLICKS = 200
NETWORKS = {
    "torchvision": ["--preset", "torchvision", "--weights", "random"],
    "paper": ["--preset", "paper", "--weights", "random"],
    "d2l": ["--preset", "d2l", "--weights", "random"],
    "FASHION_MNIST_V1": ["--garment", "0"],
}
LIMITS: dict[str, float] = {
    "MB": 22,
    "make s": 5,
    "open s": 1,
    "first click ms": 500,
    "click ms": 100,
    "slowest ms": 100,
}  # the carried network's: 1 MB


def make(arguments: list[str], out: Path) -> float:
    """The seconds that it took."""
    start = time.perf_counter()
    command = [
        sys.executable,
        "-c",
        "from alexnet_np.cli import main; main()",
        "explore",
        "--out",
        str(out),
        *arguments,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def measure(browser: Any, file: Path) -> dict[str, float]:
    """Seconds to open, and the slowest and the median click, in ms."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]", state="attached", timeout=60_000)
    chance = random.Random(0)
    shapes = page.evaluate("nets[0].layers.map(layer => layer.shape)")

    def click(k: int) -> float:
        at = [chance.randrange(n) for n in shapes[k]]
        return page.evaluate(f"pick(0, {k}, {at}).then(() => performance.getEntriesByName('pick').at(-1).duration)")

    first = [click(k) for k in range(len(shapes))]
    later = [click(chance.randrange(len(shapes))) for _ in range(CLICKS)]
    opened = page.evaluate("performance.getEntriesByName('open')[0].duration") / 1000
    page.close()
    return {
        "open s": opened,
        "first click ms": max(first),
        "click ms": statistics.median(later),
        "slowest ms": max(later),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name, options in NETWORKS.items():
            file = Path(folder) / f"{name}.html"
            seconds = make(options, file)
            found[name] = {"MB": file.stat().st_size / 1e6, "make s": seconds, **measure(browser, file)}
        browser.close()
    columns = list(next(iter(found.values())))
    print("| network | " + " | ".join(columns) + " |\n| --- |" + " --: |" * len(columns))
    rows: dict[str, dict[str, float]] = {**found, "allowed": LIMITS}
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[c]:.3g}" if c in row else "" for c in columns) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
