"""How well pictures and texts fit, pair by pair."""

from pathlib import Path

from alignlab.data.image_text.annotations import IMAGE_KEYS
from alignlab.files.text import meant
from alignlab.tasks.fields import CAPTIONS
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job
from alignlab.tasks.pictures.pair_scores import score_texts
from alignlab.tasks.pictures.subject import VisionLanguage


class Match:
    """The matching head's log-odds and probability (ALBEF), SigLIP's probability, or CLIP's similarity, for every
    pair.

    A pair is a row of `input` (.jsonl, .csv) with a picture and its caption, named as in lists for training; or
    `picture` with the run's texts. Paths are relative to the input file's folder, or to the current one where there is
    none.
    """

    needs = "system"

    def __init__(self, picture: str | None = None) -> None:
        self.picture = picture

    def run(self, subject: VisionLanguage, job: Job) -> dict[str, float]:
        rows = job.answer(job.items(CAPTIONS), lambda item: self.row(subject, item, job))
        columns = ["image", "input", "score", "probability"]
        job.table("pairs", columns, [[row[column] for column in columns] for row in rows])
        scores = [row["score"] for row in rows if row["error"] is None]
        return {"mean_score": sum(scores) / len(scores), "failed": float(len(rows) - len(scores))}

    def row(self, subject: VisionLanguage, item: Item, job: Job) -> dict:
        """The row of one pair."""
        name = item.fields.get("image") or self.picture
        row = {"id": item.id, "input": item.text, "image": name, "score": None, "probability": None}
        try:
            scores = score_texts(subject, picture_of(item, self.picture, job), [item.text])[0]
        except ValueError as error:
            return row | {"error": str(error)}
        return row | scores._asdict() | {"error": None}


def picture_of(item: Item, picture: str | None, job: Job) -> Path:
    """The picture of an item: its own field `image`, or the task's. Raises ValueError if neither is there, or its row
    holds no text.
    """
    item.check()
    if item.fields.get("image") is not None:
        return (Path(job.input).parent if job.input else Path()) / Path(item.fields["image"]).expanduser()
    if picture is None:
        guess = "".join(f"; did you mean image by {name}?" for name in meant(item.fields, IMAGE_KEYS))
        raise ValueError(
            f"no picture: set picture=FILE, or give an input of lines with the fields image and text{guess}"
        )
    return Path(picture).expanduser()
