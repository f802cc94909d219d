"""Sheets of pictures: rows with a caption and framed, labelled tiles, at any size of picture."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from alignlab.evaluation.grounding import upsample

Colour = tuple[int, int, int]
RIGHT, WRONG, NEUTRAL = (22, 148, 70), (206, 43, 55), (150, 150, 150)
_INK, _PALE, _PAPER = (25, 25, 30), (105, 105, 115), (255, 255, 255)
_MARGIN, _GAP, _FRAME, _CAPTION_WIDTH, _LINE = 20, 12, 5, 250, 21
TILE = 132  # pixels of a tile's longer side


class Tile(NamedTuple):
    """A picture, the colour of its frame, and a few words below it; below these the end of its file's name."""

    picture: Image.Image
    frame: Colour
    label: str
    name: str = ""


class SheetRow(NamedTuple):
    """A caption, a note below it, and tiles to its right; `aside` stands apart at the end."""

    caption: str
    note: str
    tiles: Sequence[Tile]
    aside: Tile | None = None


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The sans-serif font that comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def wrap(text: str, width: int, face: ImageFont.FreeTypeFont) -> list[str]:
    """Break a text into lines of at most `width` pixels, between words or, where one alone is too long, inside it."""
    lines, line = [], ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        if face.getlength(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        while face.getlength(word) > width and len(word) > 1:
            cut = max(1, next(n for n in range(len(word), 0, -1) if n == 1 or face.getlength(word[:n]) <= width))
            lines.append(word[:cut])
            word = word[cut:]
        line = word
    return [*lines, line] if line else lines


def fit(picture: Image.Image, side: int) -> Image.Image:
    """Scale so that the longer side has `side` pixels: bicubic upwards, averaging downwards."""
    picture = picture.convert("RGB")
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)


def overlay(picture: Image.Image, heat: Tensor, side: int = TILE, strength: float = 0.7) -> Image.Image:
    """Lay a heat map (rows, cols) over a picture; the hottest place has `strength` of the colour, cold ones none of
    it.
    """
    picture = fit(picture, side)
    large = upsample(heat.detach().cpu()[None], (picture.height, picture.width))[0]
    share = (large / large.max().clamp(min=1e-12)).nan_to_num(0.0).numpy()[..., None]
    colour = 255 * matplotlib.colormaps["turbo"](share[..., 0])[..., :3]
    share = strength * share**1.5  # lukewarm places keep their colours
    mixed = np.asarray(picture) * (1 - share) + colour * share
    return Image.fromarray(mixed.round().astype(np.uint8))


def draw_sheet(title: str, legend: str, rows: Sequence[SheetRow], side: int = TILE) -> Image.Image:
    """All rows below a title and a legend, as one picture; tiles are `side` pixels wide or high."""
    cell = side + 2 * _FRAME
    columns = max([1, *(len(row.tiles) for row in rows)])
    width = 2 * _MARGIN + _CAPTION_WIDTH + columns * (cell + _GAP)
    if any(row.aside for row in rows):
        width += cell + 3 * _GAP
    legend_lines = wrap(legend, width - 2 * _MARGIN, font(14))
    title_lines = wrap(title, width - 2 * _MARGIN, font(21, bold=True))
    captions = [wrap(row.caption, _CAPTION_WIDTH - _GAP, font(16)) for row in rows]
    notes = [wrap(row.note, _CAPTION_WIDTH - _GAP, font(14)) for row in rows]
    names = [any(tile.name for tile in [*row.tiles, *([row.aside] if row.aside else [])]) for row in rows]
    heights = [
        max(cell + _LINE * (1 + named) + 4, (len(c) + len(n)) * _LINE + 10) + _GAP
        for c, n, named in zip(captions, notes, names, strict=True)
    ]
    top = _MARGIN + 30 * len(title_lines) + _LINE * len(legend_lines) + _GAP
    canvas = Image.new("RGB", (width, top + sum(heights) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(title_lines):
        draw.text((_MARGIN, _MARGIN + 30 * number), line, fill=_INK, font=font(21, bold=True))
    for number, line in enumerate(legend_lines):
        place = (_MARGIN, _MARGIN + 30 * len(title_lines) + _LINE * number)
        draw.text(place, line, fill=_PALE, font=font(14))
    for row, caption, note, height in zip(rows, captions, notes, heights, strict=True):
        draw.line((_MARGIN, top - _GAP // 2, width - _MARGIN, top - _GAP // 2), fill=(228, 228, 232))
        for number, line in enumerate(caption):
            draw.text((_MARGIN, top + 4 + _LINE * number), line, fill=_INK, font=font(16))
        for number, line in enumerate(note):
            draw.text((_MARGIN, top + 12 + _LINE * (len(caption) + number)), line, fill=_PALE, font=font(14))
        left = _MARGIN + _CAPTION_WIDTH
        for number, tile in enumerate(row.tiles):
            _paste(canvas, draw, tile, left + number * (cell + _GAP), top, side)
        if row.aside:
            _paste(canvas, draw, row.aside, left + columns * (cell + _GAP) + 2 * _GAP, top, side)
        top += height
    return canvas


def _paste(canvas: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int, side: int) -> None:
    picture = fit(tile.picture, side)
    x, y = left + (side - picture.width) // 2, top + (side - picture.height) // 2
    box = (x, y, x + picture.width + 2 * _FRAME - 1, y + picture.height + 2 * _FRAME - 1)
    draw.rectangle(box, fill=tile.frame)
    canvas.paste(picture, (x + _FRAME, y + _FRAME))
    middle = left + _FRAME + side / 2
    line = (wrap(tile.label, side + 2 * _FRAME, font(14)) or [""])[0]
    draw.text((middle, top + side + 2 * _FRAME + 3), line, fill=_INK, font=font(14), anchor="ma")
    if tile.name:
        place = (middle, top + side + 2 * _FRAME + 3 + _LINE)
        draw.text(place, shortened(tile.name, side + 2 * _FRAME), fill=_PALE, font=font(11), anchor="ma")


def shortened(name: str, width: int) -> str:
    """The end of a name, as much of it as `width` pixels hold in small letters."""
    face = font(11)
    if face.getlength(name) <= width:
        return name
    start = next(n for n in range(1, len(name) + 1) if face.getlength("…" + name[n:]) <= width)
    return "…" + name[start:]
