"""Whether a model tells true captions from foils: lists of one's own, or the near misses of the run's data."""

import torch

from alignlab.data.image_text.foil_lists import FoilRow, read_foils
from alignlab.evaluation.foils import foil_scores, winoground
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job
from alignlab.tasks.pictures.pair_scores import score_texts
from alignlab.tasks.pictures.subject import VisionLanguage
from alignlab.tasks.predictions import Prediction

_COLUMNS = ("caption_accuracy", "text_score", "image_score", "group_score")
_KINDS = ("similarity", "matching")


class Foils:
    """Caption accuracy and, where rows have two pictures, Winoground's scores (arXiv:2204.03162), by similarity and by
    the matching head.

    `input` is a list of pictures, captions and foils (`read_foils`). Without one it is the sets that the run's own
    data have (`data=emoji_scenes`, or `data.foil_annotations`).

    Args:
        image_dir: where the list's relative paths start; None: its folder.
    """

    needs = "system"

    def __init__(self, image_dir: str | None = None) -> None:
        self.image_dir = image_dir

    def run(self, subject: VisionLanguage, job: Job) -> dict[str, float]:
        if job.prompt_text is not None:
            raise ValueError("prompt_text: task=foils takes input=LIST of pictures, captions and foils, or neither")
        if job.input is None:
            rows = self._own_sets(subject, job)
        else:
            listed = read_foils(job.input, self.image_dir, "input")
            items = [Item(str(number), row.caption, {"row": row}) for number, row in enumerate(listed)]
            rows = job.answer(items, lambda item: _scored(subject, item))
        good = [row for row in rows if row["error"] is None]
        sets_of = {kind: _by_kind(good, kind) for kind in _KINDS if good[0][kind] is not None}
        job.table(
            "true captions and foils",
            ("set", "rows", "by", *(column.partition("_")[0] for column in _COLUMNS)),
            [
                [name, sum(len(row[kind]) for row in good if row["kind"] == name), kind]
                + [scores.get(column) for column in _COLUMNS]
                for kind, sets in sets_of.items()
                for name, scores in sets.items()
            ],
        )
        prefixes = {"similarity": "", "matching": "matched_"}
        metrics = {
            f"{prefixes[kind]}{name}_{key}": value
            for kind in reversed(sets_of)
            for name, scores in sets_of[kind].items()
            for key, value in scores.items()
        }
        return metrics | {"failed": float(len(rows) - len(good))}

    def _own_sets(self, subject: VisionLanguage, job: Job) -> list[Prediction]:
        sets = subject.datamodule.foil_sets()
        if not sets:
            raise ValueError("input=null: the run's data have no foils; give a list of pictures, captions and foils")

        def row(item: Item) -> Prediction:
            scores = {kind: x.tolist() for kind, x in foil_scores(subject.system, sets[item.text]).items()}
            return {"id": item.id, "input": item.text, "kind": item.text, "matching": None, **scores, "error": None}

        return job.answer([Item(name, name, {}) for name in sets], row)


def _scored(subject: VisionLanguage, item: Item) -> Prediction:
    """The row of one caption and its foil: scores of each of its pictures with both."""
    row: FoilRow = item.fields["row"]
    pictures = [path for path in (row.image, row.foil_image) if path is not None]
    named = {"id": item.id, "input": row.caption, "foil": row.foil, "kind": row.kind, "image": str(row.image)}
    try:
        scored = [score_texts(subject, path, [row.caption, row.foil]) for path in pictures]
    except ValueError as error:
        return named | dict.fromkeys(_KINDS) | {"error": f"{row.where}: {error}"}
    similarity = [[score.similarity for score in scores] for scores in scored]
    matching = [[score.score for score in scores] for scores in scored] if subject.matches else None
    return named | {"similarity": [similarity], "matching": matching and [matching], "error": None}


def _by_kind(rows: list[Prediction], kind: str) -> dict[str, dict[str, float]]:
    """Scores of each set."""
    sets: dict[str, list] = {}
    for row in rows:
        sets.setdefault(row["kind"], []).extend(row[kind])
    return {name: winoground(_even(scores)) for name, scores in sets.items()}


def _even(scores: list[list[list[float]]]) -> torch.Tensor:
    """(N, P, 2), where P is 1 unless every row has two pictures."""
    pictures = min(map(len, scores))
    return torch.tensor([row[:pictures] for row in scores])
