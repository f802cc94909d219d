"""What the demo does with a model of pictures and texts: search, compare, point."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from alignlab.data.image_text.picture_cache import read_picture
from alignlab.evaluation.sheets import fit, overlay
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job
from alignlab.tasks.pictures.heat import word_heats
from alignlab.tasks.pictures.index import index_pictures
from alignlab.tasks.pictures.pair_scores import score_texts
from alignlab.tasks.pictures.retrieve import Retrieve
from alignlab.tasks.pictures.subject import VisionLanguage, find_pictures

CANDIDATES = 16  # that the matching head puts in order
WORDS = 8  # of a text that are shown
_SIDE = 320  # pixels of a picture's longer side on the page
_READ = 512 * 512  # pixels that are decoded for it


class Hit(NamedTuple):
    """A picture that a search found."""

    path: Path
    picture: Image.Image  # as the page shows it
    label: str
    score: float


class Fit(NamedTuple):
    """How well a text fits a picture."""

    text: str
    similarity: float  # cosine
    probability: float | None  # of a match; None where the model states none
    share: float | None  # among the texts, at the model's own temperature; None of a single one


class Looking:
    """A model of pictures and texts, and the pictures that it is asked about.

    Args:
        pictures: a folder to search where none is named; None: the run's held-out pictures.
        folder: for what lasts as long as the demo: the run's held-out pictures as files.
        index: folder for the features of named folders; None: `index/` in the model's run directory.
        held_out: at most so many of the run's own pictures.
    """

    def __init__(
        self, subject: VisionLanguage, job: Job, folder: Path, pictures: str | None, index: str | None, held_out: int
    ) -> None:
        self.subject, self.job, self.pictures, self.held_out = subject, job, pictures, held_out
        self._own, self._captions = folder / "held_out", dict[Path, str]()
        self._index = Path(index).expanduser() if index else None

    @property
    def points(self) -> bool:
        """Whether the model looks at a picture for the words of a text."""
        return hasattr(self.subject.system.net, "match_with_attention")

    @property
    def has_own(self) -> bool:
        """Whether the run has held-out pictures."""
        source = self.subject.datamodule.source
        return hasattr(source, "num_pictures") and source.num_pictures("val") > 0

    def search(
        self,
        words: str,
        place: str,
        number: int,
        rerank: bool = False,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[list[Hit], str]:
        """The best pictures for words, best first, and a line about them. Raises ValueError, one line."""
        words, place = _filled(words, "the words to search for"), place.strip() or self.pictures or ""
        if place:
            paths, index = find_pictures(place, "folder"), self._index or self.subject.run_dir / "index"
        else:
            paths, index = self._own_pictures(), self._own / "index"
        known = index_pictures(self.subject, paths, index, on_progress)
        best = CANDIDATES if rerank and self.subject.matches else 0
        row = Retrieve(place, number, max(best, number) if best else 0).row(
            self.subject, Item("", words, {"query": words}), known, self.job
        )
        if row["error"] is not None:
            raise ValueError(row["error"])
        hits = []
        for path, score in zip(map(Path, row["pictures"]), row["scores"], strict=True):
            if (shown := _shown(path)) is not None:
                told = f"{100 * _chance(score):.1f} %" if row["score"] == "match_log_odds" else f"{score:.3f}"
                hits.append(Hit(path, shown, f"{told} · {self._captions.get(path, path.name)}", score))
        kind = {"similarity": "cosine", "match_log_odds": "chance of a match"}[row["score"]]
        unread = f"; {len(known.errors)} could not be read, the first: {known.errors[0]}" if known.errors else ""
        return hits, f"the best of {len(known.paths)} pictures with their {kind}; click on one to ask about it{unread}"

    def match(self, picture: str | None, texts: str) -> list[Fit]:
        """How well each line of `texts` fits a picture file, best first. Raises ValueError, one line."""
        path, lines = _named(picture), _lines(texts)
        scores = score_texts(self.subject, path, lines)
        shares = self.subject.probabilities(torch.tensor([score.similarity for score in scores])).tolist()
        fits = [
            Fit(text, score.similarity, score.probability, share if len(lines) > 1 else None)
            for text, score, share in zip(lines, scores, shares, strict=True)
        ]
        kind = 1 if scores[0].probability is None else 2
        return sorted(fits, key=lambda fit: -fit[kind])

    def heat(self, picture: str | None, texts: str) -> list[tuple[Image.Image, str]]:
        """A picture file with the heat of each word of the first line of `texts`. Raises ValueError, one line."""
        path, text = _named(picture), _lines(texts)[0]
        image, tokenizer = self.subject.encode_pictures([path]), self.subject.datamodule.tokenizer
        encoded = self.subject.encode_texts([text])
        heats = word_heats(self.subject.system.net, tokenizer, image, encoded, text, limit=WORDS)
        shown = read_picture(path, _READ)
        return [(overlay(shown, heat, _SIDE), word) for word, heat in heats.items()]

    def _own_pictures(self) -> list[Path]:
        """The run's held-out pictures, written down when they are first wanted: PNG loses nothing."""
        if not self.has_own:
            raise ValueError("this model brings no pictures of its own: name a folder")
        if not self._captions:
            self._own.mkdir(parents=True, exist_ok=True)
            data = self.subject.datamodule
            for number in range(min(self.held_out, data.source.num_pictures("val"))):
                path = self._own / f"{number:05}.png"
                data.picture(number).save(path)
                self._captions[path] = data.caption(number)
        return list(self._captions)


def _chance(log_odds: float) -> float:
    return 1 / (1 + math.exp(-max(-700.0, log_odds)))


def _filled(text: str, what: str) -> str:
    if not (text := text.strip()):
        raise ValueError(f"{what} are missing")
    return text


def _lines(texts: str) -> list[str]:
    return [line.strip() for line in _filled(texts, "texts, a line each,").splitlines() if line.strip()]


def _named(picture: str | None) -> Path:
    if not picture:
        raise ValueError("a picture is missing: drop one, or click on one that a search found")
    return Path(picture)


def _shown(path: Path) -> Image.Image | None:
    """None for one that can't be read any more."""
    try:
        return fit(read_picture(path, _READ), _SIDE)
    except ValueError:
        return None
