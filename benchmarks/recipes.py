"""The three recipes of 2012 beside each other at a small scale: the same pictures, an eighth of the width.

    python -m alexnet_np.benchmarks.recipes --out runs/recipes --epochs 20

The pictures are stripes of ten spatial frequencies in random colours, angles and phases, 256x256, in a folder: crops,
colour noise, warping and both channel orders are all in it. Everything is as the recipe has it but the epochs, the
batch and the width. Prints a table for RESULTS.md, and draws the curves.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from PIL import Image

from alexnet_np.data.dataset import Synthetic
from alexnet_np.training.loop import Trainer
from alexnet_np.training.metrics import read_events
from alexnet_np.training.pictures import draw_curves
from alexnet_np.training.recipes import RECIPES, configured


def make_folder(root: Path, train: int, val: int) -> None:
    """root/train and root/val, a folder a class."""
    for part, count, seed in (("train", train, 0), ("val", val, 1)):
        images = Synthetic(count, seed=seed)
        for i, target in enumerate(images.targets):
            path = root / part / f"{target:02}" / f"{i:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                Image.fromarray(images.pixels(i)).save(path, compress_level=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--width", type=float, default=1 / 8)
    arguments = parser.parse_args()
    pictures = arguments.out / "pictures"
    make_folder(pictures, arguments.images, arguments.images // 5)
    rows, events = [], {}
    for name in RECIPES:
        sizes: dict[str, Any] = {"epochs": arguments.epochs, "batch_size": arguments.batch_size}
        config = configured(name, dataset="folder", data=str(pictures), width=arguments.width, **sizes)
        folder = arguments.out / name
        mode = "bgr" if config.preset == "bvlc" else "rgb"
        trainer = Trainer(config, folder, cache=arguments.out / f"cache-{mode}", keep=1)
        result = trainer.fit()
        events[name] = read_events(folder / "metrics.jsonl")
        best = max(event["accuracy"] for event in events[name] if event["kind"] == "epoch")
        rows.append((name, result["loss"], result["accuracy"], best))
        print(json.dumps({"recipe": name, **result}), flush=True)
    draw_curves(events, arguments.out / "recipes.png")
    print(
        f"\n{os.cpu_count()} CPUs, {arguments.images} images, {arguments.epochs} epochs, batch {arguments.batch_size}\n"
    )
    print("| recipe | validation loss | right | best epoch |\n|---|---|---|---|")
    for name, loss, accuracy, best in rows:
        print(f"| {name} | {loss:.3f} | {accuracy:.1%} | {best:.1%} |")


if __name__ == "__main__":
    main()
