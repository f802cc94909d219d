"""Search in a folder of pictures, by text or by picture."""

from pathlib import Path

import torch
from PIL import Image

from alignlab.data.image_text.picture_cache import read_picture
from alignlab.evaluation.retrieval import Candidates
from alignlab.evaluation.sheets import NEUTRAL, SheetRow, Tile, draw_sheet
from alignlab.files.writing import replaced
from alignlab.tasks.fields import QUERIES
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job
from alignlab.tasks.pictures.index import PictureIndex, Search, find_nearest, index_pictures
from alignlab.tasks.pictures.match import picture_of
from alignlab.tasks.pictures.pair_scores import score_texts
from alignlab.tasks.pictures.subject import VisionLanguage, find_pictures, is_picture

_SHEET_ROWS = 12


class Retrieve:
    """The best pictures of a folder for every query; a query that names a picture file is a picture, any other a text.

    Args:
        pictures: a folder, searched with all below it.
        top_k: results of a query.
        rerank_top_k: so many candidates of a text are ordered by the matching head, where the model has one; 0: none.
        search: see `find_nearest`.
        index: folder for the features; None: `index/` in the model's run directory.
    """

    needs = "system"

    def __init__(
        self, pictures: str, top_k: int = 5, rerank_top_k: int = 0, search: Search = "exact", index: str | None = None
    ) -> None:
        if top_k < 1 or rerank_top_k < 0:
            raise ValueError(f"top_k={top_k} must be at least 1 and rerank_top_k={rerank_top_k} at least 0")
        self.pictures, self.top_k, self.rerank_top_k = pictures, top_k, rerank_top_k
        self.search, self.index = search, index

    def run(self, subject: VisionLanguage, job: Job) -> dict[str, float]:
        items = job.items(QUERIES)
        if self.rerank_top_k and not subject.matches:
            raise ValueError(f"rerank_top_k={self.rerank_top_k}: this model has no matching head; leave it at 0")
        folder = Path(self.index) if self.index else subject.run_dir / "index"
        index = index_pictures(subject, find_pictures(self.pictures), folder)
        for error in index.errors:
            job.console.print(f"left out: {error}", markup=False)
        rows = job.answer(items, lambda item: self.row(subject, item, index, job))
        root = Path(self.pictures).expanduser()
        shown = [
            [r["input"], _short(p, root), s] for r in rows for p, s in zip(r["pictures"], r["scores"], strict=True)
        ]
        job.table("pictures", ["query", "picture", "score"], shown)
        answered = [row for row in rows if row["error"] is None]
        for row in rows:
            if row["error"] is not None:
                job.console.print(f"query {row['id']} failed: {row['error']}", markup=False)
        self._draw(answered, job.run_dir / "samples" / "retrieval.png", root)
        counts = {"pictures": len(index.paths), "encoded": index.num_encoded, "unreadable": len(index.errors)}
        counts["failed"] = len(rows) - len(answered)
        return {name: float(value) for name, value in counts.items()}

    def row(self, subject: VisionLanguage, item: Item, index: PictureIndex, job: Job) -> dict:
        """The row of one query; a picture that can't be read is its error alone."""
        row = {"id": item.id, "input": item.text, "pictures": [], "scores": [], "score": None}
        try:
            return row | self._best(subject, item, index, job) | {"error": None}
        except ValueError as error:
            return row | {"error": str(error)}

    def _best(self, subject: VisionLanguage, item: Item, index: PictureIndex, job: Job) -> dict:
        item.check()
        named = item.fields.get("image") == item.text  # by its row
        path = picture_of(item, None, job) if named else Path(item.text).expanduser()
        as_picture = named or is_picture(item.text)
        if as_picture:
            query = subject.encode_pictures([path]).features
        else:
            query = subject.encode_texts([item.text])[0].features
        number = max(self.top_k, 0 if as_picture else self.rerank_top_k)
        candidates = find_nearest(query.float(), index.features, number, self.search)
        kind = "similarity"
        if self.rerank_top_k and not as_picture:
            candidates, kind = _reranked(subject, item.text, index, candidates), "match_log_odds"
        places, scores = candidates.index[0, : self.top_k].tolist(), candidates.score[0, : self.top_k].tolist()
        paths = [str(index.paths[place]) for place in places]
        return {"pictures": paths, "scores": scores, "score": kind}

    def _draw(self, rows: list[dict], file: Path, root: Path) -> None:
        drawn = []
        for row in rows[:_SHEET_ROWS]:
            best = zip(row["pictures"], row["scores"], strict=True)
            tiles = [
                Tile(shown, NEUTRAL, f"{score:.3f}", _short(path, root))
                for path, score in best
                if (shown := _picture(path))
            ]
            drawn.append(SheetRow(row["input"], row["score"].replace("_", " "), tiles))
        save_picture(
            draw_sheet(f"Queries and the best pictures of {root}", "Below a picture: its score and its file.", drawn),
            file,
        )


def _reranked(subject: VisionLanguage, text: str, index: PictureIndex, candidates: Candidates) -> Candidates:
    """The candidates of one text in the order of their matching scores."""
    scores = [score_texts(subject, index.paths[place], [text])[0].score for place in candidates.index[0].tolist()]
    score, order = torch.tensor(scores).sort(descending=True, stable=True)
    return Candidates(candidates.index[:, order], score[None])


def save_picture(picture: Image.Image, file: Path) -> None:
    """Writes a PNG."""
    with replaced(file) as temporary:
        picture.save(temporary, format="PNG")


def _picture(path: str) -> Image.Image | None:
    """None for one that can't be read any more: the row has its path and score."""
    try:
        return read_picture(Path(path), 512 * 512)
    except ValueError:
        return None


def _short(path: str, root: Path) -> str:
    return str(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else path
