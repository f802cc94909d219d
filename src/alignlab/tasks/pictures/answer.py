"""Questions and sentences about pictures, answered by a run that was fine-tuned for them."""

from pathlib import Path
from typing import Any

import torch

from alignlab.data.picture_tasks.answers import shared, worth_of
from alignlab.tasks.fields import ABOUT_PICTURES
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job
from alignlab.tasks.pictures.asking import NO_NAMES, asked, names_of
from alignlab.tasks.pictures.subject import VisionLanguage


class Answer:
    """The likeliest answers of the run's list with their probabilities among these, and of a decoder its own words; or
    the labels of a sentence about one or two pictures.

    Rows of `input` (.jsonl, .csv) are those of lists for training; where they say what is right, it is counted.
    Or `prompt_text` with `picture`.

    Args:
        picture: a file, or two of them.
        top_k: so many answers or labels of a row.
        shortlist: of a decoder: answers with the likeliest first word whose whole likelihood is compared; None: all.
    """

    needs = "system"

    def __init__(self, picture: str | list[str] | None = None, top_k: int = 3, shortlist: int | None = None) -> None:
        for key, value in (("top_k", top_k), ("shortlist", shortlist or 1)):
            if value < 1:
                raise ValueError(f"{key} is {value}; it must be at least 1")
        self.pictures = [picture] if isinstance(picture, str) else picture
        self.top_k, self.shortlist = top_k, shortlist

    def run(self, subject: VisionLanguage, job: Job) -> dict[str, float]:
        names = self._names(subject)
        rows = job.answer(job.items(ABOUT_PICTURES), lambda item: self.row(subject, item, job, names))
        shown = [[", ".join(r["images"] or ()), r["input"], r["answer"], r["probability"]] for r in rows]
        job.table("answers", ["pictures", "input", "answer", "probability"], shown)
        worth = [row["worth"] for row in rows if row["worth"] is not None]
        accuracy = {"accuracy": sum(worth) / len(worth)} if worth else {}
        return {"answered": float(sum(row["error"] is None for row in rows)), **accuracy}

    def _names(self, subject: VisionLanguage) -> list[str]:
        if not (names := names_of(subject.datamodule)):
            raise ValueError(f"task=answer {NO_NAMES}")
        return names

    def row(self, subject: VisionLanguage, item: Item, job: Job, names: list[str]) -> dict[str, Any]:
        """The row of one question or sentence."""
        given = item.fields.get("images") or self.pictures
        row = {"id": item.id, "input": item.text, "images": given, "answer": None, "probability": None}
        row |= {"answers": None, "free": None, "worth": None}
        try:
            item.check()
            image = torch.stack([subject.pixels(path) for path in _paths(given, job, bool(item.fields.get("images")))])
            image = subject.datamodule.normalise(image)[None]
            limits = {"top_k": self.top_k, "shortlist": self.shortlist}
            found = asked(subject.system, subject.datamodule, image, item.text, names, **limits)
        except ValueError as error:
            return row | {"error": str(error)}
        chances = {name: round(chance, 6) for name, chance in found.probabilities.items()}
        worth = None if "target" not in item.fields else _worth(found.answer, item.fields["target"])
        row |= {"answer": found.answer, "probability": chances[found.answer], "answers": chances, "free": found.free}
        return row | {"worth": worth, "error": None}


def _paths(given: list[str] | None, job: Job, of_row: bool) -> list[Path]:
    if not given:
        raise ValueError("no picture: set picture=FILE, or give an input of lines with the fields image and question")
    folder = Path(job.input).parent if of_row and job.input else Path()
    return [folder / Path(one).expanduser() for one in given]


def _worth(answer: str, target: Any) -> float:
    """Of what is right: a text, a label, what several people said, or shares of people."""
    if isinstance(target, dict):
        shares = target.items()
    else:
        several = target if isinstance(target, list) else str(target).split("|")
        shares = shared([str(one) for one in several])
    return worth_of(sum(share for text, share in shares if text.strip().lower() == answer.lower()))
