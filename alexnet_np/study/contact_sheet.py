"""Many small pictures on one, each with what a network took it for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from alexnet_np.data.preprocess import ImageSource, read_image

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


class Picture(NamedTuple):
    """One picture of a plain sheet: a file, and what is said of it."""

    file: str
    said: str
    source: ImageSource | None = None  # where it is to be had, if that is not a file of this name


def picture_sheet(pictures: Sequence[Picture], title: str) -> Image.Image:
    """An RGB picture of these, whole, row by row, the first framed: each with its name and what is said of it."""
    columns = min(len(pictures), max(4, round(len(pictures) ** 0.5)))
    width, height, top = SIDE + GAP, SIDE + 2 * LINE + GAP, GAP + 2 * LINE
    sheet = Image.new("RGB", (columns * width + GAP, top + -(-len(pictures) // columns) * height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    draw.text((GAP, GAP), shortened(title, sheet.width - 2 * GAP, FONT + 3), INK, ImageFont.load_default(FONT + 3))
    for i, picture in enumerate(pictures):
        x, y = GAP + i % columns * width, top + i // columns * height
        small = read_image(picture.source or picture.file)
        small.thumbnail((SIDE, SIDE))
        sheet.paste(small, (x + (SIDE - small.width) // 2, y + (SIDE - small.height) // 2))
        if not i:
            draw.rectangle((x - 4, y - 4, x + SIDE + 3, y + SIDE + 3), outline=RIGHT, width=3)
        draw.text((x, y + SIDE + 6), picture.said, RIGHT if not i else INK, font)
        draw.text((x, y + SIDE + 6 + LINE), shortened(Path(picture.file).name, SIDE, FONT), FAINT, font)
    return sheet


def shortened(text: str, width: int, size: int) -> str:
    """`text` in a font of `size`, at most `width` pixels wide: cut in the middle, where names differ least."""
    font = ImageFont.load_default(size)
    kept, shown = len(text), text
    while kept > 2 and font.getlength(shown) > width:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}"
    return shown


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
