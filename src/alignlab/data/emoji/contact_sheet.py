"""A picture of many pictures with their captions, to look at a data set: `python -m alignlab.data.emoji.contact_sheet
out.png`.
"""

import argparse
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alignlab.data.emoji.held_out_families import foil_rows
from alignlab.data.emoji.near_misses import FACTS, NearMisses
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


def near_misses_sheet(image_size: int, per_fact: int = 2) -> Image.Image:
    """Held-out scenes side by side with their near misses, so many of each fact, each above its own caption."""
    families = NearMisses(EmojiScenes(image_size), FACTS)
    rows = [row for fact in FACTS for row in foil_rows(families, fact, per_fact)]
    scenes = [scene for row in rows for scene in row]
    pictures = [families.scenes.render(scene) for scene in scenes]
    return contact_sheet(pictures, [scene.caption for scene in scenes], columns=2 * per_fact, side=max(192, image_size))


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
    parser.add_argument("--near-misses", action="store_true", help="held-out scenes beside their near misses")
    arguments = parser.parse_args()
    if arguments.near_misses:
        sheet = near_misses_sheet(arguments.image_size)
    else:
        sheet = scenes_sheet(arguments.number, arguments.image_size, arguments.split, arguments.seed)
    sheet.save(arguments.path)
