"""The three recipes of 2012 beside each other at a small scale: the same pictures, an eighth of the width.

    python -m alexnet_np.benchmarks.recipes --out runs/recipes

The pictures are Fashion-MNIST's (Debian's dataset-fashion-mnist, or downloaded), evenly spaced, written as a folder of
colour pictures of 28x28, which every recipe prepares in its own way: crops, colour noise, warping, resizing, the second
JPEG, mean images and both channel orders are all in it. Everything is as the recipe has it but the epochs, the batch
and the width. Prints a table for RESULTS.md, and draws the curves.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from PIL import Image

from alexnet_np.data.idx import fashion_mnist
from alexnet_np.training.loop import Trainer
from alexnet_np.training.metrics import read_events
from alexnet_np.training.pictures import draw_curves
from alexnet_np.training.recipes import RECIPES, configured
from alexnet_np.training.task import first_images


def make_folder(root: Path, counts: dict[str, int]) -> None:
    """root/train and root/val, a folder a class."""
    for part, split in (("train", "train"), ("val", "test")):
        images = first_images(fashion_mnist(split), counts[part])
        for i, target in enumerate(images.targets):
            path = root / part / images.classes[target].replace("/", " ") / f"{i:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                Image.fromarray(images.pixels(i)[..., 0]).convert("RGB").save(path, compress_level=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--width", type=float, default=1 / 8)
    arguments = parser.parse_args()
    pictures = arguments.out / f"pictures-{arguments.images}"
    make_folder(pictures, {"train": arguments.images, "val": arguments.images // 4})
    rows, events = [], {}
    for name in arguments.recipes:
        sizes: dict[str, Any] = {"epochs": arguments.epochs, "batch_size": arguments.batch_size}
        config = configured(name, dataset="folder", data=str(pictures), width=arguments.width, **sizes)
        folder = arguments.out / name
        if not (folder / "weights.safetensors").exists():  # a finished run is not repeated
            result = Trainer(config, folder, cache=arguments.out / f"cache-{name}", keep=1).fit()
            print(json.dumps({"recipe": name, **result}), flush=True)
        events[name] = read_events(folder / "metrics.jsonl")
        epochs = [event for event in events[name] if event["kind"] == "epoch"]
        last, best = epochs[-1], max(event["accuracy"] for event in epochs)
        rows.append((name, last["train_loss"], last["loss"], last["accuracy"], best))
    draw_curves(events, arguments.out / "recipes.png")
    counts = f"{arguments.images} images, {arguments.epochs} epochs, batch {arguments.batch_size}"
    print(f"\n{os.cpu_count()} CPUs, {counts}\n")
    print("| recipe | training loss | validation loss | right | best epoch |\n|---|---|---|---|---|")
    for name, train_loss, loss, accuracy, best in rows:
        print(f"| {name} | {train_loss:.3f} | {loss:.3f} | {accuracy:.1%} | {best:.1%} |")


if __name__ == "__main__":
    main()
