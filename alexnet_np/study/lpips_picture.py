"""Where two pictures look different, drawn beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet_np.figures import new_figure, save


def draw_map(pictures: Sequence[Image.Image], where: np.ndarray, distance: float, out: Path) -> None:
    """a, b and the map (H,W) of their distance, with its scale. Raises MissingPackageError, ArgumentError."""
    H, W = where.shape
    figure = new_figure(10.5, 0.9 + 3.2 * min(max(H / W, 0.4), 2.5))
    axes = figure.subplots(1, 3)
    for each, picture, name in zip(axes, pictures, ("a", "b"), strict=False):
        each.imshow(picture)
        each.set_title(name, fontsize=10)
    drawn = axes[2].imshow(where, cmap="magma", vmin=0)
    axes[2].set_title(f"LPIPS {distance:.4f}: 0 is the same", fontsize=10)
    for each in axes:
        each.set_axis_off()
    figure.colorbar(drawn, ax=axes[2], fraction=0.046, label="distance")
    save(figure, out)
