"""Questions and sentences about pictures, answered by a run that was fine-tuned for them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignlab.data.picture_tasks.answers import shared, worth_of
from alignlab.tasks.fields import ABOUT_PICTURES
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job
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
        source = subject.datamodule.source
        names = getattr(source, "answers", None) or getattr(source, "labels", None)
        if not names:
            raise ValueError(
                "task=answer needs a run that was fine-tuned for answers or labels, such as model=albef_vqa, "
                "albef_entailment or albef_nlvr2"
            )
        return list(names)

    def row(self, subject: VisionLanguage, item: Item, job: Job, names: list[str]) -> dict[str, Any]:
        """The row of one question or sentence."""
        given = item.fields.get("images") or self.pictures
        row = {"id": item.id, "input": item.text, "images": given, "answer": None, "probability": None}
        row |= {"answers": None, "free": None, "worth": None}
        try:
            item.check()
            image = torch.stack([subject.pixels(path) for path in _paths(given, job, bool(item.fields.get("images")))])
            ids, mask = subject.datamodule.encode_texts([item.text])
            scores, free = self.scores(subject, subject.datamodule.normalise(image)[None], ids, mask, names)
        except ValueError as error:
            return row | {"error": str(error)}
        best = scores.softmax(0).topk(min(self.top_k, len(names)))
        answers = {names[k]: round(p, 6) for p, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)}
        first = next(iter(answers))
        worth = None if "target" not in item.fields else _worth(first, item.fields["target"])
        found = {"answer": first, "probability": answers[first], "answers": answers, "free": free, "worth": worth}
        return row | found | {"error": None}

    def scores(
        self, subject: VisionLanguage, image: Tensor, ids: Tensor, mask: Tensor, names: list[str]
    ) -> tuple[Tensor, str | None]:
        """(N,) a number for each name whose softmax is its probability, and the words of a decoder; image is
        (1, P, 3, H, W).
        """
        net, vocabulary = subject.system.net, subject.datamodule.vocabulary
        with torch.no_grad():
            if not hasattr(net, "ask"):
                wanted = getattr(subject.system, "pictures", 1)
                if image.shape[1] != wanted:
                    raise ValueError(f"{image.shape[1]} pictures, but this run looks at {wanted}")
                return net(image, ids, mask)[0].float(), None
            if image.shape[1] != 1:
                raise ValueError(f"{image.shape[1]} pictures, but a question is about one")
            states = net.ask(image[:, 0], ids, mask)
            scores = net.rank(states, subject.datamodule.encode_answers(names), self.shortlist)[0]
            written = net.write(states, vocabulary.cls_id, vocabulary.sep_id, 6)
        ids = written.ids[0, 1:][written.mask[0, 1:]]
        return scores.float(), subject.datamodule.tokenizer.decode(ids[ids != vocabulary.sep_id].tolist())


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
