"""How well a caption fits its picture, by a CLIP: pairs below a threshold go (arXiv:2111.02114, sec. 3.2)."""

import pkgutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.corpus.documents import Batch, Verdict
from alignlab.corpus.steps.pictures import place_of
from alignlab.data.image_text.picture_cache import read_picture
from alignlab.data.pictures.members import Member
from alignlab.data.recipes.pictures import WHOLE

# By its name, since it lies above this room. What it opens has `image_features` and `text_features`, unit vectors.
_OPENER = "alignlab.load"


class ClipScore:
    """Drops captions whose cosine with their picture is below a threshold; of several captions of a row the best one
    counts. Rows without a picture, and addresses, are kept.

    What is a good threshold depends on the model: LAION-400M took 0.3 with OpenAI's ViT-B/32. Look at an audit first.

    Args:
        model: a run directory, or a released CLIP or SigLIP (a folder, a file, a hub id).
        threshold: cosine, from -1 to 1.
        folder: where relative paths start; None: the folder of the list.
        batch_size: pictures at a time.
        device: of the model.

    Raises:
        ValueError: no model or threshold, or a value outside its limits.
    """

    name = "clip_score"

    def __init__(
        self,
        model: str | None = None,
        threshold: float | None = None,
        folder: str | None = None,
        batch_size: int = 32,
        device: str = "cpu",
    ) -> None:
        if not model:
            raise ValueError("model is needed: a run directory, or a released CLIP or SigLIP")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not -1 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}; it must be a cosine, from -1 to 1")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        self._place, self._threshold, self._size = model, threshold, batch_size
        self._folder = None if folder is None else Path(folder).expanduser()
        self._device = device

    @cached_property
    def _model(self) -> Any:
        return pkgutil.resolve_name(_OPENER)(self._place, device=self._device)

    def __call__(self, batch: Batch) -> Iterator[tuple[int, Verdict]]:
        places = {n: place_of(document, self._folder or batch.folder) for n, document in batch.living()}
        numbers = [number for number, place in places.items() if place is not None]
        unique = list(dict.fromkeys(places[number] for number in numbers))
        row_of, broken, images = {}, {}, []
        for start in range(0, len(unique), self._size):
            read = [(place, _read(place)) for place in unique[start : start + self._size]]
            broken |= {place: found for place, found in read if isinstance(found, str)}
            good = [(place, found) for place, found in read if not isinstance(found, str)]
            row_of |= {place: len(row_of) + at for at, (place, _) in enumerate(good)}
            if good:
                images.append(_array(self._model.image_features([found for _, found in good], self._size)))
        captions = [(number, text) for number in numbers for _, text in batch.documents[number].leaves]
        best = self._scores(captions, places, row_of, images)
        for number in numbers:
            if (why := broken.get(places[number])) is not None:
                yield number, Verdict("broken picture", {"picture": str(places[number]), "found": why})
            elif best[number] < self._threshold:
                evidence = {"score": round(best[number], 4), "limit": self._threshold}
                yield number, Verdict("low score", evidence)

    def _scores(
        self, captions: Sequence[tuple[int, str]], places: dict, row_of: dict, images: list[np.ndarray]
    ) -> dict[int, float]:
        """The best cosine of each document."""
        captions = [(number, text) for number, text in captions if places[number] in row_of and text.strip()]
        if not captions:
            return {number: -1.0 for number in places}
        texts = list(dict.fromkeys(text for _, text in captions))
        at, vectors = {text: row for row, text in enumerate(texts)}, _array(self._model.text_features(texts))
        every, best = np.concatenate(images), dict.fromkeys(places, -1.0)
        for number, text in captions:
            best[number] = max(best[number], float(every[row_of[places[number]]] @ vectors[at[text]]))
        return best


def _read(place: Path | Member) -> Any:
    """A picture, or why it can't be read."""
    try:
        return read_picture(place, WHOLE)
    except (ValueError, OSError) as error:
        return str(error)


def _array(features: Any) -> np.ndarray:
    return features.detach().cpu().numpy()
