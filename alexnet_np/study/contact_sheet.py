"""Many small pictures on one, each with what a network took it for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

SIDE, GAP, LINE, FONT = 128, 16, 19, 14  # pixels
RIGHT, WRONG = "#2a7f3f", "#c62828"
INK, FAINT, PAPER, GROOVE = "#1c1c1c", "#6f6f6f", "#ffffff", "#e6e6e6"


class Tile(NamedTuple):
    """One picture of a contact sheet."""

    picture: Image.Image
    label: str
    guess: str
    probability: float  # of the guess, 0..1

    @property
    def right(self) -> bool:
        return self.guess == self.label


def contact_sheet(tiles: Sequence[Tile], title: str, columns: int = 10) -> Image.Image:
    """An RGB picture of the tiles, row by row: each with its guess and a bar of its probability.

    A wrong one is framed in red, with its own label under the guess.
    """
    width, height = SIDE + GAP, SIDE + 3 * LINE + GAP
    top = GAP + 2 * LINE
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width + GAP, top + rows * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, INK, ImageFont.load_default(FONT + 3))
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        _draw_tile(sheet, draw, tile, GAP + column * width, top + row * height)
    return sheet


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, x: int, y: int) -> None:
    colour, font = RIGHT if tile.right else WRONG, ImageFont.load_default(FONT)
    sheet.paste(tile.picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC), (x, y))
    if not tile.right:
        draw.rectangle((x - 4, y - 4, x + SIDE + 3, y + SIDE + 3), outline=WRONG, width=4)
    below = y + SIDE + 7
    draw.text((x, below), tile.guess, colour, font)
    draw.text((x + SIDE, below), f"{tile.probability:.0%}", colour, font, anchor="ra")
    bar = below + LINE
    draw.rectangle((x, bar, x + SIDE - 1, bar + 4), fill=GROOVE)
    draw.rectangle((x, bar, x + round(tile.probability * (SIDE - 1)), bar + 4), fill=colour)
    if not tile.right:
        draw.text((x, bar + 7), f"is: {tile.label}", FAINT, font)
