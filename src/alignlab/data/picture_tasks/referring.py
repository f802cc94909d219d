"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that each refer to one thing in a picture, and boxes of all things."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignlab.data.image_text.list_mixture import ListOf, Lists
from alignlab.data.image_text.list_values import split_of
from alignlab.data.image_text.vocabulary import clean_caption
from alignlab.data.picture_tasks.own_task import OwnTask
from alignlab.data.picture_tasks.task_rows import Bad, TaskRow, field, refuse_stranger, tried
from alignlab.files.plain_pickle import read_plain_pickle
from alignlab.files.text import json_items, kind_of, parse_json, read_text

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, right and bottom exclusive
Shares = list[float]  # left, top, right, bottom as shares of width and height


class ReferringExpressions(OwnTask):
    """The source behind `data=refcoco`: a row is an expression, so that a picture comes as often as it is spoken of.

    Training knows pictures and expressions alone, as captions; boxes are what is measured by (`callbacks=grounding`):
    does the heat of the expression lie on its thing (pointing), and whose box does it fill best (box ranking,
    arXiv:2107.07651, sec. 4)?

    Args:
        annotations: refs(unc).p, refs(umd).p or refs(google).p of the authors (read without running it), or the same as
            .json; several, or mappings with file, image_dir and weight, and perhaps `instances` (None: instances.json
            beside the refs) and `detections`, {image id: boxes [left, top, width, height, ...]} to choose from (None:
            those of all things that are annotated).
        image_size: height and width in pixels.
        clean_captions: cleans expressions as the ALBEF reference does.
        settings: see `OwnTask`; rows of refs name their split themselves (val, testA, testB, test).
    """

    fields: Sequence[str] = ("instances", "detections")

    def __init__(self, annotations: Lists, image_size: int, *, clean_captions: bool = False, **settings: Any) -> None:
        self._clean = clean_captions
        super().__init__(annotations, image_size, **settings)

    def read(self, one: ListOf, bad: Bad) -> Iterator[TaskRow]:
        file = Path(one.file).expanduser()
        folder = Path(one.image_dir).expanduser() if one.image_dir is not None else file.parent
        things = _Things(Path(one.more.get("instances") or file.with_name("instances.json")).expanduser(), one)
        if file.suffix.lower() == ".json":
            refs = [(where, ref) for _, where, ref in json_items(file, one.key)]
        else:
            held = read_plain_pickle(file, one.key)
            if not isinstance(held, list):
                raise ValueError(f"{one.key}={file} must hold a list of refs, not {kind_of(held)}")
            refs = [(f"{one.key}={file}, ref {number}", ref) for number, ref in enumerate(held, 1)]
        for where, ref in refs:
            yield from tried(bad, self._expressions, ref, where, things, folder)

    def _expressions(self, ref: Any, where: str, things: "_Things", folder: Path) -> Iterator[TaskRow]:
        refuse_stranger(ref, where)
        several, (name, box, boxes) = ref.get("sentences"), things.of(ref, where)
        if not isinstance(several, list) or not several:
            raise ValueError(f"{where}: sentences is {kind_of(several)}; it must be a list of expressions")
        part = name.split("_")[1] if name.count("_") >= 2 else ""  # COCO_train2014_000000581857.jpg
        below = f"{part}/" if part and (folder / part / name).exists() else ""
        for number, one in enumerate(several, 1):
            here = f"{where}, expression {number}"
            refuse_stranger(one, here)
            text = field(one, ("sent", "raw"), here)
            text = clean_caption(text) if self._clean else text
            yield TaskRow(here, split_of(ref.get("split"), here), [below + name], text, [box, boxes])

    def grounded_phrases(self, index: int, split: str) -> list[tuple[int, int, tuple[Box, ...]]]:
        """The whole expression, characters [start, end), with the box of what it refers to."""
        row = self.row_of(int(self._numbers_of(split)[index]))
        return [(0, len(row.text), (self._pixels(row.told[0]),))]

    def candidate_boxes(self, index: int, split: str) -> list[Box]:
        """The boxes of a picture among which the thing is to be found."""
        return [self._pixels(box) for box in self.row_of(int(self._numbers_of(split)[index])).told[1]]

    def _pixels(self, box: Shares) -> Box:
        """A box in the square picture; at least a pixel of it."""
        size = self.image_size
        left, top = (min(size - 1, round(share * size)) for share in box[:2])
        return left, top, max(left + 1, round(box[2] * size)), max(top + 1, round(box[3] * size))


class _Things:
    """What instances.json, and perhaps a file of detections, say of pictures and boxes."""

    def __init__(self, file: Path, one: ListOf) -> None:
        key = f"{one.key}.instances"
        self.images: dict[int, tuple[str, int, int]] = {}
        for _, where, image in json_items(file, key, "images"):
            refuse_stranger(image, where)
            name, sides = field(image, ("file_name",), where), [image.get(side) for side in ("width", "height")]
            if not all(isinstance(side, int) and side > 0 for side in sides):
                raise ValueError(f"{where}: width and height are {sides}; they must be numbers above 0")
            self.images[image.get("id")] = (name, *sides)
        self.boxes: dict[int, Shares] = {}
        self.of_image: dict[int, list[Shares]] = {}
        for _, where, thing in json_items(file, key, "annotations"):
            refuse_stranger(thing, where)
            number = thing.get("image_id")
            if number not in self.images:
                raise ValueError(f"{where}: image_id {number} is no id of images")
            box = self._shares(thing.get("bbox"), number, where)
            self.boxes[thing.get("id")] = box
            self.of_image.setdefault(number, []).append(box)
        if (detections := one.more.get("detections")) is not None:
            key = f"{one.key}.detections"
            found = parse_json(read_text(detections, key), f"{key}={detections}")
            self.of_image = {
                int(number): [self._shares(box, int(number), f"{key}={detections}, {number}") for box in boxes]
                for number, boxes in found.items()
                if int(number) in self.images
            }

    def of(self, ref: dict, where: str) -> tuple[str, Shares, list[Shares]]:
        """The picture's name, the box of a ref and those among which it is to be found."""
        image, thing = ref.get("image_id"), ref.get("ann_id")
        for number, known, what in ((image, self.images, "image_id"), (thing, self.boxes, "ann_id")):
            if number not in known:
                raise ValueError(f"{where}: {what} {json.dumps(number)} isn't in instances")
        boxes = self.of_image.get(image)
        if not boxes:
            raise ValueError(f"{where}: there is no box to choose in the picture {image}")
        return self.images[image][0], self.boxes[thing], boxes

    def _shares(self, box: Any, image: int, where: str) -> Shares:
        numbers = box[:4] if isinstance(box, list) else []
        if len(numbers) < 4 or not all(isinstance(side, int | float) for side in numbers) or min(numbers[2:]) <= 0:
            raise ValueError(f"{where}: a box is left, top, width and height, not {kind_of(box)}")
        (left, top, wide, high), (_, width, height) = numbers, self.images[image]
        sides = (left / width, top / height, (left + wide) / width, (top + high) / height)
        return [round(min(1.0, max(0.0, side)), 5) for side in sides]
