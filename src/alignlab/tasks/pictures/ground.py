"""Where a model looks in a picture for the words of a text: Grad-CAM of the matching score, as a picture."""

import torch
from torch import Tensor

from alignlab.data.image_text.picture_cache import read_picture
from alignlab.evaluation.sheets import NEUTRAL, SheetRow, Tile, draw_sheet, overlay
from alignlab.tasks.fields import CAPTIONS
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job
from alignlab.tasks.pictures.heat import word_heats
from alignlab.tasks.pictures.match import picture_of
from alignlab.tasks.pictures.retrieve import save_picture
from alignlab.tasks.pictures.subject import VisionLanguage


class Ground:
    """An overlay for each word that names something, and the hottest place of each, for models with a matching head.

    `picture`, or a field `image` of the input's lines, as in `Match`. `words`: at most so many of a text. `layer`:
    fusion layer from 0, None the net's `pointing_layer`. Rows hold every word's hottest point as a share of
    width and height.
    """

    needs = "system"

    def __init__(self, picture: str | None = None, words: int = 6, layer: int | None = None, side: int = 224) -> None:
        if words < 1:
            raise ValueError(f"words is {words}; it must be at least 1")
        self.picture, self.words, self.layer, self.side = picture, words, layer, side

    def run(self, subject: VisionLanguage, job: Job) -> dict[str, float]:
        if not hasattr(subject.system.net, "match_with_attention"):
            raise ValueError("task=ground needs a model with a matching head that looks at pictures, such as albef")
        rows = job.answer(job.items(CAPTIONS), lambda item: self.row(subject, item, job))
        shown = [[r["input"], word, f"{x:.2f}, {y:.2f}"] for r in rows for word, (x, y) in (r["hottest"] or {}).items()]
        job.table("where a word is", ["text", "word", "x, y (share of width, height)"], shown)
        return {"words": float(len(shown)), "failed": float(sum(row["error"] is not None for row in rows))}

    def row(self, subject: VisionLanguage, item: Item, job: Job) -> dict:
        """The row of one text, and its overlays in samples/."""
        row = {"id": item.id, "input": item.text, "image": None, "hottest": None, "overlay": None}
        try:
            path = picture_of(item, self.picture, job)
            image = subject.encode_pictures([path])
        except ValueError as error:
            return row | {"error": str(error)}
        text, tokenizer = subject.encode_texts([item.text]), subject.datamodule.tokenizer
        heats = word_heats(subject.system.net, tokenizer, image, text, item.text, self.layer, self.words)
        picture = read_picture(path, 1024 * 1024)
        tiles = [Tile(picture, NEUTRAL, "picture")]
        tiles += [Tile(overlay(picture, heat, self.side), NEUTRAL, word) for word, heat in heats.items()]
        hottest = {word: _hottest(heat) for word, heat in heats.items()}
        file = job.run_dir / "samples" / f"ground_{item.id}.png"
        legend = "Where the matching score looks for a word. Each map is scaled to its own maximum."
        save_picture(draw_sheet("Words in a picture", legend, [SheetRow(item.text, "", tiles)], self.side), file)
        return row | {"image": str(path), "hottest": hottest, "overlay": str(file), "error": None}


def _hottest(heat: Tensor) -> tuple[float, float]:
    """Middle of the hottest patch as shares of width and height: (rows, cols) -> x, y."""
    rows, cols = heat.shape
    place = int(torch.argmax(heat))
    return (place % cols + 0.5) / cols, (place // cols + 0.5) / rows
