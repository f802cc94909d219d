"""Rows of users' files as token stores: what can't be learned from is dropped, counted and said."""

import hashlib
import logging
from collections.abc import Sequence

import numpy as np

from alignlab.data.language.batches import ComparisonRows, Preferences, TokenStore
from alignlab.data.language.labelled import LabelledRows
from alignlab.data.language.rendering import Content, Rendered, Renderer
from alignlab.data.language.rows import Example, Labelled, Preference, Prompt

log = logging.getLogger(__name__)


def examples_of(examples: Sequence[Example], renderer: Renderer) -> TokenStore:
    """Examples as ids; those without a token of the response left after cutting are dropped.

    Raises:
        ValueError: none is left.
    """
    rendered = [
        text
        for part in _rendered([(row.prompt, row.response, row.place) for row in examples], renderer)
        for text in part
    ]
    kept = [text for text in rendered if any(text.response[1:])]
    _say_dropped(len(kept), len(rendered), "examples have no response within", renderer)
    return TokenStore(kept)


def comparisons_of(pairs: Sequence[Preference], renderer: Renderer, seed: int) -> ComparisonRows:
    """Pairs as ids, text 2i preferred over 2i + 1; pairs whose sides are equal after cutting are dropped.

    Raises:
        ValueError: none is left.
    """
    chosen = _rendered([(row.prompt, row.chosen, row.place) for row in pairs], renderer, "chosen")
    rejected = _rendered([(row.prompt, row.rejected, row.place) for row in pairs], renderer, "rejected")
    sides = [(a[-1], b[-1]) for a, b in zip(chosen, rejected, strict=True)]
    differ = [i for i, (a, b) in enumerate(sides) if a.ids != b.ids]
    _say_dropped(len(differ), len(pairs), "pairs have equal sides within", renderer)
    kept = [i for i in differ if all(any(side.response[1:]) for side in sides[i])]
    _say_dropped(len(kept), len(differ), "pairs have a side without a response within", renderer)
    store = TokenStore([text for i in kept for text in sides[i]])
    shares = np.array([pairs[i].share for i in kept], dtype=np.float32)
    margins = np.array([pairs[i].margin for i in kept], dtype=np.float32)
    groups = np.arange(len(store)).reshape(-1, 2)
    return ComparisonRows(
        store, lambda epoch: groups, lambda first, second: Preferences(shares[first // 2], margins[first // 2]), seed
    )


def labelled_of(texts: Sequence[Labelled], renderer: Renderer, seed: int) -> LabelledRows:
    """Texts with labels as ids, of a chat its last answer; those without a token of the response left after cutting
    are dropped.

    Raises:
        ValueError: none is left.
    """
    rendered = [part[-1] for part in _rendered([(row.prompt, row.response, row.place) for row in texts], renderer)]
    kept = [i for i, text in enumerate(rendered) if any(text.response[1:])]
    _say_dropped(len(kept), len(texts), "texts have no response within", renderer)
    labels = np.array([texts[i].good for i in kept], dtype=bool)
    return LabelledRows(TokenStore([rendered[i] for i in kept]), labels, seed, renderer.max_length)


def prompts_of(prompts: Sequence[Prompt], renderer: Renderer) -> list[list[int]]:
    """Prompts as ids. Raises ValueError naming the row's place."""
    gathered = []
    for row in prompts:
        try:
            gathered.append(renderer.prompt(row.prompt))
        except ValueError as error:
            raise ValueError(f"{row.place}: {error}") from error
    return gathered


def opening(text: str, min_words: int, max_words: int) -> str | None:
    """The first words of a text, their number between the limits by a hash of it; None if fewer than three words would
    be left.
    """
    words = text.split()
    digest = hashlib.blake2b(" ".join(words).lower().encode(), digest_size=8).digest()
    count = min_words + int.from_bytes(digest, "big") % (max_words - min_words + 1)
    return " ".join(words[:count]) if len(words) >= count + 3 else None


def _say_dropped(kept: int, read: int, what: str, renderer: Renderer) -> None:
    """A warning if some are dropped, an error if all of them are."""
    message = f"{read - kept} of {read} {what} max_length={renderer.max_length} and were dropped"
    if not kept:
        raise ValueError(message)
    if kept < read:
        log.warning(message)


def _rendered(rows: Sequence[tuple], renderer: Renderer, column: str | None = None) -> list[list[Rendered]]:
    """The texts of rows (prompt, response, place): one each in a `column` of a pair. Raises ValueError naming the
    row's place.
    """
    if all(isinstance(prompt, str) and isinstance(response, str) for prompt, response, _ in rows):
        try:
            return [[text] for text in renderer.texts([(prompt, response) for prompt, response, _ in rows])]
        except ValueError:
            pass  # of one row; it is found below
    return [_at(place, column, renderer, prompt, response) for prompt, response, place in rows]


def _at(place: str, column: str | None, renderer: Renderer, prompt: Content, response: Content) -> list[Rendered]:
    try:
        return renderer.examples(prompt, response) if column is None else [renderer.example(prompt, response)]
    except ValueError as error:
        where = ": ".join(part for part in (place, column) if part)
        raise ValueError(f"{where}: {error}" if where else str(error)) from error
