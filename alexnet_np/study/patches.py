"""The parts of pictures that excite a unit most, each cropped to what the unit sees of it, on one sheet.

Source: Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2014), figure 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alexnet_np.data.preprocess import read_pixels
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.errors import ImageError
from alexnet_np.jobs import Best
from alexnet_np.jobs.workers import in_order
from alexnet_np.models import AlexNet
from alexnet_np.study.contact_sheet import FAINT, FONT, GAP, GROOVE, INK, LINE, PAPER
from alexnet_np.study.receptive_field import ReceptiveField, receptive_fields
from alexnet_np.study.units import Index
from alexnet_np.threads import get_num_threads

CELL, LEAST = 72, 200  # pixels: of one patch on the sheet, of the patches of one unit, whose name stands above
WIDEST = 4  # units beside each other on a sheet of few; then as many as make it square


class Patch(NamedTuple):
    """Where a unit was excited."""

    unit: int
    rank: int  # 0 for what excites it most
    file: str
    value: float
    at: Index  # the number in the layer
    field: ReceptiveField  # of the network's input


def find_patches(
    model: AlexNet, layer: str, units: Sequence[int], files: Sequence[str], best: Best, size: tuple[int, int]
) -> list[Patch]:
    """Unit by unit, the strongest first; `best` of `files`, shown as pictures of `size` (height, width)."""
    fields = receptive_fields(model, size)[layer]
    found = []
    for row, unit in enumerate(units):
        for rank in np.flatnonzero(np.isfinite(best.values[row])).tolist():
            place = int(best.places[row, rank])
            at: Index = (unit,)
            if len(fields.shape) == 3:
                at = (unit, *divmod(place, fields.shape[2]))
            file, value = files[best.files[row, rank]], float(best.values[row, rank])
            found.append(Patch(unit, rank, file, value, at, fields.of(at)))
    return found


def sheet(
    patches: Sequence[Patch],
    names: Mapping[int, str],
    top: int,
    title: str,
    recipe: Preprocessing,
    tick: Callable[[int], None] = lambda done: None,
) -> Image.Image:
    """An RGB picture: for each unit, which has a name, a square of its patches, as its network sees the pictures.

    They are read again from their files, each once, whichever units it excites; one that is gone leaves its places
    empty. `tick` is told how many pictures more are read.
    """
    side = int(np.ceil(np.sqrt(top)))
    width, height = max(side * CELL, LEAST) + GAP, side * CELL + LINE + 4 + GAP
    columns = min(len(names), max(WIDEST, int(np.ceil(np.sqrt(len(names))))))
    corners = {
        unit: (GAP + i % columns * width, GAP + 2 * LINE + i // columns * height) for i, unit in enumerate(names)
    }
    made = Image.new("RGB", (GAP + columns * width, GAP + 2 * LINE + -(-len(names) // columns) * height), PAPER)
    draw = ImageDraw.Draw(made)
    draw.text((GAP, GAP), title, INK, ImageFont.load_default(FONT + 3))
    for unit, (x, y) in corners.items():
        mine = [patch.value for patch in patches if patch.unit == unit]
        _head(draw, names[unit], mine, x, y, width - GAP - 2)
        draw.rectangle((x, y + LINE + 4, x + side * CELL - 2, y + LINE + 4 + side * CELL - 2), fill=GROOVE)
    by_file = sorted(patches, key=lambda patch: patch.file)
    groups = [list(group) for _, group in groupby(by_file, key=lambda patch: patch.file)]
    for group, crops in zip(
        groups, in_order(groups, [partial(cropped, recipe=recipe)] * get_num_threads()), strict=True
    ):
        for patch, crop in zip(group, crops, strict=False):
            x, y = corners[patch.unit]
            row, column = divmod(patch.rank, side)
            x, y = x + column * CELL + (CELL - 2 - crop.width) // 2, y + row * CELL + (CELL - 2 - crop.height) // 2
            made.paste(crop, (x, y + LINE + 4))
        tick(1)
    return made


def _head(draw: ImageDraw.ImageDraw, name: str, values: Sequence[float], x: int, y: int, width: int) -> None:
    """A unit's name, as much of it as there is room for, and how strongly it was excited."""
    font = ImageFont.load_default(FONT)
    ends = dict.fromkeys(f"{value:.3g}" for value in (*values[:1], *values[-1:]))
    words = " … ".join(ends) or "nothing excites it"
    draw.text((x + width, y), words, FAINT, font, anchor="ra")
    room = width - draw.textlength(words, font) - 8
    shown = name
    while draw.textlength(shown, font) > room and len(shown) > 1:
        name = name[:-1]
        shown = f"{name.rstrip()}…"
    draw.text((x, y), shown, INK, font)


def cropped(patches: Sequence[Patch], recipe: Preprocessing) -> list[Image.Image]:
    """The patches of one picture, which lie in one file, as large as a place on the sheet; none where it is gone."""
    try:
        pixels = read_pixels(patches[0].file, recipe)
    except ImageError:
        return []
    return [fitted(pixels, patch.field) for patch in patches]


def fitted(pixels: np.ndarray, field: ReceptiveField) -> Image.Image:
    """What a unit sees of the picture (H,W,C), enlarged or reduced so that its longer side fills a place."""
    top, bottom, left, right = field
    part = pixels[top:bottom, left:right]
    colour = np.ascontiguousarray(np.broadcast_to(part, (*part.shape[:2], 3)))
    scale = (CELL - 2) / max(part.shape[:2])
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    how = Image.Resampling.NEAREST if scale >= 4 else Image.Resampling.BICUBIC
    return Image.fromarray(colour).resize(size, how)
