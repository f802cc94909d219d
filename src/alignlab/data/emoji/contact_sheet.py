"""A picture of many pictures with their captions, to look at a data set: `python -m alignlab.data.emoji.contact_sheet
out.png`.
"""

import argparse
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alignlab.data.emoji.scenes import EmojiScenes

_MARGIN, _LINE, _LETTERS_PER_PIXEL = 6, 14, 1 / 6.2


def contact_sheet(
    pictures: Sequence[np.ndarray], captions: Sequence[str], columns: int = 4, side: int = 192
) -> Image.Image:
    """Pictures (H, W, 3) uint8 in rows, enlarged to `side` pixels without smoothing, each above its caption."""
    wrapped = [textwrap.wrap(caption, max(8, int(side * _LETTERS_PER_PIXEL))) for caption in captions]
    text_height = _LINE * max(map(len, wrapped)) + _MARGIN
    rows = -(-len(pictures) // columns)
    cell_width, cell_height = side + _MARGIN, side + text_height + _MARGIN
    sheet = Image.new("RGB", (columns * cell_width + _MARGIN, rows * cell_height + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for number, (picture, lines) in enumerate(zip(pictures, wrapped, strict=True)):
        left, top = _MARGIN + number % columns * cell_width, _MARGIN + number // columns * cell_height
        sheet.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST), (left, top))
        for line_number, line in enumerate(lines):
            draw.text((left, top + side + 2 + line_number * _LINE), line, fill="black", font=font)
    return sheet


def scenes_sheet(number: int, image_size: int, split: str, seed: int) -> Image.Image:
    """The first emoji scenes of a split with their captions."""
    source = EmojiScenes(image_size, seed)
    scenes = [source.scene(index, split) for index in range(number)]
    return contact_sheet(
        [source.render(scene) for scene in scenes], [scene.caption for scene in scenes], side=max(192, image_size)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws emoji scenes with their captions.")
    parser.add_argument("path")
    parser.add_argument("--number", type=int, default=12)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--split", default="train", choices=("train", "val"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    scenes_sheet(arguments.number, arguments.image_size, arguments.split, arguments.seed).save(arguments.path)
