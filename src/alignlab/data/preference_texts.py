"""Rows of users' files as token stores: what can't be learned from is dropped, counted and said."""

import hashlib
import logging
from collections.abc import Sequence

import numpy as np

from alignlab.data.language_batches import ComparisonRows, Preferences, TokenStore
from alignlab.data.language_rows import Example, Preference
from alignlab.data.rendering import Rendered, Renderer

log = logging.getLogger(__name__)


def examples_of(examples: Sequence[Example], renderer: Renderer) -> TokenStore:
    """Examples as ids; those without a token of the response left after cutting are dropped.

    Raises:
        ValueError: none is left.
    """
    rendered = _rendered([(row.prompt, row.response) for row in examples], renderer)
    kept = [text for text in rendered if any(text.response[1:])]
    _say_dropped(len(kept), len(rendered), "examples have no response within", renderer)
    return TokenStore(kept)


def comparisons_of(pairs: Sequence[Preference], renderer: Renderer, seed: int | None) -> ComparisonRows:
    """Pairs as ids, text 2i preferred over 2i + 1; pairs whose sides are equal after cutting are dropped.

    Raises:
        ValueError: none is left.
    """
    chosen = _rendered([(row.prompt, row.chosen) for row in pairs], renderer)
    rejected = _rendered([(row.prompt, row.rejected) for row in pairs], renderer)
    kept = [i for i, (a, b) in enumerate(zip(chosen, rejected, strict=True)) if a.ids != b.ids]
    _say_dropped(len(kept), len(pairs), "pairs have equal sides within", renderer)
    store = TokenStore([text for i in kept for text in (chosen[i], rejected[i])])
    shares = np.array([pairs[i].share for i in kept], dtype=np.float32)
    margins = np.array([pairs[i].margin for i in kept], dtype=np.float32)
    groups = np.arange(len(store)).reshape(-1, 2)
    return ComparisonRows(
        store, lambda epoch: groups, lambda first, second: Preferences(shares[first // 2], margins[first // 2]), seed
    )


def opening(text: str, min_words: int, max_words: int) -> str | None:
    """The first words of a text, their number between the limits by a hash of it; None if fewer than three words would be left."""
    words = text.split()
    digest = hashlib.blake2b(" ".join(words).lower().encode(), digest_size=8).digest()
    count = min_words + int.from_bytes(digest, "big") % (max_words - min_words + 1)
    return " ".join(words[:count]) if len(words) >= count + 3 else None


def _say_dropped(kept: int, read: int, what: str, renderer: Renderer) -> None:
    """A warning if some are dropped, an error if all of them are."""
    message = f"{read - kept} of {read} {what} data.max_length={renderer.max_length} and were dropped"
    if not kept:
        raise ValueError(message)
    if kept < read:
        log.warning(message)


def _rendered(rows: Sequence[tuple], renderer: Renderer) -> list[Rendered]:
    if all(isinstance(prompt, str) and isinstance(response, str) for prompt, response in rows):
        return renderer.texts(rows)
    return [renderer.example(prompt, response) for prompt, response in rows]
