"""Zero-shot classification of pictures among names that the user gives."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from alignlab.evaluation.retrieval import similarity
from alignlab.evaluation.zero_shot import class_embeddings
from alignlab.tasks.job import Job
from alignlab.tasks.pictures.subject import VisionLanguage, find_pictures
from alignlab.types.pairs import ClassPrompts

TEMPLATES = ("a picture of {}",)


class Classify:
    """The name whose prompts lie nearest to a picture, with a softmax over all names at the model's own temperature.

    Args:
        pictures: a file, or a folder with all below it.
        names: of the classes. A picture in a folder of such a name has that class as its target, which makes the run
            an evaluation.
        templates: prompts of a class, averaged (arXiv:2103.00020, sec. 3.1.4); `{}` is the name.
    """

    needs = "system"

    def __init__(self, pictures: str, names: Sequence[str], templates: Sequence[str] = TEMPLATES) -> None:
        names = [str(name) for name in names]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"names={names}: at least two different names are needed")
        if not templates or any("{}" not in template for template in templates):
            raise ValueError(f"templates={list(templates)}: each needs a {{}} for the name")
        self.pictures, self.names, self.templates = pictures, names, list(templates)

    def run(self, subject: VisionLanguage, job: Job) -> dict[str, float]:
        root = Path(self.pictures).expanduser()
        paths = find_pictures(self.pictures)
        classes = self.classes(subject)
        done = set(job.predictions.rows)
        for good, features, errors in subject.picture_batches([path for path in paths if str(path) not in done]):
            for path, error in errors.items():
                job.predictions.add({"id": str(path), "input": str(path), "error": error})
            if good:
                chances = subject.probabilities(similarity(features, classes))
                for path, chance in zip(good, chances, strict=True):
                    job.predictions.add(self.row(path, chance))
        rows = job.rows(map(str, paths))
        place = root if root.is_dir() else root.parent
        shown = [[str(Path(r["input"]).relative_to(place)), r.get("answer"), r.get("probability")] for r in rows]
        job.table("classes", ["picture", "class", "probability"], shown)
        judged = [row["correct"] for row in rows if "correct" in row]
        metrics = {"accuracy": sum(judged) / len(judged)} if judged else {}
        failed = sum(row["error"] is not None for row in rows)
        return metrics | {"pictures": float(len(rows) - failed), "failed": float(failed)}

    def classes(self, subject: VisionLanguage) -> Tensor:
        """A direction for each name: (C, D)."""
        texts = [template.replace("{}", name) for name in self.names for template in self.templates]
        ids, mask = subject.datamodule.encode_texts(texts)
        shape = (len(self.names), len(self.templates), ids.shape[1])
        return class_embeddings(subject.system.encode_text, ClassPrompts(self.names, ids.view(shape), mask.view(shape)))

    def row(self, path: Path, chance: Tensor) -> dict:
        """The row of a picture; chance (C,)."""
        best, order = chance.sort(descending=True)
        names = [self.names[place] for place in order.tolist()]
        row = {"id": str(path), "input": str(path), "answer": names[0], "probability": float(best[0])}
        row["probabilities"] = dict(zip(names[:5], best[:5].tolist(), strict=True))
        if path.parent.name in self.names:
            row |= {"target": path.parent.name, "correct": names[0] == path.parent.name}
        return row | {"error": None}
