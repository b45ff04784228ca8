"""Maps of attribution over the picture, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alexnet_np.device import Array, to_cpu
from alexnet_np.study.attribution.methods import Method
from alexnet_np.study.contact_sheet import FAINT, FONT, GAP, INK, LINE, PAPER

SIDE = 336  # pixels of a picture on the sheet
COLUMNS = 4
BRIGHTEST = 0.995  # the share of pixels that lie below the end of the colours: one outlier does not darken the rest

FOR = [(13, 8, 80), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33)]  # plasma, as Matplotlib has it
AGAINST = [(8, 48, 107), (33, 113, 181), (107, 174, 214), (198, 219, 239), (247, 251, 255)]


class Shown(NamedTuple):
    """One map as it is drawn."""

    title: str
    heat: np.ndarray  # (H,W), -1..1; below 0 what speaks against the unit
    scale: float  # the number that is drawn as 1
    signed: bool


def shown(title: str, values: Array, method: Method) -> Shown:
    """One number a pixel of values (C,H,W): the largest of the channels, by size; its sign only where it tells."""
    values = to_cpu(values).astype(np.float64)
    at = np.abs(values).argmax(0)[None]
    flat = np.take_along_axis(values, at, 0)[0]
    flat = flat if method.signed else np.abs(flat)
    scale = float(np.quantile(np.abs(flat), BRIGHTEST)) or float(np.abs(flat).max())
    return Shown(title, np.clip(flat / (scale or 1.0), -1, 1), scale, method.signed)


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """uint8 (H,W,3): the picture (H,W,C) in grey, coloured where the map (H,W), -1..1, is not 0."""
    grey = pixels.mean(2, keepdims=True) * 0.6 + 90
    strength = np.abs(heat)[..., None]
    alpha = np.sqrt(strength)
    colour = np.where(heat[..., None] < 0, coloured(AGAINST, -heat), coloured(FOR, heat))
    return np.clip(grey * (1 - alpha) + colour * alpha, 0, 255).round().astype(np.uint8)


def coloured(anchors: Sequence[tuple[int, int, int]], heat: np.ndarray) -> np.ndarray:
    """(...,3): 0..1 along the anchors."""
    places = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(heat, places, channel) for channel in np.array(anchors).T], axis=-1)


def sheet(pixels: np.ndarray, maps: Sequence[Shown], title: str, picture: str) -> Image.Image:
    """An RGB picture: the network's input, uint8 (H,W,C), and beside it each map over it with its colours' scale."""
    columns = min(COLUMNS, 1 + len(maps))
    rows = -(-(1 + len(maps)) // columns)
    width, height, top = SIDE + GAP, SIDE + 3 * LINE + GAP, GAP + 2 * LINE
    made = Image.new("RGB", (columns * width + GAP, top + rows * height), PAPER)
    draw = ImageDraw.Draw(made)
    draw.text((GAP, GAP), title, INK, ImageFont.load_default(FONT + 3))
    plain = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype(np.uint8)
    tiles = [(plain, picture, None), *((overlay(pixels, one.heat), one.title, one) for one in maps)]
    for i, (image, name, one) in enumerate(tiles):
        row, column = divmod(i, columns)
        x, y = GAP + column * width, top + row * height
        made.paste(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC), (x, y))
        draw.text((x, y + SIDE + 5), name, INK, ImageFont.load_default(FONT))
        if one is not None:
            _draw_scale(made, draw, one, x, y + SIDE + 5 + LINE)
    return made


def _draw_scale(made: Image.Image, draw: ImageDraw.ImageDraw, one: Shown, x: int, y: int) -> None:
    """The colours from end to end, over the grey of a picture, with their numbers."""
    font = ImageFont.load_default(FONT)
    if not one.scale:
        draw.text((x, y), "0 everywhere", FAINT, font)
        return
    low = -1.0 if one.signed else 0.0
    grey = np.full((12, SIDE, 3), 128, np.uint8)
    made.paste(Image.fromarray(overlay(grey, np.tile(np.linspace(low, 1, SIDE), (12, 1)))), (x, y + 3))
    draw.text((x, y + LINE), f"{-one.scale:.2g}" if one.signed else "0", FAINT, font)
    draw.text((x + SIDE, y + LINE), f"{one.scale:.2g}", FAINT, font, anchor="ra")
